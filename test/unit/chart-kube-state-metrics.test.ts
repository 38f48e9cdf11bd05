import { expect } from 'chai';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

const ROOT = join(import.meta.dirname, '..', '..');

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly enum?: readonly string[];
}
interface Crd {
  readonly spec: {
    readonly group: string;
    readonly names: { readonly kind: string };
    readonly versions: readonly {
      readonly name: string;
      readonly schema: { readonly openAPIV3Schema: Schema };
    }[];
  };
}
type Paths = Readonly<Record<string, readonly string[]>>;
interface Source {
  readonly path?: readonly string[];
  readonly valueFrom?: readonly string[];
  readonly labelsFromPath?: Paths;
  readonly list?: readonly string[];
}
interface Resource {
  readonly groupVersionKind: { readonly group: string; readonly version: string; readonly kind: string };
  readonly metricNamePrefix: string;
  readonly labelsFromPath: Paths;
  readonly metrics: readonly {
    readonly name: string;
    readonly help: string;
    readonly each: {
      readonly type: string;
      readonly gauge?: Source;
      readonly info?: Source;
      readonly stateSet?: Source;
    };
  }[];
}

function readYaml(...path: readonly string[]): unknown {
  return parse(readFileSync(join(ROOT, ...path), 'utf8'));
}

const config = readYaml('charts', 'reverse-tunnel-operator', 'files', 'kube-state-metrics.yaml') as {
  spec: { resources: Resource[] };
};
const crds = readdirSync(join(ROOT, 'crds')).map((name) => readYaml('crds', name) as Crd);

/** Returns the schema at a path; items of a list are entered implicitly, as kube-state-metrics does. */
function schemaAt(schema: Schema, path: readonly string[]): Schema | undefined {
  let current: Schema | undefined = schema;
  for (const name of path) current = (current?.items ?? current)?.properties?.[name];
  return current;
}

describe('the configuration of kube-state-metrics', () => {
  it('names only fields of the CRDs', () => {
    for (const { groupVersionKind, labelsFromPath, metrics } of config.spec.resources) {
      const { group, version, kind } = groupVersionKind;
      const crd = crds.find(({ spec }) => spec.group === group && spec.names.kind === kind);
      const schema = crd?.spec.versions.find(({ name }) => name === version)?.schema.openAPIV3Schema;
      if (schema === undefined) throw new Error(`no CRD of ${kind}`);
      const expectField = (path: readonly string[]): void => {
        if (path[0] !== 'metadata')
          expect(schemaAt(schema, path), `${kind} ${path.join('.')}`).to.be.an('object');
      };
      for (const path of Object.values(labelsFromPath)) expectField(path);
      for (const { each, help } of metrics) {
        const source = each.gauge ?? each.info ?? each.stateSet;
        const base = source?.path ?? [];
        expectField(base);
        expect(help).to.match(/\.$/);
        for (const path of Object.values(source?.labelsFromPath ?? {})) expectField([...base, ...path]);
        if (source?.valueFrom === undefined) continue;
        expectField([...base, ...source.valueFrom]);
        expect(schemaAt(schema, [...base, ...source.valueFrom])?.enum).to.have.members([
          ...(source.list ?? []),
        ]);
      }
    }
  });

  it('creates exactly the series that docs/operations.md lists', () => {
    const page = readFileSync(join(ROOT, 'docs', 'operations.md'), 'utf8');
    const documented = [...page.matchAll(/^\| `(kube_\w+)` /gm)].map(([, name]) => name);
    const created = config.spec.resources.flatMap(({ metricNamePrefix, metrics }) =>
      metrics.map(({ name }) => `${metricNamePrefix}_${name}`),
    );
    expect(created).to.have.members(documented);
    expect(created.length).to.be.greaterThan(8);
  });

  it('has no series per ReverseTunnel, whose number grows with the fleet', () => {
    const kinds = config.spec.resources.map(({ groupVersionKind }) => groupVersionKind.kind);
    expect(kinds).to.have.members([
      'ReverseTunnelReporter',
      'ReverseTunnelPolicy',
      'ReverseTunnelExpectation',
    ]);
  });
});
