import { pino } from 'pino';

import { TakeoverController } from '../../src/controller/takeover-controller.ts';
import { ExpiryController } from '../../src/controller/expiry-controller.ts';
import { TunnelEnqueuer } from '../../src/controller/tunnel-enqueuer.ts';
import { TunnelReconciler } from '../../src/controller/tunnel-reconciler.ts';
import type { ReporterObjectApi } from '../../src/controller/reporter-object-api.ts';
import { ReporterCache } from '../../src/controller/reporter-cache.ts';
import { ReporterController } from '../../src/controller/reporter-controller.ts';
import type { TunnelObjectApi } from '../../src/controller/tunnel-object-api.ts';
import { TunnelCache } from '../../src/controller/tunnel-cache.ts';
import { RevertBackoff } from '../../src/controller/revert-backoff.ts';
import { Workers } from '../../src/controller/workers.ts';
import { Workqueue } from '../../src/controller/workqueue.ts';
import { Ledger } from '../../src/core/ledger.ts';
import { ALLOW_ALL } from '../../src/core/grant.ts';
import type { Ownership } from '../../src/core/ownership.ts';
import type { Report } from '../../src/core/report.ts';
import type { ReporterId } from '../../src/core/tunnel.ts';
import { createMetrics } from '../../src/metrics.ts';
import { FakeClock } from './fake-clock.ts';
import { advanceTime, flushEventLoop } from './fake-time.ts';
import { MemoryReporterApi } from './memory-reporter-api.ts';
import { MemoryTunnelApi, connectionFailure } from './memory-tunnel-api.ts';
import { NONE_REJECTED, PLAIN_ENVOY } from './controller-harness.ts';
import { names } from './sample-tunnels.ts';

const metrics = createMetrics();

/** Times of the rules, as the operator has them by default. */
const UNKNOWN_AFTER_MS = 30_000;
const EXPIRE_AFTER_MS = 300_000;

/** In what a replica differs from the operator: a rule left out, to see what breaks. */
export interface ReplicaOptions {
  /** Makes the state machine of one reporter; one that leaves a rule out, to see what breaks. */
  readonly createOwnership?: (self: string, spokenAfterMs: () => number) => Ownership;
  /** The leader's rule for rows without a reporter's object. Default true. */
  readonly takesOverOrphans?: boolean;
  /** Reads reporters from its own cache, which is no read at all. Default false. */
  readonly readsFromCache?: boolean;
  /** Another than 5 s. */
  readonly reportIntervalMs?: number;
}

/** What the world does to all replicas. */
interface HarnessReplica {
  readonly state: { readonly stopped: boolean; readonly presumedDead: Set<string> };
  deliver(): number;
  release(): void;
  crash(): void;
}

