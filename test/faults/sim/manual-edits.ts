import type { ApiServerObject } from '../../../embedded-api-server/objects.ts';
import type { SliceEntry, SliceObjectSpec } from '../../../src/core/slice-object.ts';
import type { FaultInjector, FaultContext } from './fault-injectors.ts';
import { names } from './replica-process.ts';

const TUNNELS = 'reversetunnels';
const REPORTERS = 'reversetunnelreporters';
const SLICES = 'reversetunnelslices';

function pickObject({ harness, fault }: FaultContext, resource: string): ApiServerObject | undefined {
  const all = [...harness.store.objects(resource)];
  return all[fault.pick % Math.max(1, all.length)];
}

/** Returns the kind of the objects that show tunnels; slices in two of three cases, if there are any. */
function tunnelResource({ harness, fault }: FaultContext): string {
  const hasSlices = harness.hasSlices && [...harness.store.objects(SLICES)].length > 0;
  return hasSlices && fault.pick % 3 !== 0 ? SLICES : TUNNELS;
}

function deleteInjector(resourceOf: (context: FaultContext) => string): FaultInjector {
  return (context) => {
    const resource = resourceOf(context);
    const object = pickObject(context, resource);
    if (object !== undefined) context.harness.manualEdit('DELETE', resource, object.metadata.name);
  };
}

/** Adds a finalizer and, in half of the cases, deletes the object, which then waits for the finalizer. */
function finalizerInjector(resourceOf: (context: FaultContext) => string): FaultInjector {
  return (context) => {
    const { harness, fault } = context;
    const resource = resourceOf(context);
    const object = pickObject(context, resource);
    if (object === undefined) return;
    const { name } = object.metadata;
    harness.manualEdit('PATCH', resource, name, { metadata: { finalizers: ['example.com/hold'] } });
    if (fault.variant % 2 === 0) harness.manualEdit('DELETE', resource, name);
    harness.time.after(fault.durationMs, () => {
      const held = harness.store.get(resource, name);
      if (held?.metadata.finalizers !== undefined) {
        harness.manualEdit('PATCH', resource, name, { metadata: { finalizers: [] } });
      }
    });
  };
}

const TUNNEL_EDITS: readonly object[] = [
  { metadata: { labels: { 'reverse-tunnel.io/tenant': 'mine' } } },
  { metadata: { labels: { 'reverse-tunnel.io/node': null, team: 'network' } } },
  { spec: { createdAt: null } },
  { spec: { createdAt: '2020-01-01T00:00:00Z' } },
];
const TUNNEL_STATUS_EDITS: readonly object[] = [
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
  { status: { owner: { replica: 'unknown', epoch: 1 } } },
  { status: { owner: { replica: 'unknown', epoch: 1000 } } },
  { status: { owner: null } },
];
const LEASE_EDITS: readonly object[] = [
  { spec: { holderIdentity: 'another' } },
  { spec: { holderIdentity: '' } },
  { spec: { leaseDurationSeconds: 31_536_000 } },
];

/** Edits a slice: its labels, its status, or its entries. */
function editSlice(context: FaultContext): void {
  const { harness, fault } = context;
  const object = pickObject(context, SLICES);
  if (object === undefined) return;
  const { name } = object.metadata;
  const { tunnels = [] } = object.spec as unknown as SliceObjectSpec;
  const [first, ...others] = tunnels;
  const patch = (changed: readonly (SliceEntry | undefined)[]): object => ({
    spec: { tunnels: changed, tunnelCount: changed.length },
  });
  const manual = { name: 'manual', clusterID: 'eu-1', nodeID: 'manual' };
  const edits: readonly object[] = [
    { metadata: { labels: { 'reverse-tunnel.io/tenant': 'mine' } } },
    patch(others.length === 0 ? [manual] : others),
    patch([...others, { ...first, clusterID: 'mine' } as SliceEntry]),
    patch([...tunnels, manual]),
    patch([...tunnels, { name: `node-${fault.variant % 8}`, clusterID: 'eu-1', nodeID: 'manual' }]),
  ];
  const edit = edits[fault.variant % (edits.length + TUNNEL_STATUS_EDITS.length)];
  if (edit !== undefined) harness.manualEdit('PATCH', SLICES, name, edit);
  else {
    const status = TUNNEL_STATUS_EDITS[fault.variant % TUNNEL_STATUS_EDITS.length] ?? {};
    harness.manualEdit('PATCH', SLICES, `${name}/status`, status);
  }
}

