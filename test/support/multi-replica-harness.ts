import { pino } from 'pino';

import type { ReporterObjectApi, SliceObjectApi, TunnelObjectApi } from '../../src/controller/object-api.ts';
import type { ReportSummary } from '../../src/controller/reporter-enqueuer.ts';
import type { CreateOwnership } from '../../src/controller/reporter-registry.ts';
import type { RecordedTransition } from '../../src/controller/transition-recorder.ts';
import { ReplicaRegistry } from '../../src/controller/replica-registry.ts';
import { TunnelCache } from '../../src/controller/tunnel-cache.ts';
import { createCaches, createControllers } from '../../src/controllers.ts';
import { Ledger } from '../../src/core/ledger.ts';
import { ANONYMOUS } from '../../src/core/peer.ts';
import type { Report } from '../../src/core/report.ts';
import type { Representation } from '../../src/core/representation.ts';
import type { ReporterId } from '../../src/core/tunnel.ts';
import { NO_REMOVAL_HOLD, type RemovalHoldRule } from '../../src/core/removal-hold.ts';
import { createMetrics } from '../../src/metrics.ts';
import { FakeClock } from './fake-clock.ts';
import { advanceTime, flushEventLoop } from './fake-time.ts';
import { MemoryReporterApi } from './memory-api.ts';
import { MemorySliceApi, MemoryTunnelApi, connectionFailure } from './memory-api.ts';
import { NONE_REJECTED, PLAIN_ENVOY } from './controller-harness.ts';
import { names } from './sample-tunnels.ts';

const metrics = createMetrics();

/** The default times of the operator. */
const UNKNOWN_AFTER_MS = 30_000;
const EXPIRE_AFTER_MS = 300_000;
/** How long a released Lease still proves that its holder is alive. */
const RELEASED_ALIVE_MS = 15_000;

/** A registry in which all replicas are alive. */
class LiveReplicas extends ReplicaRegistry {
  override isAlive(): boolean {
    return true;
  }

  override *expiredLeases(): Iterable<never> {}
}

/** A cache for a leader that ignores orphaned objects. */
class WithoutOrphans extends TunnelCache {
  override reporterKeys(): Iterable<string> {
    return [];
  }
}

/** Differences of a replica from the operator: omitted rules, to show what breaks without them. */
export interface ReplicaOptions {
  /** Creates the state machine of a reporter, possibly without a rule. */
  readonly createOwnership?: CreateOwnership;
  /** Whether the leader claims orphaned objects. Default: true. */
  readonly takesOverOrphans?: boolean;
  /** Whether live reads use the cache, which violates a rule. Default: false. */
  readonly readsFromCache?: boolean;
  /** Default: 5 s. */
  readonly reportIntervalMs?: number;
  /** Default: objects. */
  readonly representation?: Representation;
  /** Whether the API server serves no slices until `installSlices`. Default: false. */
  readonly withoutSlices?: boolean;
}

/** The environment of all replicas. */
interface HarnessReplica {
  readonly state: {
    readonly stopped: boolean;
    readonly presumedDead: Set<string>;
    readonly shutDownMs: Map<string, number>;
  };
  deliver(): number;
  release(): void;
  crash(): void;
}

/**
 * Several replicas with one API server, in fake time; the test controls the delivery of watch events.
 *
 * @param removalHold default: removals are never held
 */
