import { expect } from 'chai';

import { useControlPlane } from '../support/control-plane.ts';
import { createCrdNamespace, SLICE_SPEC, TUNNEL_SPEC, type CrdNamespace } from '../support/crd-objects.ts';

/** One code point, two UTF-16 units, four bytes. */
const EMOJI = '\u{1f600}';

/** A string field of a spec: its path, its minimum and maximum length, and a spec with a value for it. */
interface TextField {
  readonly resource: 'reversetunnels' | 'reversetunnelreporters' | 'reversetunnelslices';
  readonly path: string;
  readonly min: number;
  readonly max: number;
  readonly specWith: (value: string) => object;
}

const REPORTER_SPEC = { id: 'responder-0', cluster: 'edge' };
const ofTunnel = { resource: 'reversetunnels', min: 1 } as const;
const ofReporter = { resource: 'reversetunnelreporters', max: 256 } as const;
/** Returns a field of the entry of a slice. */
function ofEntry(name: 'name' | 'clusterID' | 'nodeID', max: number): TextField {
  const [entry] = SLICE_SPEC.tunnels;
  return {
    resource: 'reversetunnelslices',
    path: `spec.tunnels[0].${name}`,
    min: 1,
    max,
    specWith: (value) => ({ ...SLICE_SPEC, tunnelCount: 1, tunnels: [{ ...entry, [name]: value }] }),
  };
}

const FIELDS: readonly TextField[] = [
  {
    ...ofTunnel,
    path: 'spec.tunnelName',
    max: 512,
    specWith: (tunnelName) => ({ ...TUNNEL_SPEC, tunnelName }),
  },
  { ...ofTunnel, path: 'spec.tenantID', max: 128, specWith: (tenantID) => ({ ...TUNNEL_SPEC, tenantID }) },
  {
    ...ofTunnel,
    path: 'spec.clusterID',
    max: 257,
    specWith: (clusterID) => ({ ...TUNNEL_SPEC, clusterID }),
  },
  { ...ofTunnel, path: 'spec.nodeID', max: 257, specWith: (nodeID) => ({ ...TUNNEL_SPEC, nodeID }) },
  {
    ...ofTunnel,
    path: 'spec.reporter.id',
    max: 256,
    specWith: (id) => ({ ...TUNNEL_SPEC, reporter: { ...REPORTER_SPEC, id } }),
  },
  {
    ...ofTunnel,
    path: 'spec.reporter.cluster',
    min: 0,
    max: 256,
    specWith: (cluster) => ({ ...TUNNEL_SPEC, reporter: { ...REPORTER_SPEC, cluster } }),
  },
  { ...ofReporter, path: 'spec.id', min: 1, specWith: (id) => ({ ...REPORTER_SPEC, id }) },
  { ...ofReporter, path: 'spec.cluster', min: 0, specWith: (cluster) => ({ ...REPORTER_SPEC, cluster }) },
  ofEntry('name', 512),
  ofEntry('clusterID', 257),
  ofEntry('nodeID', 257),
];

/** The bounds of each rejected range. */
const REFUSED = [
  0x00, 0x09, 0x0a, 0x1b, 0x1f, 0x7f, 0x80, 0x85, 0x9b, 0x9f, 0x2028, 0x2029, 0x202a, 0x202e, 0x2066, 0x2069,
];
/** Neighbors of the rejected ranges, which an imprecise character class would include. */
const ALLOWED = [0x20, 0x7e, 0xa0, 0xad, 0x2027, 0x202f, 0x2065, 0x206a, 0xfeff, 0x1f600, 0x10ffff];

describe('strings in specs on a real API server', () => {
  const controlPlane = useControlPlane();
  let space: CrdNamespace;
  before(async () => {
    space = await createCrdNamespace(controlPlane());
  });

  /** Validates a create with this value without storing it. Returns 'accepted' or what is rejected. */
  async function verdict({ resource, specWith }: TextField, value: string): Promise<string> {
    const { code, rejected } = await space.create(resource, { spec: specWith(value) }, true);
    expect(code).to.be.oneOf([201, 422]);
    return code === 201 ? 'accepted' : rejected.join(', ');
  }

  for (const field of FIELDS) {
    const { path, min, max } = field;

    it(`${path} accepts ${min} to ${max} code points, regardless of their size in bytes`, async () => {
      const given = await Promise.all(
        ['', 'x', 'x'.repeat(max), EMOJI.repeat(max), 'x'.repeat(max + 1), EMOJI.repeat(max + 1)].map(
          async (value) => verdict(field, value),
        ),
      );
      const tooLong = `${path} FieldValueTooLong`;
      const empty = min === 0 ? 'accepted' : `${path} FieldValueInvalid`;
      expect(given).to.deep.equal([empty, 'accepted', 'accepted', 'accepted', tooLong, tooLong]);
    });

    it(`${path} rejects control and bidi characters, and no others`, async () => {
      for (const [points, expected] of [
        [REFUSED, `${path} FieldValueInvalid`],
        [ALLOWED, 'accepted'],
      ] as const) {
        for (const point of points) {
          const character = String.fromCodePoint(point);
          const given = await verdict(field, `a${character}b`);
          expect(given, `U+${point.toString(16)}`).to.equal(expected);
        }
      }
      // In some engines, `$` also matches before a newline at the end.
      expect(await verdict(field, 'a\n')).to.equal(`${path} FieldValueInvalid`);
    });
  }

  it('createdAt accepts what the operator writes, from year 1 to 9999, and rejects what it omits', async () => {
    const given: [createdAt: string, expected: string][] = [
      ['0001-01-01T00:00:00Z', 'accepted'],
      ['2026-11-23T05:00:00.123Z', 'accepted'],
      ['9999-12-31T23:59:59.999999999Z', 'accepted'],
      ['10000-01-01T00:00:00Z', 'spec.createdAt FieldValueTypeInvalid'],
      ['yesterday', 'spec.createdAt FieldValueTypeInvalid'],
      ['', 'spec.createdAt FieldValueTypeInvalid'],
    ];
    for (const [createdAt, expected] of given) {
      const { code, object, rejected } = await space.create('reversetunnels', {
        spec: { ...TUNNEL_SPEC, createdAt },
      });
      expect(code === 201 ? 'accepted' : rejected.join(', '), createdAt).to.equal(expected);
      // Stored unchanged, because objects are compared as text.
      if (code === 201) expect(object?.spec).to.have.property('createdAt', createdAt);
    }
  });

  for (const missing of ['tunnelName', 'tenantID', 'clusterID', 'nodeID', 'reporter'] as const) {
    it(`rejects an object without ${missing}`, async () => {
      const { [missing]: _, ...spec } = TUNNEL_SPEC;
      const { code, rejected } = await space.create('reversetunnels', { spec });
      expect(code).to.equal(422);
      expect(rejected).to.include(`spec.${missing} FieldValueRequired`);
    });
  }
});
