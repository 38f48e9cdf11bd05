import { pino } from 'pino';

import { Inheritance } from '../../src/controller/inheritance.ts';
import { LostReporters } from '../../src/controller/lost-reporters.ts';
import { Mirror } from '../../src/controller/mirror.ts';
import { Reconciler } from '../../src/controller/reconciler.ts';
import type { ReporterApi } from '../../src/controller/reporter-api.ts';
import { ReporterCache } from '../../src/controller/reporter-cache.ts';
import { Reporters } from '../../src/controller/reporters.ts';
import type { RowApi } from '../../src/controller/row-api.ts';
import { RowCache } from '../../src/controller/row-cache.ts';
import { UndoPacing } from '../../src/controller/undo-pacing.ts';
import { Workers } from '../../src/controller/workers.ts';
import { Workqueue } from '../../src/controller/workqueue.ts';
import { Ledger } from '../../src/core/ledger.ts';
import type { Ownership } from '../../src/core/ownership.ts';
import type { Report } from '../../src/core/report.ts';
import type { ReporterId } from '../../src/core/tunnel.ts';
import { createMetrics } from '../../src/metrics.ts';
import { FakeClock } from './fake-clock.ts';
import { passTime, settled } from './fake-time.ts';
import { MemoryReporterApi } from './memory-reporter-api.ts';
import { MemoryRowApi, noAnswer } from './memory-row-api.ts';
import { NONE_SET_ASIDE, PLAIN_ENVOY } from './mirror-world.ts';
import { names } from './sample-tunnels.ts';

const metrics = createMetrics();

/** Times of the rules, as the operator has them by default. */
const UNKNOWN_AFTER_MS = 30_000;
const EXPIRE_AFTER_MS = 300_000;

/** In what a replica differs from the operator: a rule left out, to see what breaks. */
export interface ReplicaOptions {
  /** Makes the state machine of one reporter; one that leaves a rule out, to see what breaks. */
  readonly newOwnership?: (self: string, spokenAfterMs: () => number) => Ownership;
  /** The leader's rule for rows without a reporter's object. Default true. */
  readonly inheritsOrphans?: boolean;
  /** Reads reporters from its own cache, which is no read at all. Default false. */
  readonly readsFromCache?: boolean;
  /** Another than 5 s. */
  readonly reportIntervalMs?: number;
}

/** What the world does to all replicas. */
interface Running {
  readonly state: { readonly stopped: boolean; readonly heldForDead: Set<string> };
  deliver(): number;
  release(): void;
  die(): void;
}