/** Creates a slice of another reporter or tenant under the name of one of an Envoy's slices. */
function takeSliceName({ harness, fault }: FaultContext): void {
  const envoy = harness.envoys[fault.pick % harness.envoys.length];
  if (envoy === undefined) return;
  const name = names.sliceObjectName(envoy.reporter, 'acme', fault.variant % 2);
  const reporter = fault.variant % 5 === 0 ? { id: 'manual', cluster: '' } : envoy.reporter;
  harness.manualEdit('POST', SLICES, name, {
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    kind: 'ReverseTunnelSlice',
    metadata: { name },
    spec: {
      reporter,
      tenantID: 'manual',
      tunnelCount: 1,
      tunnels: [{ name: 'manual', clusterID: 'eu-1', nodeID: 'manual' }],
    },
  });
  harness.time.after(fault.durationMs, () => {
    if (harness.store.get(SLICES, name)?.spec['tenantID'] === 'manual')
      harness.manualEdit('DELETE', SLICES, name);
  });
}

/** Edits by a user with kubectl. */
export const manualEditFaults = {
  'kubectl-deletes-object': deleteInjector(tunnelResource),
  'kubectl-deletes-reporter': deleteInjector(() => REPORTERS),
  'kubectl-deletes-lease': deleteInjector(() => 'leases'),
  'kubectl-holds-object': finalizerInjector(tunnelResource),
  'kubectl-holds-reporter': finalizerInjector(() => REPORTERS),
  'kubectl-edits-object': (context) => {
    if (tunnelResource(context) === SLICES) {
      editSlice(context);
      return;
    }
    const object = pickObject(context, TUNNELS);
    const { fault, harness } = context;
    if (object === undefined) return;
    const index = fault.variant % (TUNNEL_EDITS.length + TUNNEL_STATUS_EDITS.length);
    const edit = TUNNEL_EDITS[index];
    if (edit !== undefined) harness.manualEdit('PATCH', TUNNELS, object.metadata.name, edit);
    else
      harness.manualEdit(
        'PATCH',
        TUNNELS,
        `${object.metadata.name}/status`,
        TUNNEL_STATUS_EDITS[index - TUNNEL_EDITS.length] ?? {},
      );
  },
  'kubectl-edits-reporter': (context) => {
    const object = pickObject(context, REPORTERS);
    if (object === undefined) return;
    const edit = REPORTER_EDITS[context.fault.variant % REPORTER_EDITS.length] ?? {};
    context.harness.manualEdit('PATCH', REPORTERS, `${object.metadata.name}/status`, edit);
  },
  'kubectl-edits-lease': (context) => {
    const object = pickObject(context, 'leases');
    if (object === undefined) return;
    const edit = LEASE_EDITS[context.fault.variant % LEASE_EDITS.length] ?? {};
    context.harness.manualEdit('PATCH', 'leases', object.metadata.name, edit);
  },
  'kubectl-takes-name': (context) => {
    const { harness, fault } = context;
    if (harness.hasSlices && fault.variant % 3 !== 0) {
      takeSliceName(context);
      return;
    }
    const envoy = harness.envoys[fault.pick % harness.envoys.length];
    if (envoy === undefined) return;
    const nodeID = `node-${fault.variant % 8}`;
    const identity = { tenantID: 'acme', clusterID: 'eu-1', nodeID };
    const name = names.tunnelObjectName(envoy.reporter, { name: nodeID, ...identity, createdAt: undefined });
    const reporter = fault.variant % 2 === 0 ? envoy.reporter : { id: 'manual', cluster: '' };
    harness.manualEdit('POST', TUNNELS, name, {
      apiVersion: 'reverse-tunnel.io/v1alpha1',
      kind: 'ReverseTunnel',
      metadata: { name },
      spec: { tunnelName: 'manual', ...identity, reporter },
    });
    harness.time.after(fault.durationMs, () => {
      const object = harness.store.get(TUNNELS, name);
      if (object?.spec['tunnelName'] === 'manual') harness.manualEdit('DELETE', TUNNELS, name);
    });
  },
} satisfies Readonly<Record<string, FaultInjector>>;