export function createMultiReplicaHarness(removalHold: RemovalHoldRule = NO_REMOVAL_HOLD) {
  const clock = new FakeClock();
  clock.advance(60_000);
  const tunnelApi = new MemoryTunnelApi();
  const sliceApi = new MemorySliceApi();
  const reporterApi = new MemoryReporterApi();
  const replicas: HarnessReplica[] = [];
  /** Executed deletions, as `replica rights name`, with the rights when the request was sent. */
  const deletions: string[] = [];
  /** Recorded Events, as `replica kind reporter`. */
  const events: string[] = [];
  /** The tunnel logs of all replicas. */
  const transitions: (RecordedTransition & { readonly replica: string })[] = [];

  function replica(self: string, options: ReplicaOptions = {}) {
    const log = pino({ base: null, level: 'silent' });
    const state = {
      leads: false,
      /** Names of the dead replicas; all others are alive. */
      presumedDead: new Set<string>(),
      /** When other replicas released their Leases, by name. */
      shutDownMs: new Map<string, number>(),
      writes: true,
      watchesTunnels: true,
      watchesReporters: true,
      /** While set, calls wait before they reach the API server. */
      held: undefined as Promise<void> | undefined,
      release: undefined as (() => void) | undefined,
      /** Calls are executed, but their responses are lost. */
      dropsResponses: false,
      stopped: false,
      relists: 0,
    };
    async function call<T>(act: () => Promise<T>): Promise<T> {
      await state.held;
      const answer = await act();
      if (state.dropsResponses) throw connectionFailure();
      return answer;
    }
    const rows: TunnelObjectApi = {
      create: (manifest) => call(() => tunnelApi.create(manifest)),
      patch: (row, change) => call(() => tunnelApi.patch(row, change)),
      patchStatus: (row, status) => call(() => tunnelApi.patchStatus(row, status)),
      delete(row) {
        const { role } = instance;
        return call(async () => {
          const remaining = await tunnelApi.delete(row);
          deletions.push(`${self} ${role} ${row.tunnel.name}`);
          return remaining;
        });
      },
      read: (name) => call(() => tunnelApi.read(name)),
    };
    const slices: SliceObjectApi = {
      create: (manifest) => call(() => sliceApi.create(manifest)),
      patch: (slice, change) => call(() => sliceApi.patch(slice, change)),
      patchStatus: (slice, status) => call(() => sliceApi.patchStatus(slice, status)),
      delete: (slice) => call(() => sliceApi.delete(slice)),
      read: (name) => call(() => sliceApi.read(name)),
    };
    const api: ReporterObjectApi = {
      create: (manifest) => call(() => reporterApi.create(manifest)),
      patchStatus: (name, version, status) => call(() => reporterApi.patchStatus(name, version, status)),
      read: (name) =>
        call(async () => {
          if (options.readsFromCache !== true) return await reporterApi.read(name);
          return [...cache.entries()].find(([, { metadata }]) => metadata.name === name)?.[1];
        }),
      delete: (name, uid, version) => call(() => reporterApi.delete(name, uid, version)),
    };
    const fence = {
      everHeld: true,
      canWrite: () => state.writes,
      isAlive: (name: string) =>
        !state.presumedDead.has(name) &&
        clock.monotonicMs() - (state.shutDownMs.get(name) ?? clock.monotonicMs()) < RELEASED_ALIVE_MS,
      isServing: (name: string) => !state.presumedDead.has(name) && !state.shutDownMs.has(name),
      addEventHandler() {},
    };
    const ledger = new Ledger({}, removalHold);
    const allCaches = createCaches({ names, ledger, clock, metrics, log });
    const caches = {
      ...allCaches,
      replicas: new LiveReplicas(names, clock),
      tunnels: options.takesOverOrphans === false ? new WithoutOrphans(names, ledger) : allCaches.tunnels,
    };
    const { reporters: cache } = caches;
    const controllers = createControllers({
      self,
      names,
      ledger,
      caches,
      watches: {
        retryNow() {},
        relistTunnels() {},
        relistSlices() {},
        relistAll() {
          state.relists += 1;
          reporterApi.relist(cache);
        },
      },
      apis: {
        tunnels: rows,
        slices,
        reporters: api,
        policies: { patchStatus: () => Promise.resolve() },
        expectations: { patchStatus: () => Promise.reject(new Error('no expectations are listed')) },
        leases: { delete: () => Promise.resolve() },
        events: { record: (reporter, kind) => events.push(`${self} ${kind} ${reporter.id}`) },
        objectEvents: { recordFor() {} },
        serverClock: { nowMs: () => undefined, maxAheadMs: () => 0 },
      },
      fence,
      leader: {
        get isHeld() {
          return state.leads;
        },
      },
      settings: {
        reportIntervalMs: options.reportIntervalMs ?? 5000,
        unknownAfterMs: UNKNOWN_AFTER_MS,
        expireAfterMs: EXPIRE_AFTER_MS,
        removalHold,
        representation: options.representation,
        writeConcurrency: 8,
      },
      createOwnership: options.createOwnership,
      transitionSink: { write: (transition) => transitions.push({ ...transition, replica: self }) },
      clock,
      random: () => 0.5,
      metrics,
      log,
    });
    const { registry, intake, writeAuthorizer, tunnels, reporters } = controllers;
    caches.policies.onKindMissing();
    const deliverTunnels = tunnelApi.watch(caches.tunnels);
    let deliverSlices = options.withoutSlices === true ? () => 0 : sliceApi.watch(caches.slices);
    if (options.withoutSlices === true) caches.slices.onKindMissing();
    const deliverReporters = reporterApi.watch(cache);
    controllers.start();

    const instance = {
      state,
      registry,
      authorizer: controllers.authorizer,
      reporters: reporters.enqueuer,
      writeAuthorizer,
      intake,
      enqueuer: tunnels.enqueuer,
      ledger,
      queue: tunnels.queue,
      /** `expiring` while it expires its only reporter and owns it according to its object, otherwise `serving`. */
      get role(): 'expiring' | 'serving' {
        const [entry] = registry.entries();
        const [object] = reporterApi.stored.values();
        const owns = object?.status?.owner?.replica === self;
        return owns && entry?.disconnection?.phase === 'expired' ? 'expiring' : 'serving';
      },
      /** Delivers all pending watch events. */
      deliver: (): number =>
        state.stopped
          ? 0
          : (state.watchesTunnels ? deliverTunnels() + deliverSlices() : 0) +
            (state.watchesReporters ? deliverReporters() : 0),
      /** The list of slices succeeds: their CRD is installed. */
      installSlices(): void {
        deliverSlices = sliceApi.watch(caches.slices);
      },
      /** The watch of slices ends, and their list fails: the CRD is deleted. */
      uninstallSlices(): void {
        deliverSlices = () => 0;
        caches.slices.onKindMissing();
      },
      /** Opens a stream of an Envoy to this replica and sends its first report. */
      connect(
        reporter: ReporterId,
        report: Report,
        rejected: ReportSummary['rejected'] = NONE_REJECTED.rejected,
      ): void {
        intake.reporterConnected(reporter, PLAIN_ENVOY, ANONYMOUS);
        instance.report(reporter, report, rejected);
      },
      report(
        reporter: ReporterId,
        report: Report,
        rejected: ReportSummary['rejected'] = NONE_REJECTED.rejected,
      ): void {
        intake.accept(reporter, { ...report, rejected }, clock.monotonicMs());
      },
      disconnect: (reporter: ReporterId): void => intake.reporterDisconnected(reporter, 'StreamEnded'),
      /** Holds the calls of this replica from now on. */
      hold(): void {
        if (state.held !== undefined) return;
        const { promise, resolve } = Promise.withResolvers<void>();
        state.held = promise;
        state.release = resolve;
      },
      /** Releases the held calls. */
      release(): void {
        state.held = undefined;
        state.release?.();
      },
      /** Kills the replica; calls that it has sent may still arrive with `release`. */
      crash(): void {
        state.stopped = true;
        controllers.stop();
        for (const other of replicas) other.state.presumedDead.add(self);
      },
      /** Stops the replica as SIGTERM does: its reporters stay connected, and its Lease is released. */
      shutDown(): void {
        for (const { reporter, stream } of registry.entries())
          if (stream !== undefined) intake.reporterDisconnected(reporter, 'shutdown');
        state.stopped = true;
        controllers.stop();
        for (const other of replicas) other.state.shutDownMs.set(self, clock.monotonicMs());
      },
    };
    replicas.push(instance);
    return instance;
  }

  async function settle(): Promise<void> {
    do await flushEventLoop();
    while (replicas.some((candidate) => candidate.deliver() > 0));
  }

  return {
    clock,
    metrics,
    tunnelApi,
    sliceApi,
    reporterApi,
    deletions,
    events,
    transitions,
    replica,
    settle,
    advance: (ms: number): Promise<void> => advanceTime(clock, ms, settle),
    /** Returns the names of the tunnels of a reporter that have an object. */
    tunnelNames: (reporter: ReporterId): string[] =>
      [...tunnelApi.stored.values()]
        .filter(({ spec }) => spec.reporter.id === reporter.id && spec.reporter.cluster === reporter.cluster)
        .map(({ spec }) => spec.tunnelName)
        .toSorted(),
    /** Returns the owner of a reporter according to its object. */
    owner: (reporter: ReporterId): string | undefined =>
      reporterApi.stored.get(names.reporterObjectName(reporter))?.status?.owner?.replica,
    /** Returns the status and reason of a condition of a reporter. */
    condition(reporter: ReporterId, type: string): string {
      const { conditions } = reporterApi.stored.get(names.reporterObjectName(reporter))?.status ?? {};
      const condition = conditions?.find((candidate) => candidate.type === type);
      return condition === undefined ? 'none' : `${condition.status} ${condition.reason}`;
    },
    /** Stops all timers. */
    stop(): void {
      for (const candidate of replicas) {
        candidate.release();
        if (!candidate.state.stopped) candidate.crash();
      }
    },
  };
}

/** The replicas of one test and what they share. */
export type MultiReplicaHarness = ReturnType<typeof createMultiReplicaHarness>;
