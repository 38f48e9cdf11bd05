import { expect } from 'chai';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, parseAllDocuments, stringify } from 'yaml';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import type { Manifest } from '../support/helm.ts';

const ROOT = join(import.meta.dirname, '..', '..');
/** Kinds of other projects, which the API server of the tests does not serve; these are only parsed. */
const FOREIGN_KINDS = ['Application', 'HelmRelease', 'Kustomization', 'OCIRepository'];

interface Shown {
  /** The file and the number of the block. */
  readonly where: string;
  readonly text: string;
}

/** All YAML in the documentation: the blocks of all pages, and the files of examples/. */
function everythingShown(): Shown[] {
  const pages = globSync(['*.md', 'docs/**/*.md', 'examples/*.md', 'charts/*/*.md'], { cwd: ROOT }).flatMap(
    (file) =>
      [...readFileSync(join(ROOT, file), 'utf8').matchAll(/^```ya?ml\n([^]*?)^```/gm)].map(
        ([, text = ''], i) => ({
          where: `${file}, block ${i + 1}`,
          text,
        }),
      ),
  );
  const files = globSync(['examples/*.yaml', 'examples/tunnel-log/*.yaml'], { cwd: ROOT });
  return [...pages, ...files.map((file) => ({ where: file, text: readFileSync(join(ROOT, file), 'utf8') }))];
}

function isObject(value: unknown): value is Manifest {
  return (
    typeof value === 'object' &&
    value !== null &&
    'apiVersion' in value &&
    'kind' in value &&
    'metadata' in value
  );
}

describe('documented YAML', () => {
  const controlPlane = useControlPlane();
  const shown = everythingShown();
  let served: Set<string>;
  let namespace: string;

  before(async () => {
    const { stdout } = await controlPlane().kubectl(['api-resources', '--no-headers']);
    served = new Set(stdout.split('\n').map((line) => line.trim().split(/\s+/).at(-1) ?? ''));
    namespace = await createNamespace(controlPlane(), 'shown');
  });

  it('exists', () => {
    expect(shown.length).to.be.greaterThan(8);
  });

  for (const { where, text } of shown) {
    it(`${where} is valid, and the API server accepts its Kubernetes objects`, async () => {
      const documents = parseAllDocuments(text);
      for (const document of documents) expect(document.errors, where).to.deep.equal([]);
      const objects = documents.map((document): unknown => document.toJS()).filter(isObject);
      for (const object of objects) {
        if (!served.has(object.kind)) {
          expect(FOREIGN_KINDS, `unknown kind ${object.kind}`).to.include(object.kind);
          continue;
        }
        const moved = { ...object, metadata: { ...object.metadata, namespace } };
        const { code, stderr } = await controlPlane().kubectl(['apply', '-f', '-'], {
          input: stringify(moved),
        });
        expect(code, `${where}: ${stderr}`).to.equal(0);
      }
    });
  }

  for (const file of globSync('examples/envoy-*.yaml', { cwd: ROOT })) {
    it(`${file} refers only to clusters that it defines, and to extensions by their types`, () => {
      const bootstrap = parse(readFileSync(join(ROOT, file), 'utf8')) as {
        readonly static_resources: { readonly clusters: readonly { readonly name: string }[] };
      };
      const clusters = bootstrap.static_resources.clusters.map(({ name }) => name);
      const named: string[] = [];
      const types: string[] = [];
      JSON.stringify(bootstrap, (key, value: unknown) => {
        if (key === 'cluster' && typeof value === 'string') named.push(value);
        if (key === '@type') types.push(String(value));
        return value;
      });
      // node.cluster is a different kind of name.
      expect(clusters).to.include.members(named.filter((name) => !['edge', 'eu-1'].includes(name)));
      expect(types.length).to.be.at.least(3);
      for (const type of types)
        expect(type).to.match(/^type\.googleapis\.com\/envoy\.extensions\.[\w.]+\.[A-Z]\w+$/);
    });
  }

  it('the responder example reports as the chart’s notes describe', () => {
    const notes = readFileSync(join(ROOT, 'charts/reverse-tunnel-operator/templates/NOTES.txt'), 'utf8');
    for (const file of ['examples/envoy-responder.yaml', 'examples/envoy-responder-mtls.yaml']) {
      const example = readFileSync(join(ROOT, file), 'utf8');
      for (const name of notes.matchAll(/(?:name|'@type'): (\S*reverse_tunnel\S*)/g)) {
        expect(example, file).to.include(name[1]);
      }
    }
  });
});