/** Several replicas over one API server, in fake time, each with watches that bring what they bring when a test says so. */
export function createMultiReplicaHarness() {
  const clock = new FakeClock();
  clock.advance(60_000);
  const tunnelApi = new MemoryTunnelApi();
  const reporterApi = new MemoryReporterApi();
  const replicas: HarnessReplica[] = [];
  /** Row deletions that were carried out, as `replica rights name`: the rights are those when it was sent. */
  const deletions: string[] = [];
  /** Events that were told, as `replica kind reporter`. */
  const events: string[] = [];

  function replica(self: string, options: ReplicaOptions = {}) {
    const log = pino({ base: null, level: 'silent' });
    const state = {
      leads: false,
      /** By name; all others are alive. */
      presumedDead: new Set<string>(),
      writes: true,
      watchesTunnels: true,
      watchesReporters: true,
      /** Calls wait before they reach the API server while this is set. */
      held: undefined as Promise<void> | undefined,
      release: undefined as (() => void) | undefined,
      /** Calls are carried out, and their answers lost. */
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
    const api: ReporterObjectApi = {
      create: (name, spec) => call(() => reporterApi.create(name, spec)),
      patchStatus: (name, version, status) => call(() => reporterApi.patchStatus(name, version, status)),
      read: (name) =>
        call(async () => {
          if (options.readsFromCache !== true) return await reporterApi.read(name);
          return [...cache.entries()].find(([, { metadata }]) => metadata.name === name)?.[1];
        }),
      delete: (name, uid, version) => call(() => reporterApi.delete(name, uid, version)),
    };
    const fence = {
      canWrite: () => state.writes,
      isAlive: (name: string) => !state.presumedDead.has(name),
      isServing: (name: string) => !state.presumedDead.has(name),
    };
    const ledger = new Ledger();
    const queue = new Workqueue(clock);
    const tunnelCache: TunnelCache = new TunnelCache(
      names,
      (key, name) => ledger.tunnel(key, name),
      (key, name) => enqueuer.onObjectChanged(key, name),
    );
    const cache: ReporterCache = new ReporterCache(names, (key, after, before) =>
      reporters.onObjectChanged(key, after, before),
    );
    const needsWrite = (key: string, name: string): boolean => reconciler.nextWrite(key, name) !== undefined;
    const reporters: ReporterController = new ReporterController({
      self,
      api,
      cache,
      names,
      ledger,
      queue,
      fence,
      needsWrite,
      hasSynced: () => true,
      relist() {
        state.relists += 1;
        reporterApi.list(cache);
      },
      objectNames: (key) => tunnelCache.tunnelNames(key),
      objectCount: (key) => tunnelCache.tunnelCount(key),
      resync: (key, sinceMs) => enqueuer.resync(key, sinceMs),
      onReporterRemoved: (key) => enqueuer.forget(key),
      reportIntervalMs: () => options.reportIntervalMs ?? 5000,
      expireAfterMs: EXPIRE_AFTER_MS,
      events: { record: (reporter, kind) => events.push(`${self} ${kind} ${reporter.id}`) },
      ...(options.createOwnership === undefined ? {} : { newOwnership: options.createOwnership }),
      clock,
      random: () => 0.5,
      metrics,
      log,
    });
    queue.onEmptied = (key) => reporters.onQueueEmptied(key);
    const reconciler: TunnelReconciler = new TunnelReconciler({
      api: rows,
      ledger,
      cache: tunnelCache,
      writeAuthorizer: reporters,
      names,
      relist: () => {},
      clock,
      metrics,
      log,
    });
    const workers = new Workers({
      queue,
      reconcile: (item) => reconciler.reconcile(item),
      concurrency: 8,
      onUnreachable: () => {},
      onRejected: ({ key, tunnelName }, answer) => reporters.writeRejected(key, tunnelName, answer),
      clock,
      random: () => 0.5,
      metrics,
      log,
    });
    const enqueuer: TunnelEnqueuer = new TunnelEnqueuer({
      ledger,
      grantFor: () => ALLOW_ALL,
      cache: tunnelCache,
      queue,
      workers,
      writeAuthorizer: reporters,
      streams: reporters,
      needsWrite,
      revertBackoff: new RevertBackoff(clock),
      clock,
      metrics,
    });
    const expiry = new ExpiryController({
      entries: () => reporters.entries(),
      reconciler: reporters.reconciler,
      fence,
      objectNames: (key) => tunnelCache.tunnelNames(key),
      enqueue: (key, name) => enqueuer.enqueue(key, name),
      pending: (key) => queue.pending(key),
      unknownAfterMs: UNKNOWN_AFTER_MS,
      clock,
    });
    const takeover = new TakeoverController({
      self,
      isLeader: () => state.leads,
      reporters,
      cache,
      reportersWithObjects: () => (options.takesOverOrphans === false ? [] : tunnelCache.reporterKeys()),
      registry: { isAlive: () => true, *expiredLeases() {} },
      fence,
      hasSynced: () => true,
      deleteLease: () => Promise.resolve(),
      clock,
    });
    const deliverTunnels = tunnelApi.watch(tunnelCache);
    const deliverReporters = reporterApi.watch(cache);
    workers.start();
    expiry.start();
    takeover.start();

    const instance = {
      state,
      reporters,
      enqueuer,
      ledger,
      queue,
      /** `expiring` while it deletes the rows of its one reporter as lost and owns it by the object itself, else `serving`. */
      get role(): 'expiring' | 'serving' {
        const [entry] = reporters.entries();
        const [object] = reporterApi.objects.values();
        const owns = object?.status?.owner?.replica === self;
        return owns && entry?.disconnected?.phase === 'expired' ? 'expiring' : 'serving';
      },
      /** Brings what its watches hold. */
      deliver: (): number =>
        state.stopped
          ? 0
          : (state.watchesTunnels ? deliverTunnels() : 0) + (state.watchesReporters ? deliverReporters() : 0),
      /** An Envoy opens a stream here and sends its first report. */
      connect(reporter: ReporterId, report: Report): void {
        enqueuer.reporterConnected(reporter, PLAIN_ENVOY);
        instance.report(reporter, report);
      },
      report(reporter: ReporterId, report: Report): void {
        enqueuer.apply(reporter, { ...report, ...NONE_REJECTED }, clock.monotonicMs());
      },
      disconnect: (reporter: ReporterId): void => enqueuer.reporterDisconnected(reporter, 'StreamEnded'),
      /** From now on its calls wait on their way. */
      hold(): void {
        if (state.held !== undefined) return;
        const { promise, resolve } = Promise.withResolvers<void>();
        state.held = promise;
        state.release = resolve;
      },
      /** What was on its way arrives. */
      release(): void {
        state.held = undefined;
        state.release?.();
      },
      /** It dies: no step more; what it has sent may still arrive with `release`. */
      crash(): void {
        state.stopped = true;
        workers.stop();
        reporters.stop();
        expiry.stop();
        takeover.stop();
        for (const other of replicas) other.state.presumedDead.add(self);
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
    reporterApi,
    deletions,
    events,
    replica,
    settle,
    advance: (ms: number): Promise<void> => advanceTime(clock, ms, settle),
    /** Which tunnels of a reporter have a row, by name. */
    tunnelNames: (reporter: ReporterId): string[] =>
      [...tunnelApi.stored.values()]
        .filter(({ spec }) => spec.reporter.id === reporter.id && spec.reporter.cluster === reporter.cluster)
        .map(({ spec }) => spec.tunnelName)
        .toSorted(),
    /** Who owns a reporter, as its object says. */
    owner: (reporter: ReporterId): string | undefined =>
      reporterApi.objects.get(names.reporterObjectName(reporter))?.status?.owner?.replica,
    /** Status and reason of a condition of a reporter. */
    condition(reporter: ReporterId, type: string): string {
      const { conditions } = reporterApi.objects.get(names.reporterObjectName(reporter))?.status ?? {};
      const condition = conditions?.find((candidate) => candidate.type === type);
      return condition === undefined ? 'none' : `${condition.status} ${condition.reason}`;
    },
    /** Ends all timers. */
    stop(): void {
      for (const candidate of replicas) {
        candidate.release();
        if (!candidate.state.stopped) candidate.crash();
      }
    },
  };
}

/** As `createReplicasWorld` gives it. */
export type MultiReplicaHarness = ReturnType<typeof createMultiReplicaHarness>;
