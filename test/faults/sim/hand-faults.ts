import type { ApiObjectShown } from './api-objects.ts';
import type { Fault, Scene } from './faults.ts';
import { names } from './replica-process.ts';

const ROWS = 'reversetunnels';
const REPORTERS = 'reversetunnelreporters';

function objectOf({ world, step }: Scene, resource: string): ApiObjectShown | undefined {
  const all = [...world.store.objects(resource)];
  return all[step.pick % Math.max(1, all.length)];
}

function deletes(resource: string): Fault {
  return (scene) => {
    const object = objectOf(scene, resource);
    if (object !== undefined) scene.world.hand('DELETE', resource, object.metadata.name);
  };
}

/** A finalizer, and perhaps a deletion that has to wait for it. */
function holds(resource: string): Fault {
  return (scene) => {
    const { world, step } = scene;
    const object = objectOf(scene, resource);
    if (object === undefined) return;
    const { name } = object.metadata;
    world.hand('PATCH', resource, name, { metadata: { finalizers: ['example.com/hold'] } });
    if (step.other % 2 === 0) world.hand('DELETE', resource, name);
    world.time.after(step.forMs, () => {
      const held = world.store.get(resource, name);
      if (held?.metadata.finalizers !== undefined) {
        world.hand('PATCH', resource, name, { metadata: { finalizers: [] } });
      }
    });
  };
}

const ROW_EDITS: readonly object[] = [
  { metadata: { labels: { 'reverse-tunnel.io/tenant': 'mine' } } },
  { metadata: { labels: { 'reverse-tunnel.io/node': null, team: 'network' } } },
  { spec: { createdAt: null } },
  { spec: { createdAt: '2020-01-01T00:00:00Z' } },
];
const ROW_STATUS_EDITS: readonly object[] = [
  { status: { state: 'Unknown' } },
  {
    status: {
      state: 'Unknown',
      conditions: [{ type: 'Ready', status: 'Unknown', reason: 'ReporterLost' }],
    },
  },
];
const REPORTER_EDITS: readonly object[] = [
  { status: { tunnels: { reported: 99, applied: 1, rejected: 98 } } },
  { status: { conditions: [] } },
  { status: { owner: { replica: 'nobody', epoch: 1 } } },
  { status: { owner: { replica: 'nobody', epoch: 1000 } } },
  { status: { owner: null } },
];
const LEASE_EDITS: readonly object[] = [
  { spec: { holderIdentity: 'somebody' } },
  { spec: { holderIdentity: '' } },
  { spec: { leaseDurationSeconds: 31_536_000 } },
];

/** What somebody with kubectl does. */
export const handFaults = {
  'hand-deletes-row': deletes(ROWS),
  'hand-deletes-reporter': deletes(REPORTERS),
  'hand-deletes-lease': deletes('leases'),
  'hand-holds-row': holds(ROWS),
  'hand-holds-reporter': holds(REPORTERS),
  'hand-edits-row': (scene) => {
    const object = objectOf(scene, ROWS);
    const { step, world } = scene;
    if (object === undefined) return;
    const at = step.other % (ROW_EDITS.length + ROW_STATUS_EDITS.length);
    const edit = ROW_EDITS[at];
    if (edit !== undefined) world.hand('PATCH', ROWS, object.metadata.name, edit);
    else
      world.hand(
        'PATCH',
        ROWS,
        `${object.metadata.name}/status`,
        ROW_STATUS_EDITS[at - ROW_EDITS.length] ?? {},
      );
  },
  'hand-edits-reporter': (scene) => {
    const object = objectOf(scene, REPORTERS);
    if (object === undefined) return;
    const edit = REPORTER_EDITS[scene.step.other % REPORTER_EDITS.length] ?? {};
    scene.world.hand('PATCH', REPORTERS, `${object.metadata.name}/status`, edit);
  },
  'hand-edits-lease': (scene) => {
    const object = objectOf(scene, 'leases');
    if (object === undefined) return;
    const edit = LEASE_EDITS[scene.step.other % LEASE_EDITS.length] ?? {};
    scene.world.hand('PATCH', 'leases', object.metadata.name, edit);
  },
  'hand-takes-name': (scene) => {
    const { world, step } = scene;
    const envoy = world.envoys[step.pick % world.envoys.length];
    if (envoy === undefined) return;
    const nodeID = `node-${step.other % 8}`;
    const parts = { tenantID: 'acme', clusterID: 'eu-1', nodeID };
    const name = names.rowName(envoy.reporter, { name: nodeID, ...parts, createdAt: undefined });
    const reporter = step.other % 2 === 0 ? envoy.reporter : { id: 'by-hand', cluster: '' };
    world.hand('POST', ROWS, name, {
      apiVersion: 'reverse-tunnel.io/v1alpha1',
      kind: 'ReverseTunnel',
      metadata: { name },
      spec: { tunnelName: 'by-hand', ...parts, reporter },
    });
    world.time.after(step.forMs, () => {
      const row = world.store.get(ROWS, name);
      if (row?.spec['tunnelName'] === 'by-hand') world.hand('DELETE', ROWS, name);
    });
  },
} satisfies Readonly<Record<string, Fault>>;
