import { expect } from 'chai';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { CHART_CRDS, chartValues, generatedFiles } from '../../charts/generated.ts';
import { readConfig } from '../../src/config.ts';

const CHART = join(import.meta.dirname, '..', '..', 'charts', 'reverse-tunnel-operator');
const read = (path: string): string => readFileSync(join(CHART, path), 'utf8');

describe('generated files of the chart', () => {
  it('equal the CRDs and the table of values that `npm run chart` writes', () => {
    const files = generatedFiles();
    const stale = [...files].filter(([path, text]) => readFileSync(path, 'utf8') !== text);
    expect(stale.map(([path]) => path)).to.deep.equal([]);
    expect(readdirSync(CHART_CRDS).filter((name) => !files.has(join(CHART_CRDS, name)))).to.deep.equal([]);
  });

  it('belong to a chart with the version of the operator', () => {
    const { version } = JSON.parse(read('../../package.json')) as { version: string };
    const { appVersion } = parse(read('Chart.yaml')) as { appVersion: string };
    expect(appVersion).to.equal(version);
  });

  it('document every value, and an undocumented value is rejected', () => {
    const values = read('values.yaml');
    const entries = chartValues(values, parse(values));
    expect(entries.find(({ path }) => path === 'tls.certManager.issuerRef.kind')?.defaultValue).to.equal(
      'Issuer',
    );
    expect(entries.map(({ path }) => path)).to.not.include('podSecurityContext.runAsUser');
    expect(() => chartValues('a:\n  # -- documented\n  b: 1\n  c: 2\n', { a: { b: 1, c: 2 } })).to.throw(
      'a.c',
    );
  });

  it('list exactly the values of the schema', () => {
    const schema = JSON.parse(read('values.schema.json')) as Schema;
    const text = read('values.yaml');
    const paths = chartValues(text, parse(text)).map(({ path }) => path);
    for (const path of paths) expect(property(schema, path), path).to.not.equal(undefined);
    expect(strictLeaves(schema).filter((leaf) => !paths.some((path) => covers(path, leaf)))).to.deep.equal(
      [],
    );
  });

  it('contain the defaults of the operator', () => {
    const { config } = parse(read('values.yaml')) as { config: Record<string, string | number | boolean> };
    const { objectsNamespace: _, listenAddress: __, ...named } = config;
    // An empty value is not rendered.
    const flags = Object.entries(named)
      .filter(([, value]) => value !== '')
      .map(([key, value]) => [
        key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`),
        String(value),
      ]);
    expect(flags.length).to.be.greaterThan(8);
    const auth = { auth: 'insecure' };
    expect(readConfig({ ...auth, ...Object.fromEntries(flags) })).to.deep.equal(readConfig(auth));
  });
});

interface Schema {
  readonly additionalProperties?: unknown;
  readonly properties?: Readonly<Record<string, Schema>>;
}

function property(schema: Schema, path: string): Schema | undefined {
  let at: Schema | undefined = schema;
  for (const key of path.split('.')) at = at?.properties?.[key];
  return at;
}

/** Paths of what stands in closed objects. */
function strictLeaves(schema: Schema, path: readonly string[] = []): string[] {
  if (schema.properties === undefined) return [path.join('.')];
  return Object.entries(schema.properties).flatMap(([key, inner]) => strictLeaves(inner, [...path, key]));
}

function covers(path: string, leaf: string): boolean {
  return leaf === path || leaf.startsWith(`${path}.`);
}