/** Several replicas over one API server, in fake time, each with watches that bring what they bring when a test says so. */
export function createReplicasWorld() {
  const clock = new FakeClock();
  clock.advance(60_000);
  const rowApi = new MemoryRowApi();
  const reporterApi = new MemoryReporterApi();
  const replicas: Running[] = [];
  /** Row deletions that were carried out, as `replica rights name`: the rights are those when it was sent. */
  const deletions: string[] = [];
  /** Events that were told, as `replica kind reporter`. */
  const events: string[] = [];

  function replica(self: string, options: ReplicaOptions = {}) {
    const log = pino({ base: null, level: 'silent' });
    const state = {
      leads: false,
      /** By name; all others are alive. */
      heldForDead: new Set<string>(),
      writes: true,
      watchesRows: true,
      watchesReporters: true,
      /** Calls wait before they reach the API server while this is set. */
      held: undefined as Promise<void> | undefined,
      release: undefined as (() => void) | undefined,
      /** Calls are carried out, and their answers lost. */
      losesAnswers: false,
      stopped: false,
      relists: 0,
    };
    async function call<T>(act: () => Promise<T>): Promise<T> {
      await state.held;
      const answer = await act();
      if (state.losesAnswers) throw noAnswer();
      return answer;
    }
    const rows: RowApi = {
      create: (manifest) => call(() => rowApi.create(manifest)),
      patch: (row, change) => call(() => rowApi.patch(row, change)),
      patchStatus: (row, status) => call(() => rowApi.patchStatus(row, status)),
      delete(row) {
        const { rights } = made;
        return call(async () => {
          const left = await rowApi.delete(row);
          deletions.push(`${self} ${rights} ${row.tunnel.name}`);
          return left;
        });
      },
      read: (name) => call(() => rowApi.read(name)),
    };
    const api: ReporterApi = {
      create: (name, spec) => call(() => reporterApi.create(name, spec)),
      patchStatus: (name, version, status) => call(() => reporterApi.patchStatus(name, version, status)),
      read: (name) =>
        call(async () => {
          if (options.readsFromCache !== true) return await reporterApi.read(name);
          return [...cache.entries()].find(([, { metadata }]) => metadata.name === name)?.[1];
        }),
      delete: (name, uid, version) => call(() => reporterApi.delete(name, uid, version)),
    };
    const standing = {
      mayWrite: () => state.writes,
      isAlive: (name: string) => !state.heldForDead.has(name),
      isServing: (name: string) => !state.heldForDead.has(name),
    };
    const ledger = new Ledger();
    const queue = new Workqueue(clock);
    const rowCache: RowCache = new RowCache(
      names,
      (key, name) => ledger.tunnel(key, name),
      (key, name) => mirror.rowChanged(key, name),
    );
    const cache: ReporterCache = new ReporterCache(names, (key, after, before) =>
      reporters.objectChanged(key, after, before),
    );
    const isDue = (key: string, name: string): boolean => reconciler.due(key, name) !== undefined;
    const reporters: Reporters = new Reporters({
      self,
      api,
      cache,
      names,
      ledger,
      queue,
      standing,
      isDue,
      isListed: () => true,
      relist() {
        state.relists += 1;
        reporterApi.list(cache);
      },
      rowNames: (key) => rowCache.tunnelNames(key),
      rowCount: (key) => rowCache.tunnelCount(key),
      lookAtAll: (key, sinceMs) => mirror.lookAtAll(key, sinceMs),
      onForgotten: (key) => mirror.forget(key),
      reportIntervalMs: () => options.reportIntervalMs ?? 5000,
      expireAfterMs: EXPIRE_AFTER_MS,
      events: { tell: (reporter, kind) => events.push(`${self} ${kind} ${reporter.id}`) },
      ...(options.newOwnership === undefined ? {} : { newOwnership: options.newOwnership }),
      clock,
      random: () => 0.5,
      metrics,
      log,
    });
    queue.onEmptied = (key) => reporters.emptied(key);
    const reconciler: Reconciler = new Reconciler({
      api: rows,
      ledger,
      cache: rowCache,
      gate: reporters,
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
      onNoAnswer: () => {},
      onRefused: ({ key, tunnelName }, answer) => reporters.refused(key, tunnelName, answer),
      clock,
      random: () => 0.5,
      metrics,
      log,
    });
    const mirror: Mirror = new Mirror({
      ledger,
      cache: rowCache,
      queue,
      workers,
      gate: reporters,
      streams: reporters,
      isDue,
      pacing: new UndoPacing(clock),
      clock,
      metrics,
    });
    const lost = new LostReporters({
      entries: () => reporters.entries(),
      driver: reporters.driver,
      standing,
      rowNames: (key) => rowCache.tunnelNames(key),
      queueOne: (key, name) => mirror.queueOne(key, name),
      pending: (key) => queue.pending(key),
      unknownAfterMs: UNKNOWN_AFTER_MS,
      clock,
    });
    const inheritance = new Inheritance({
      self,
      isLeader: () => state.leads,
      reporters,
      cache,
      reportersWithRows: () => (options.inheritsOrphans === false ? [] : rowCache.reporterKeys()),
      directory: { isAlive: () => true, *longDead() {} },
      standing,
      isListed: () => true,
      deleteLease: () => Promise.resolve(),
      clock,
    });
    const deliverRows = rowApi.watch(rowCache);
    const deliverReporters = reporterApi.watch(cache);
    workers.start();
    lost.start();
    inheritance.start();

    const made = {
      state,
      reporters,
      mirror,
      ledger,
      queue,
      /** `expiring` while it deletes the rows of its one reporter as lost and owns it by the object itself, else `serving`. */
      get rights(): 'expiring' | 'serving' {
        const [entry] = reporters.entries();
        const [object] = reporterApi.objects.values();
        const owns = object?.status?.owner?.replica === self;
        return owns && entry?.lost?.phase === 'expired' ? 'expiring' : 'serving';
      },
      /** Brings what its watches hold. */
      deliver: (): number =>
        state.stopped
          ? 0
          : (state.watchesRows ? deliverRows() : 0) + (state.watchesReporters ? deliverReporters() : 0),
      /** An Envoy opens a stream here and sends its first report. */
      connect(reporter: ReporterId, report: Report): void {
        mirror.reporterConnected(reporter, PLAIN_ENVOY);
        made.report(reporter, report);
      },
      report(reporter: ReporterId, report: Report): void {
        mirror.fold(reporter, { ...report, ...NONE_SET_ASIDE }, clock.monotonicMs());
      },
      disconnect: (reporter: ReporterId): void => mirror.reporterDisconnected(reporter, 'StreamEnded'),
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
      die(): void {
        state.stopped = true;
        workers.stop();
        reporters.stop();
        lost.stop();
        inheritance.stop();
        for (const other of replicas) other.state.heldForDead.add(self);
      },
    };
    replicas.push(made);
    return made;
  }

  async function settle(): Promise<void> {
    do await settled();
    while (replicas.some((one) => one.deliver() > 0));
  }

  return {
    clock,
    metrics,
    rowApi,
    reporterApi,
    deletions,
    events,
    replica,
    settle,
    pass: (ms: number): Promise<void> => passTime(clock, ms, settle),
    /** Which tunnels of a reporter have a row, by name. */
    rows: (reporter: ReporterId): string[] =>
      [...rowApi.rows.values()]
        .filter(({ spec }) => spec.reporter.id === reporter.id && spec.reporter.cluster === reporter.cluster)
        .map(({ spec }) => spec.tunnelName)
        .toSorted(),
    /** Who owns a reporter, as its object says. */
    owner: (reporter: ReporterId): string | undefined =>
      reporterApi.objects.get(names.reporterName(reporter))?.status?.owner?.replica,
    /** Status and reason of a condition of a reporter. */
    condition(reporter: ReporterId, type: string): string {
      const { conditions } = reporterApi.objects.get(names.reporterName(reporter))?.status ?? {};
      const found = conditions?.find((one) => one.type === type);
      return found === undefined ? 'none' : `${found.status} ${found.reason}`;
    },
    /** Ends all timers. */
    stop(): void {
      for (const one of replicas) {
        one.release();
        if (!one.state.stopped) one.die();
      }
    },
  };
}

/** As `createReplicasWorld` gives it. */
export type ReplicasWorld = ReturnType<typeof createReplicasWorld>;
