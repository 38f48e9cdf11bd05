import type { SliceObjectSpec } from '../../../src/core/slice-object.ts';
import { manifestFor } from '../../../src/core/tunnel-object.ts';
import type { Backup } from '../../../embedded-api-server/store.ts';
import { apiFaults } from './api-faults.ts';
import { manualEditFaults } from './manual-edits.ts';
import type { SimEnvoy } from './sim-envoy.ts';
import { names, type ReplicaProcess } from './replica-process.ts';
import type { ScheduledFault, FaultKind } from './schedule.ts';
import { TENANTS, type Slot, type SimHarness } from './harness.ts';

/** What a fault is injected into. */
export interface FaultContext {
  readonly harness: SimHarness;
  readonly fault: ScheduledFault;
  /** Backups of the store, oldest first. */
  readonly backups: readonly Backup[];
}

/** Injects a fault; a fault with a duration ends by itself. */
export type FaultInjector = (scene: FaultContext) => void;

/** All faults must have ended 20 s after the last one. */
const MAX_RETURN_MS = 18_000;
const TUNNELS = 'reversetunnels';
const REPORTERS = 'reversetunnelreporters';
const SLICES = 'reversetunnelslices';
const RESOURCES = [TUNNELS, REPORTERS, 'leases'];
const RESOURCES_WITH_SLICES = [...RESOURCES, SLICES];

function pickEnvoy({ harness, fault }: FaultContext): SimEnvoy | undefined {
  const up = harness.envoys.filter(({ isRunning }) => isRunning);
  return up[fault.pick % Math.max(1, up.length)];
}

function pickSlot({ harness, fault }: FaultContext): Slot | undefined {
  return harness.slots[fault.pick % harness.slots.length];
}

function pickReplica({ harness, fault }: FaultContext): ReplicaProcess | undefined {
  const all = harness.replicas();
  return all[fault.pick % Math.max(1, all.length)];
}

function pickTunnelName({ fault }: FaultContext): string {
  return `node-${fault.variant % 8}`;
}

function pickResource({ harness, fault }: FaultContext): string {
  const resources = harness.hasSlices ? RESOURCES_WITH_SLICES : RESOURCES;
  return resources[fault.variant % resources.length] ?? TUNNELS;
}

function stopReplica(suspended: boolean): FaultInjector {
  return (context) => {
    const replica = pickReplica(context);
    replica?.process.stop();
    context.harness.time.after(context.fault.durationMs, () =>
      replica?.process.resume({ suspended, inputFirst: context.fault.variant % 2 === 0 }),
    );
  };
}

function degradeLink(mode: 'cut' | 'blackhole'): FaultInjector {
  return (context) => {
    const replica = pickReplica(context);
    if (replica === undefined) return;
    replica.link.mode = mode;
    replica.link.breakWatches(mode === 'cut' ? 'reset' : 'half-open');
    context.harness.time.after(context.fault.durationMs, () => {
      replica.link.mode = 'open';
    });
  };
}

