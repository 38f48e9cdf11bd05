import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';

import { MAX_SLICE_TUNNELS } from '../../src/core/slice-object.ts';
import { reportedStatus } from '../../src/core/tunnel-object.ts';
import { findForbiddenCharacter } from '../../src/core/text.ts';
import { MAX_IDENTITY_PART, MAX_REPORTER_PART, MAX_TUNNEL_NAME } from '../../src/core/report.ts';

/** The parts of a structural schema that these tests use. */
interface Schema {
  readonly type: string;
  readonly description?: string;
  readonly format?: string;
  readonly enum?: readonly string[];
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly maxItems?: number;
  readonly pattern?: string;
  readonly required?: readonly string[];
  readonly default?: unknown;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly 'x-kubernetes-validations'?: readonly {
    readonly rule: string;
    readonly messageExpression?: string;
  }[];
}

interface Version {
  readonly selectableFields: readonly { readonly jsonPath: string }[];
  readonly additionalPrinterColumns: readonly { readonly name: string; readonly description?: string }[];
  readonly schema: { readonly openAPIV3Schema: Schema };
}

function readVersion(file: string): Version {
  const text = readFileSync(new URL(`../../crds/${file}`, import.meta.url), 'utf8');
  const crd: { readonly spec: { readonly versions: readonly Version[] } } = parse(text);
  const [version, ...others] = crd.spec.versions;
  if (version === undefined || others.length > 0) throw new Error(`${file}: one version expected`);
  return version;
}

/** Returns every schema below `schema` with its path; list items as `path[]`. */
function* fields(schema: Schema, path = ''): Generator<[path: string, schema: Schema]> {
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    yield [`${path}.${name}`, property];
    yield* fields(property, `${path}.${name}`);
  }
  if (schema.items !== undefined) {
    yield [`${path}[]`, schema.items];
    yield* fields(schema.items, `${path}[]`);
  }
}

function at(schema: Schema, path: string): Schema {
  const found = [...fields(schema)].find(([each]) => each === path);
  if (found === undefined) throw new Error(`the schema has no field ${path}`);
  return found[1];
}

/** A condition that no replica has evaluated yet. */
function pending(type: string): object {
  return {
    type,
    status: 'Unknown',
    reason: 'Pending',
    message: '',
    lastTransitionTime: '1970-01-01T00:00:00Z',
  };
}

const rows = readVersion('reversetunnels.yaml');
const row = rows.schema.openAPIV3Schema;
const reporters = readVersion('reversetunnelreporters.yaml');
const reporter = reporters.schema.openAPIV3Schema;
const policies = readVersion('reversetunnelpolicies.yaml');
const policy = policies.schema.openAPIV3Schema;
const expectations = readVersion('reversetunnelexpectations.yaml');
const expectation = expectations.schema.openAPIV3Schema;
const slices = readVersion('reversetunnelslices.yaml');
const slice = slices.schema.openAPIV3Schema;

/**
 * RE2, JavaScript, Python and Rust have no escape in common for the last characters, so they are literal. Go's YAML
 * writers break the line after U+2028, so the class ends next to it, and what it includes in excess is added again.
 */
const SHOWN_TEXT = '^(?:[^\\x00-\\x1f\\x7f-\\x9f\u2027-\u202f\u2066-\u2069]|[\u2027\u202f])*$';

