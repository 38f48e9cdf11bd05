import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';

import { useControlPlane } from '../support/control-plane.ts';
import { createCrdNamespace, type CrdNamespace, type StoredObject } from '../support/crd-objects.ts';

/** The pages with the words that are specific to a kind. */
const PAGES = [
  { file: 'reversetunnel.md', resource: 'reversetunnels', short: 'rt' },
  { file: 'reversetunnelreporter.md', resource: 'reversetunnelreporters', short: 'rtr' },
  { file: 'reversetunnelpolicy.md', resource: 'reversetunnelpolicies', short: 'rtp' },
  { file: 'reversetunnelexpectation.md', resource: 'reversetunnelexpectations', short: 'rte' },
  { file: 'reversetunnelslice.md', resource: 'reversetunnelslices', short: 'rts' },
] as const;

describe('pages of docs/spec on a real API server', () => {
  const controlPlane = useControlPlane();
  let space: CrdNamespace;
  before(async () => {
    space = await createCrdNamespace(controlPlane());
  });

  for (const { file, resource, short } of PAGES) {
    const page = readFileSync(new URL(`../../docs/spec/v1alpha1/${file}`, import.meta.url), 'utf8');
    const yaml = /```yaml\n([^]*?)```/.exec(page)?.[1] ?? '';

    it(`${file} has an example that is accepted and stored unchanged`, async () => {
      const { metadata, spec, status }: StoredObject = parse(yaml);
      expect((await space.create(resource, { name: metadata.name, spec })).code).to.equal(201);
      const patch = ['--subresource=status', '--type=merge', '-p', JSON.stringify({ status })];
      await space.kubectl('patch', `${short}/${metadata.name}`, ...patch);
      const stored = await space.get(resource, metadata.name);
      // Unknown fields are pruned without an error, so they would be missing here.
      expect({ spec: stored.spec, status: stored.status }).to.deep.equal({ spec, status });
    });

    it(`${file} shows commands that print the documented header`, async () => {
      const shown = /```console\n\$ kubectl (.*)\n(.*)\n/.exec(page);
      const printed = await space.kubectl(...(shown?.[1] ?? '').split(' '));
      expect(printed.split('\n')[0]?.trimEnd().split(/\s+/)).to.deep.equal(
        shown?.[2]?.trimEnd().split(/\s+/),
      );
    });

    it(`${file} documents every field and its bounds`, async () => {
      const text = await space.kubectl('get', 'crd', `${resource}.reverse-tunnel.io`, '-o', 'json');
      const crd: { spec: { versions: { schema: { openAPIV3Schema: Field } }[] } } = JSON.parse(text);
      const schema = crd.spec.versions[0]?.schema.openAPIV3Schema;
      const bounds = [...textBounds(schema?.properties?.['spec'])];
      expect(bounds.length).to.be.greaterThan(1);
      for (const [path, min, max] of bounds) {
        const line = page.split('\n').find((candidate) => candidate.startsWith(`| \`${path}\` `));
        expect(line, path).to.match(new RegExp(`\\| (required|optional) \\| ${min}-${max} +\\|`));
      }
      const status = schema?.properties?.['status'];
      for (const name of Object.keys(status?.properties ?? {})) {
        expect(page, name).to.match(new RegExp(`^\\| \`${name}[\`.]`, 'm'));
      }
    });
  }
});

interface Field {
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly format?: string;
  readonly properties?: Readonly<Record<string, Field>>;
  readonly items?: Field;
}

/** Returns each string below a field with its minimum and maximum length. */
function* textBounds(
  field: Field | undefined,
  path = '',
): Generator<[path: string, min: number, max: number]> {
  const below = Object.entries(field?.properties ?? {}).map(
    ([name, property]) => [`${path}${name}`, property] as const,
  );
  for (const [at, property] of below) {
    const [place, schema] = property.items === undefined ? [at, property] : [`${at}[]`, property.items];
    yield* textBounds(schema, `${place}.`);
    if (schema.maxLength !== undefined && schema.format === undefined) {
      yield [place, schema.minLength ?? 0, schema.maxLength];
    }
  }
}