/** The injector of each kind of fault. */
export const FAULT_INJECTORS: Readonly<Record<FaultKind, FaultInjector>> = {
  ...manualEditFaults,
  ...apiFaults,
  'tunnel-up': (context) =>
    pickEnvoy(context)?.connectTunnel(
      pickTunnelName(context),
      TENANTS[context.fault.durationMs % 2] ?? 'acme',
    ),
  'tunnel-down': (context) => void pickEnvoy(context)?.disconnectTunnel(pickTunnelName(context)),
  'tunnel-flap': (context) => {
    const envoy = pickEnvoy(context);
    const previous = envoy?.tunnels().get(pickTunnelName(context));
    if (envoy === undefined || previous === undefined) return;
    envoy.disconnectTunnel(previous.name);
    envoy.connectTunnel(previous.name, previous.tenantID);
  },
  'tunnel-retenant': (context) => {
    const envoy = pickEnvoy(context);
    const previous = envoy?.tunnels().get(pickTunnelName(context));
    if (envoy === undefined || previous === undefined) return;
    envoy.disconnectTunnel(previous.name);
    envoy.connectTunnel(previous.name, previous.tenantID === 'acme' ? 'beta' : 'acme');
  },
  // Some tunnels of an Envoy come and go so often that their writes are limited.
  'tunnel-storm': (context) => {
    const { fault, harness } = context;
    const envoy = pickEnvoy(context);
    if (envoy === undefined) return;
    const changes = 16 + (fault.variant % 20);
    const intervalMs = Math.min(fault.durationMs, MAX_RETURN_MS) / changes;
    const tunnels = [...envoy.tunnels().values()].filter((_, index) => (fault.pick >> index) % 2 === 0);
    for (const { name, tenantID } of tunnels) {
      for (let change = 0; change < changes; change += 1) {
        harness.time.after(intervalMs * change, () => {
          if (change % 2 === 0) envoy.disconnectTunnel(name);
          else envoy.connectTunnel(name, tenantID);
        });
      }
    }
  },
  'stream-cut': (context) => pickEnvoy(context)?.stream()?.disconnect(),
  'stream-stall': (context) => pickEnvoy(context)?.stream()?.stall(context.fault.durationMs),
  'stream-half-open': (context) => {
    const { fault, harness } = context;
    const stream = pickEnvoy(context)?.stream();
    if (stream === undefined) return;
    if (fault.variant % 3 === 0) {
      stream.halfOpen('lost');
      return;
    }
    // Reports stay unread while the Envoy reconnects to another replica.
    stream.stall(fault.durationMs);
    harness.time.after(Math.min(fault.durationMs, 20_000) * ((fault.variant % 10) / 10), () =>
      stream.halfOpen('delivered'),
    );
  },
  'envoy-removed': (context) => {
    // At least one Envoy keeps running, so that there is something to check.
    if (context.harness.envoys.filter(({ isRunning }) => isRunning).length > 1)
      pickEnvoy(context)?.stop(true);
  },
  'envoy-restart': (context) => {
    const envoy = pickEnvoy(context);
    if (envoy === undefined) return;
    envoy.stop(context.fault.variant % 3 === 0);
    context.harness.stoppedEnvoys.add(envoy);
    context.harness.time.after(context.fault.durationMs, () => {
      if (context.harness.stoppedEnvoys.delete(envoy)) envoy.start();
    });
  },
  // An Envoy that crashes: some of its tunnels return one after the other.
  'envoy-loses-tunnels': (context) => {
    const { fault, harness } = context;
    const envoy = pickEnvoy(context);
    if (envoy === undefined) return;
    const tunnels = [...envoy.tunnels().values()];
    envoy.stop(true);
    harness.stoppedEnvoys.add(envoy);
    harness.time.after(1000, () => {
      if (harness.stoppedEnvoys.delete(envoy)) envoy.start();
    });
    const returnMs = Math.min(fault.durationMs, MAX_RETURN_MS) / Math.max(1, tunnels.length);
    for (const [index, { name, tenantID }] of tunnels.entries()) {
      if ((fault.variant + index) % 4 === 0) continue;
      harness.time.after(1000 + returnMs * (index + 1), () => envoy.connectTunnel(name, tenantID));
    }
  },
  'envoy-twin': (context) => {
    const envoy = pickEnvoy(context);
    if (
      envoy === undefined ||
      context.harness.envoys.some((other) => other !== envoy && other.key === envoy.key)
    )
      return;
    context.harness.invariants.onDuplicateReporter(envoy.key);
    const twin = context.harness.addEnvoy(envoy.reporter);
    for (let tunnel = 0; tunnel < context.fault.variant % 4; tunnel += 1)
      twin.connectTunnel(`twin-${tunnel}`, 'acme');
    twin.start();
    context.harness.time.after(context.fault.durationMs, () => twin.stop(true));
  },
  'replica-crash': (context) => {
    const slot = pickSlot(context);
    if (slot === undefined) return;
    context.harness.killReplica(slot, context.fault.variant % 3 === 0 ? 'silent' : 'reset');
    context.harness.time.after(context.fault.durationMs, () => context.harness.startReplica(slot));
  },
  'replica-terminate': (context) => {
    const slot = pickSlot(context);
    if (slot === undefined) return;
    const { running } = slot;
    context.harness.terminateReplica(slot);
    context.harness.time.after(10_000 + context.fault.durationMs, () => {
      // It had 10 s to exit by itself.
      if (slot.running === running) context.harness.killReplica(slot, 'reset');
      context.harness.startReplica(slot);
    });
  },
  'replica-stop': stopReplica(false),
  'replica-suspend': stopReplica(true),
  'replica-wall-jump': (context) => {
    const replica = pickReplica(context);
    if (replica !== undefined) replica.process.wallOffsetMs += (context.fault.variant - 50) * 600_000;
  },
  'link-cut': degradeLink('cut'),
  'link-blackhole': degradeLink('blackhole'),
  'link-slow': (context) => {
    const replica = pickReplica(context);
    if (replica === undefined) return;
    replica.link.maxLatencyMs = 20 * (1 + context.fault.variant) ** 1.4;
    context.harness.time.after(context.fault.durationMs, () => {
      replica.link.maxLatencyMs = 3;
    });
  },
  'watch-lag': (context) => {
    const replica = pickReplica(context);
    const resource = pickResource(context);
    replica?.link.lagMs.set(resource, Math.min(context.fault.durationMs, 15_000));
    context.harness.time.after(context.fault.durationMs, () => replica?.link.lagMs.delete(resource));
  },
  'watch-half-open': (context) => {
    pickReplica(context)?.link.breakWatches('half-open', pickResource(context));
  },
  'watch-reset': (context) => {
    pickReplica(context)?.link.breakWatches('reset', pickResource(context));
  },
};

