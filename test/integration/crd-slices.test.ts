import { expect } from 'chai';
import { MAX_SLICE_TUNNELS } from '../../src/core/slice-object.ts';
import { useControlPlane } from '../support/control-plane.ts';
import { createCrdNamespace, SLICE_SPEC, type CrdNamespace } from '../support/crd-objects.ts';

const slices = 'reversetunnelslices';
const [FIRST, SECOND] = SLICE_SPEC.tunnels;

/** Returns a spec with the given entries. */
function specWith(tunnels: readonly object[], tunnelCount = tunnels.length): object {
  return { ...SLICE_SPEC, tunnelCount, tunnels };
}

function entries(count: number): object[] {
  return Array.from({ length: count }, (_, i) => ({ name: `n-${i}`, clusterID: 'eu-1', nodeID: `n-${i}` }));
}

describe('ReverseTunnelSlices on a real API server', () => {
  const controlPlane = useControlPlane();
  let space: CrdNamespace;
  before(async () => {
    space = await createCrdNamespace(controlPlane());
  });

  for (const [what, spec, rejected] of [
    ['no entry', specWith([]), ['spec.tunnels FieldValueInvalid']],
    ['more than 100 entries', specWith(entries(MAX_SLICE_TUNNELS + 1)), ['spec.tunnels FieldValueTooMany']],
    [
      'two entries of one name',
      specWith([FIRST, { ...SECOND, name: FIRST?.name }]),
      ['spec.tunnels[1] FieldValueDuplicate'],
    ],
    ['a wrong count', specWith(entries(2), 3), ['spec.tunnelCount FieldValueInvalid']],
    [
      'no count',
      { ...specWith(entries(1)), tunnelCount: undefined },
      ['spec.tunnelCount FieldValueRequired'],
    ],
    [
      'an entry without a node',
      specWith([{ ...FIRST, nodeID: undefined }]),
      ['spec.tunnels[0].nodeID FieldValueRequired'],
    ],
  ] as const) {
    it(`are rejected with ${what}`, async () => {
      const result = await space.create(slices, { spec });
      expect(result.code).to.equal(422);
      expect(result.rejected).to.include.members(rejected);
    });
  }

  it('have 1 to 100 entries, and the default status', async () => {
    for (const count of [1, MAX_SLICE_TUNNELS]) {
      const { code, object } = await space.create(slices, { spec: specWith(entries(count)) });
      expect(code).to.equal(201);
      expect(object?.spec).to.deep.equal(specWith(entries(count)));
      expect(object?.status).to.deep.equal({
        state: 'Connected',
        conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
      });
    }
  });

  it('let an entry be replaced, added and removed on the same object', async () => {
    const { object } = await space.create(slices, { name: 'changed', spec: SLICE_SPEC });
    for (const tunnels of [[{ ...FIRST, nodeID: 'other' }, SECOND], entries(7), [SECOND]]) {
      const patch = JSON.stringify({ spec: { tunnelCount: tunnels.length, tunnels } });
      await space.kubectl('patch', 'rts/changed', '--type=merge', '-p', patch);
      const stored = await space.get(slices, 'changed');
      expect(stored.spec).to.deep.equal(specWith(tunnels));
      expect(stored.metadata.uid).to.equal(object?.metadata.uid);
    }
  });

  it('are compared entry by entry by server-side apply: each manager owns its entries, and no part of one', async () => {
    const apply = (manager: string, tunnels: readonly (object | undefined)[], ...more: string[]) => {
      const body = {
        apiVersion: 'reverse-tunnel.io/v1alpha1',
        kind: 'ReverseTunnelSlice',
        metadata: { name: 'applied' },
        spec: specWith(tunnels as object[], 2),
      };
      return [
        'apply',
        '--server-side',
        `--field-manager=${manager}`,
        ...more,
        '-f',
        '-',
        JSON.stringify(body),
      ];
    };
    const run = async (args: string[]): Promise<string> => {
      const { code, stdout, stderr } = await controlPlane().kubectl(
        ['--namespace', space.name, ...args.slice(0, -1)],
        { input: args.at(-1) ?? '' },
      );
      return code === 0 ? stdout : stderr;
    };
    await run(apply('both', [FIRST, SECOND]));
    await run(apply('first', [FIRST, SECOND], '--force-conflicts'));
    // The second manager alone gives up an entry that the first one still has.
    expect(await run(apply('both', [{ ...FIRST, nodeID: 'other' }, SECOND]))).to.match(
      /conflict with "first".*\.spec\.tunnels\[name="acme:node-17"\]/s,
    );
    const { metadata } = await space.get(slices, 'applied');
    const owned = metadata.managedFields.map(({ fieldsV1 }) => fieldsV1) as {
      'f:spec': { 'f:tunnels': object };
    }[];
    for (const fields of owned) {
      expect(fields['f:spec']['f:tunnels']).to.deep.equal({
        'k:{"name":"acme:node-17"}': {},
        'k:{"name":"acme:node-18"}': {},
      });
    }
  });
});