describe('CRD schemas', () => {
  for (const [kind, version, greatestList] of [
    ['ReverseTunnel', rows, 8],
    ['ReverseTunnelReporter', reporters, 16],
    ['ReverseTunnelPolicy', policies, 256],
    ['ReverseTunnelExpectation', expectations, 1000],
    ['ReverseTunnelSlice', slices, MAX_SLICE_TUNNELS],
  ] as const) {
    const schema = version.schema.openAPIV3Schema;

    describe(kind, () => {
      it('have a description for every kind, field and column', () => {
        const undescribed = [...fields(schema)]
          .filter(([, field]) => (field.description ?? '').length < 20)
          .map(([path]) => path);
        expect(undescribed).to.deep.equal([]);
        expect([...fields(schema)].length).to.be.greaterThan(18);
        expect(schema.description).to.match(new RegExp(`^${kind} is `));
        for (const column of version.additionalPrinterColumns) expect(column.description).to.be.a('string');
      });

      it('have no schema for the metadata, which costs the API server memory and time for each request', () => {
        expect(schema.properties).to.not.have.property('metadata');
      });

      it('are atomic where the operator owns all fields, which keeps managed fields small', () => {
        const MAP_TYPE = 'x-kubernetes-map-type';
        expect(schema.properties?.['status']).to.have.property(MAP_TYPE, 'atomic');
        const { spec } = schema.properties ?? {};
        if (kind === 'ReverseTunnelSlice')
          expect(spec?.properties?.['reporter']).to.have.property(MAP_TYPE, 'atomic');
        else if (kind === 'ReverseTunnelPolicy' || kind === 'ReverseTunnelExpectation')
          expect(spec).to.not.have.property(MAP_TYPE);
        else expect(spec).to.have.property(MAP_TYPE, 'atomic');
      });

      it('bound every string and every list', () => {
        for (const [path, field] of fields(schema)) {
          if (path === '.apiVersion' || path === '.kind') continue;
          if (field.type === 'string' && field.enum === undefined)
            expect(field.maxLength, path).to.be.a('number');
          if (field.type === 'array') expect(field.maxItems, path).to.be.within(1, greatestList);
        }
      });

      it('have enums of strings only, because generators of types reject others', () => {
        for (const [path, field] of fields(schema))
          if (field.enum !== undefined) expect(field.type, path).to.equal('string');
      });

      it('reject the same characters in every free-form string', () => {
        const free = [...fields(schema)].filter(
          ([path, field]) =>
            field.type === 'string' &&
            field.enum === undefined &&
            field.format === undefined &&
            !/^\.(?:apiVersion|kind)$|conditions\[\]\.type$|\[\]\.reason$|\.gracePeriod$|\.values\[\]$/.test(
              path,
            ),
        );
        expect(free.length).to.be.greaterThan(5);
        for (const [path, field] of free) expect(field.pattern, path).to.equal(SHOWN_TEXT);
      });
    });
  }

  for (const [kind, version] of [
    ['ReverseTunnel', rows],
    ['ReverseTunnelReporter', reporters],
    ['ReverseTunnelSlice', slices],
  ] as const) {
    const schema = version.schema.openAPIV3Schema;

    describe(kind, () => {
      it('have at most the 8 selectable fields that an API server accepts, each a field of the schema', () => {
        expect(version.selectableFields.length).to.be.within(1, 8);
        for (const { jsonPath } of version.selectableFields)
          expect(at(schema, jsonPath).type).to.equal('string');
      });

      it('make every spec field immutable except what changes with a tunnel, and name the field that differs', () => {
        const spec = at(schema, '.spec');
        const leaves = [...fields(spec)]
          .filter(
            ([path, field]) => field.type !== 'object' && !/^\.(?:createdAt|tunnel(?:Count|s\b))/.test(path),
          )
          .map(([path]) => path.slice(1));
        const rules = (spec['x-kubernetes-validations'] ?? []).filter(({ rule }) => rule.includes('oldSelf'));
        expect(rules).to.have.length(1);
        for (const text of [rules[0]?.rule, rules[0]?.messageExpression]) {
          const compared = [...(text ?? '').matchAll(/self\.([\w.]+) == oldSelf\.\1(?![\w.])/g)];
          expect(compared.map((match) => match[1])).to.have.members(leaves);
        }
      });
    });
  }

  it('reject exactly the characters that the operator rejects', () => {
    const pattern = new RegExp(SHOWN_TEXT, 'u');
    for (let point = 0; point <= 0xffff; point += 1) {
      if (point >= 0xd800 && point <= 0xdfff) continue;
      const character = String.fromCodePoint(point);
      expect(pattern.test(character), point.toString(16)).to.equal(
        findForbiddenCharacter(character) === undefined,
      );
    }
  });

  it('allow the lengths that the operator accepts', () => {
    const scoped = MAX_IDENTITY_PART + 1 + MAX_IDENTITY_PART;
    const given = (
      [
        [row, '.spec.tunnelName'],
        [row, '.spec.tenantID'],
        [row, '.spec.clusterID'],
        [row, '.spec.nodeID'],
        [row, '.spec.reporter.id'],
        [row, '.spec.reporter.cluster'],
        [reporter, '.spec.id'],
        [reporter, '.spec.cluster'],
        [slice, '.spec.tenantID'],
        [slice, '.spec.reporter.id'],
        [slice, '.spec.reporter.cluster'],
        [slice, '.spec.tunnels[].name'],
        [slice, '.spec.tunnels[].clusterID'],
        [slice, '.spec.tunnels[].nodeID'],
        [slice, '.status.tunnels[].name'],
      ] as const
    ).map(([schema, path]) => [at(schema, path).minLength ?? 0, at(schema, path).maxLength]);
    expect(given).to.deep.equal([
      [1, MAX_TUNNEL_NAME],
      [1, MAX_IDENTITY_PART],
      [1, scoped],
      [1, scoped],
      [1, MAX_REPORTER_PART],
      [0, MAX_REPORTER_PART],
      [1, MAX_REPORTER_PART],
      [0, MAX_REPORTER_PART],
      [1, MAX_IDENTITY_PART],
      [1, MAX_REPORTER_PART],
      [0, MAX_REPORTER_PART],
      [1, MAX_TUNNEL_NAME],
      [1, scoped],
      [1, scoped],
      [1, MAX_TUNNEL_NAME],
    ]);
    expect(scoped).to.equal(257);
  });

  it('require a complete identity, including an empty reporter cluster', () => {
    expect(at(row, '.spec').required).to.have.members([
      'tunnelName',
      'tenantID',
      'clusterID',
      'nodeID',
      'reporter',
    ]);
    expect(at(row, '.spec.reporter').required).to.have.members(['id', 'cluster']);
    expect(at(reporter, '.spec').required).to.have.members(['id', 'cluster']);
    expect(at(slice, '.spec').required).to.have.members(['reporter', 'tenantID', 'tunnelCount', 'tunnels']);
    expect(at(slice, '.spec.reporter').required).to.have.members(['id', 'cluster']);
    expect(at(slice, '.spec.tunnels[]').required).to.have.members(['name', 'clusterID', 'nodeID']);
    expect(row.required).to.deep.equal(['spec']);
    expect(reporter.required).to.deep.equal(['spec']);
  });
});