/** Ends all faults, so that the system can converge. */
export async function recover(harness: SimHarness): Promise<void> {
  const { store, server, time } = harness;
  server.serve();
  // A real API server may have pending requests; the order must be the same with both.
  await time.advance(0);
  server.extraLatencyMs = 0;
  server.admit = undefined;
  Object.assign(server.rates, { throttled: 0, unavailable: 0, brokenBefore: 0, brokenAfter: 0 });
  for (const resource of [TUNNELS, REPORTERS, SLICES]) {
    if (store.memory === undefined || store.memory.kindState(resource) === 'served') continue;
    store.memory.setKindState(resource, 'served');
    server.clearWatchCache();
  }
  harness.blockOn(store.setNamespaceState('active'));
  await time.advance(0);
  for (const slot of harness.slots) {
    const { running } = slot;
    running?.process.resume({ suspended: false, inputFirst: true });
    if (running !== undefined) {
      running.link.mode = 'open';
      running.link.maxLatencyMs = 3;
      running.link.lagMs.clear();
    }
    if (running !== undefined && running.representation !== harness.representation)
      harness.killReplica(slot, 'reset');
    harness.startReplica(slot);
  }
  for (const resource of [TUNNELS, REPORTERS, SLICES]) {
    for (const { metadata } of [...store.objects(resource)]) {
      if (metadata.finalizers !== undefined) {
        harness.manualEdit('PATCH', resource, metadata.name, { metadata: { finalizers: [] } });
      }
    }
  }
  await time.advance(0);
  deleteForeignObjects(harness);
  await time.advance(0);
  for (const envoy of harness.stoppedEnvoys) envoy.start();
  harness.stoppedEnvoys.clear();
}

/** Deletes objects whose name belongs to another tunnel. */
function deleteForeignObjects({ store, manualEdit }: SimHarness): void {
  for (const { metadata, spec } of [...store.objects(TUNNELS)]) {
    const object = spec as unknown as ReturnType<typeof manifestFor>['spec'];
    const { reporter, tunnelName, ...rest } = object;
    const tunnel = { ...rest, name: tunnelName, createdAt: undefined };
    if (names.tunnelObjectName(reporter, tunnel) !== metadata.name)
      manualEdit('DELETE', TUNNELS, metadata.name);
  }
  for (const { metadata, spec } of [...store.objects(SLICES)]) {
    const { reporter, tenantID } = spec as unknown as SliceObjectSpec;
    const ordinal = Number(/\d+$/.exec(metadata.name)?.[0] ?? 0);
    if (names.sliceObjectName(reporter, tenantID, ordinal) !== metadata.name)
      manualEdit('DELETE', SLICES, metadata.name);
  }
}
