import type { FaultInjector, FaultContext } from './fault-injectors.ts';
import type { SimHarness } from './harness.ts';
import { createWebhook } from './webhook.ts';

const TUNNELS = 'reversetunnels';
const REPORTERS = 'reversetunnelreporters';
const RESOURCES = [TUNNELS, REPORTERS, 'leases', 'reversetunnelslices'];

/** Injects a fault into the API server and ends it after the fault's duration. */
function temporarily(
  begin: (context: FaultContext) => void,
  end: (context: FaultContext) => void,
): FaultInjector {
  return (context) => {
    begin(context);
    context.harness.time.after(context.fault.durationMs, () => end(context));
  };
}

function injectErrors(error: keyof SimHarness['server']['rates']): FaultInjector {
  return temporarily(
    ({ harness, fault }) => {
      harness.server.rates[error] = 0.1 + (fault.variant % 8) / 10;
    },
    ({ harness }) => {
      harness.server.rates[error] = 0;
    },
  );
}

/** Returns the kind whose CRD is deleted. */
function pickKind({ harness, fault }: FaultContext): string {
  if (fault.variant % 2 !== 0) return REPORTERS;
  return harness.hasSlices && fault.variant % 4 === 0 ? 'reversetunnelslices' : TUNNELS;
}

/** Faults that change the store itself, which during a run is possible only with the in-memory store. */
export const STORE_FAULTS: ReadonlySet<string> = new Set(['etcd-restored', 'crd-deleted']);

/** Faults of the API server and its etcd. */
export const apiFaults = {
  'api-down': temporarily(
    ({ harness }) => harness.server.close(),
    ({ harness }) => harness.server.serve(),
  ),
  'api-hanging': temporarily(
    ({ harness }) => {
      harness.server.mode = 'hanging';
    },
    ({ harness }) => harness.server.serve(),
  ),
  'api-restart': ({ harness, fault }) => {
    harness.server.close();
    harness.time.after(500 + (fault.durationMs % 3000), () => harness.server.restart());
  },
  'api-slow': temporarily(
    ({ harness, fault }) => {
      harness.server.extraLatencyMs = 50 * (1 + fault.variant);
    },
    ({ harness }) => {
      harness.server.extraLatencyMs = 0;
    },
  ),
  'api-rewrites': temporarily(
    ({ harness, fault }) => {
      harness.server.admit = createWebhook(fault.variant, harness.hasSlices);
    },
    ({ harness }) => {
      harness.server.admit = undefined;
    },
  ),
  'api-throttling': injectErrors('throttled'),
  'api-unavailable': injectErrors('unavailable'),
  'api-resets-before': injectErrors('brokenBefore'),
  'api-resets-after': injectErrors('brokenAfter'),
  'etcd-compacted': ({ harness }) => {
    harness.store.compact();
    harness.server.clearWatchCache();
  },
  'etcd-restored': ({ harness, fault, backups }) => {
    // A restore of a backup younger than one Lease renewal cannot be detected.
    const oldBackups = backups.filter(({ atMs }) => harness.time.nowMs - atMs > 10_000);
    const backup = oldBackups[fault.variant % Math.max(1, oldBackups.length)];
    if (backup === undefined) return;
    harness.server.close();
    harness.store.memory?.restore(backup);
    harness.invariants.onRestore();
    harness.traceLine(() => `etcd is restored to version ${backup.version}`);
    harness.time.after(500 + (fault.durationMs % 3000), () => harness.server.restart());
  },
  'crd-deleted': (context) => {
    const { harness, fault } = context;
    const resource = pickKind(context);
    const { memory } = harness.store;
    memory?.setKindState(resource, 'terminating');
    harness.time.after(200, () => memory?.deleteAll(resource));
    harness.time.after(500, () => {
      memory?.setKindState(resource, 'missing');
      harness.server.endWatches(undefined, resource);
    });
    harness.time.after(600 + fault.durationMs, () => {
      memory?.setKindState(resource, 'served');
      harness.server.clearWatchCache();
    });
  },
  'namespace-deleted': ({ harness, fault }) => {
    const { store, blockOn, time } = harness;
    blockOn(store.setNamespaceState('terminating'));
    for (const [index, resource] of RESOURCES.entries()) {
      time.after(100 + index * (fault.variant * 10), () => blockOn(store.deleteAll(resource)));
    }
    time.after(4000, () => {
      for (const resource of RESOURCES) blockOn(store.deleteAll(resource));
      blockOn(store.setNamespaceState('missing'));
    });
    time.after(4100 + fault.durationMs, () => blockOn(store.setNamespaceState('active')));
  },
} satisfies Readonly<Record<string, FaultInjector>>;