describe('CRD defaults, which are part of the contract: a change would alter every object whose status was never written', () => {
  it('give a new object the status of a reported tunnel', () => {
    expect(at(row, '.status').default).to.deep.equal({
      state: 'Connected',
      conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
    });
  });

  it('give a new slice the status of a reported tunnel', () => {
    expect(at(slice, '.status').default).to.deep.equal(at(row, '.status').default);
  });

  it('give a new object what the operator would write, except for the time', () => {
    const written = reportedStatus('2026-11-23T05:00:00Z');
    expect(at(row, '.status').default).to.deep.equal({
      ...written,
      conditions: written.conditions?.map(({ lastTransitionTime, ...condition }) => {
        expect(lastTransitionTime).to.equal('2026-11-23T05:00:00Z');
        return condition;
      }),
    });
  });

  it('give a new reporter object conditions that clients can wait for', () => {
    const given = at(reporter, '.status').default;
    expect(given).to.deep.equal({ conditions: [pending('Connected'), pending('Synced'), pending('Ready')] });
  });

  it('give a new policy conditions that clients can wait for', () => {
    expect(at(policy, '.status').default).to.deep.equal({
      conditions: [pending('Accepted'), pending('Ready')],
    });
  });

  it('give a new expectation a condition that clients can wait for', () => {
    expect(at(expectation, '.status').default).to.deep.equal({ conditions: [pending('Ready')] });
  });

  it('exist nowhere else, except for the minimums of expectations', () => {
    for (const schema of [row, reporter, policy, slice]) {
      const defaulted = [...fields(schema)].filter(([, field]) => field.default !== undefined);
      expect(defaulted.map(([path]) => path)).to.deep.equal(['.status']);
    }
    const defaults = [...fields(expectation)].flatMap(([path, field]) =>
      field.default === undefined || path === '.status' ? [] : [[path, field.default]],
    );
    expect(defaults).to.deep.equal([
      ['.spec.minTunnels', 1],
      ['.spec.minReporters', 1],
      ['.spec.gracePeriod', '60s'],
    ]);
  });

  it('omit observedGeneration from ReverseTunnels and slices, where a changed tunnel would make kubectl wait time out', () => {
    for (const schema of [row, slice]) {
      const names = [...fields(schema)].map(([path]) => path);
      expect(names.filter((path) => path.includes('observedGeneration'))).to.deep.equal([]);
      expect(at(schema, '.status.conditions[]').required).to.deep.equal(['type', 'status', 'reason']);
    }
  });
});
