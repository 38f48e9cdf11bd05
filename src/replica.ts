import type { Clock } from './clock.ts';
import { Inheritance } from './controller/inheritance.ts';
import { LostReporters } from './controller/lost-reporters.ts';
import type { Mirror } from './controller/mirror.ts';
import { ReplicaDirectory } from './controller/replica-directory.ts';
import { ReplicaStanding } from './controller/replica-standing.ts';
import { ReporterCache } from './controller/reporter-cache.ts';
import { createReporterEvents } from './controller/reporter-events.ts';
import { reporterFigures } from './controller/reporter-figures.ts';
import { Reporters } from './controller/reporters.ts';
import type { RowCache } from './controller/row-cache.ts';
import type { Workqueue } from './controller/workqueue.ts';
import type { Ledger } from './core/ledger.ts';
import type { Names } from './core/names.ts';
import type { ReporterObject } from './core/reporter-object.ts';
import { ApiError, explanationOf } from './k8s/api-error.ts';
import type { ApiClient } from './k8s/client.ts';
import { createEventApi, eventResource } from './k8s/event-api.ts';
import { LEADER_LEASE, leaseResource, type LeaseObject } from './k8s/lease-object.ts';
import { Lease } from './k8s/lease.ts';
import { Reflector } from './k8s/reflector.ts';
import { createReporterApi, reporterResource } from './k8s/reporter-api.ts';
import type { Log } from './log.ts';
import type { Metrics } from './metrics.ts';

/** What the replica shares with the rest of the operator, and whom it tells. */
export interface ReplicaParts {
  /** This process, unlike any other that ever ran. */
  readonly self: string;
  readonly namespace: string;
  readonly client: ApiClient;
  readonly names: Names;
  readonly ledger: Ledger;
  readonly queue: Workqueue;
  readonly rows: RowCache;
  readonly rowsListed: () => boolean;
  /** It is known who may report what: before, no row is to be written. */
  readonly policiesKnown: () => boolean;
  /** Nothing has to be remembered of a reporter any more. */
  readonly onForgotten: (key: string) => void;
  readonly isDue: (key: string, tunnelName: string) => boolean;
  /** Asked when it is needed: it needs the replica in turn. */
  readonly mirror: () => Mirror;
  readonly reportIntervalMs: () => number;
  readonly unknownAfterMs: number;
  readonly expireAfterMs: number;
  /** What watches showed may not be what is stored: rows and policies, which are not listed here, are to be listed again. */
  readonly relistOthers: () => void;
  /** The API server did not answer: watches may have lost their connection too. */
  readonly onNoAnswer: () => void;
  /** Reporters are listed, or the Lease is held: it may be ready now. */
  readonly onProgress: () => void;
  readonly clock: Clock;
  readonly random: () => number;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** This replica among others: what it owns, that it lives, whether it leads. */
export interface Replica {
  readonly reporters: Reporters;
  /** Why it is not ready; undefined when it is. Once ready, it stays so while the API server is away. */
  notReady(): string | undefined;
  /** True while this replica leads. */
  isLeader(): boolean;
  /** Rows have been listed, or policies are known, so what waited for that can go on. */
  resume(): void;
  hasten(): void;
  /** Sets what is read at a scrape. */
  gather(): void;
  /** Begins to list, and to acquire its Lease. */
  start(signal: AbortSignal): Promise<unknown>;
  /** Lets another replica lead. To be called first, as nothing else waits for it. */
  stopLeading(): Promise<void>;
  /** Nothing more is begun; the Lease is given up. */
  stop(): Promise<void>;
}

/** Builds the parts of a replica and hands them to each other. */
export function createReplica(parts: ReplicaParts): Replica {
  const { self, namespace, client, names, rows, rowsListed, clock, random, metrics, log } = parts;
  const leases = client.resource<LeaseObject>(leaseResource(namespace));
  const reporterClient = client.resource<ReporterObject>(reporterResource(namespace));
  const events = createEventApi(client.resource<object>(eventResource(namespace)), namespace, self);

  const cache: ReporterCache = new ReporterCache(names, (key, after, before) =>
    reporters.objectChanged(key, after, before),
  );
  const directory = new ReplicaDirectory(names, clock);
  const isListed = (): boolean => rowsListed() && reportersReflector.hasSynced && parts.policiesKnown();
  let everHeld = false;

  /**
   * A Lease is written every 5 s, so it tells first. A watch from a version of before shows nothing, and goes on as if nothing
   * had been as soon as the restored store has come to that version.
   */
  const restored = (): void => {
    log.warn('etcd appears to have been restored; relisting all resources');
    parts.relistOthers();
    reportersReflector.relist();
    leasesReflector.relist();
  };

  const lease: Lease = new Lease({
    client: leases,
    name: names.leaseName(self),
    identity: self,
    own: true,
    mayTry: () => true,
    onHeld: () => {
      log.info(
        { replica: self },
        everHeld ? 'reacquired replica Lease; rereading all reporters' : 'acquired replica Lease',
      );
      everHeld = true;
      standing.leaseHeld();
      parts.onProgress();
    },
    onSetBack: restored,
    onAnswer: leaseLog('cannot renew the replica Lease; writes are paused while it is not held'),
    clock,
    random,
  });
  const leader: Lease = new Lease({
    client: leases,
    name: LEADER_LEASE,
    identity: self,
    own: false,
    // A replica that may not write rows must not lead either.
    mayTry: () => standing.mayWrite(),
    onHeld: () => log.info({ replica: self }, 'became leader'),
    onSetBack: restored,
    onAnswer: leaseLog('cannot acquire leader lease; takeover of orphaned reporters is paused'),
    clock,
    random,
  });
  directory.onLease = (name, seen) => {
    if (name === LEADER_LEASE) leader.observed(seen);
    else if (name === names.leaseName(self)) lease.observed(seen);
  };

  const standing: ReplicaStanding = new ReplicaStanding({
    self,
    isHeld: () => lease.isHeld,
    isAlive: (replica) => directory.isAlive(replica),
    isServing: (replica) => directory.isServing(replica),
    cache,
    relist: () => reportersReflector.relist(),
    onOpen: () => reporters.resume(),
  });
  cache.onListed = () => standing.listed();

  const reporters: Reporters = new Reporters({
    ...parts,
    api: createReporterApi(reporterClient),
    cache,
    standing,
    isListed,
    relist: restored,
    rowNames: (key) => rows.tunnelNames(key),
    rowCount: (key) => rows.tunnelCount(key),
    lookAtAll: (key, sinceMs) => parts.mirror().lookAtAll(key, sinceMs),
    onForgotten(key) {
      parts.mirror().forget(key);
      parts.onForgotten(key);
    },
    events: createReporterEvents({
      create: (regarding, text, wallMs) => events.create(regarding, text, wallMs),
      cache,
      mayWrite: () => standing.mayWrite(),
      onDropped: () => metrics.eventsDropped.inc(),
      onFailed: (error) => log.debug({ error: explanationOf(error) }, 'failed to create event'),
      clock,
    }),
  });
  const lost = new LostReporters({
    entries: () => reporters.entries(),
    driver: reporters.driver,
    standing,
    rowNames: (key) => rows.tunnelNames(key),
    queueOne: (key, tunnelName) => parts.mirror().queueOne(key, tunnelName),
    pending: (key) => parts.queue.pending(key),
    unknownAfterMs: parts.unknownAfterMs,
    clock,
  });
  const inheritance = new Inheritance({
    self,
    isLeader: () => leader.isHeld,
    reporters,
    cache,
    reportersWithRows: () => rows.reporterKeys(),
    directory,
    standing,
    isListed,
    async deleteLease({ metadata }) {
      await leases.delete(metadata.name, metadata);
    },
    clock,
  });
  parts.queue.onEmptied = (key) => reporters.emptied(key);

  const reportersReflector: Reflector<ReporterObject> = new Reflector<ReporterObject>({
    source: reporterClient,
    handler: cache,
    clock,
    random,
    log,
    onState: (state) => {
      if (state !== 'synced') return;
      reporters.resume();
      parts.onProgress();
    },
  });
  const leasesReflector = new Reflector<LeaseObject>({
    source: leases,
    handler: directory,
    clock,
    random,
    log,
  });

  /** Says that it does not work, once for each time that it begins not to. */
  function leaseLog(what: string): (failure: Error | undefined) => void {
    let failing = false;
    return (failure) => {
      if (failure === undefined) {
        failing = false;
        return;
      }
      // An answer, of whatever kind, is no reason to doubt the watches' connections.
      if (failure instanceof ApiError && failure.status === undefined) parts.onNoAnswer();
      if (!failing) log.warn({ error: failure.message, retry: 'every 1s' }, what);
      failing = true;
    };
  }

  return {
    reporters,
    notReady() {
      if (!rowsListed()) return 'ReverseTunnels not listed yet';
      if (!reportersReflector.hasSynced) return 'ReverseTunnelReporters not listed yet';
      if (!parts.policiesKnown()) return 'ReverseTunnelPolicies not listed yet';
      return everHeld ? undefined : 'replica Lease not acquired yet';
    },
    isLeader: () => leader.isHeld,
    resume: () => reporters.resume(),
    hasten() {
      reportersReflector.hasten();
      leasesReflector.hasten();
    },
    gather() {
      const figures = reporterFigures(
        reporters.entries(),
        {
          rowCount: (key) => rows.tunnelCount(key),
          pending: (key) => parts.queue.pending(key),
          outsideCount: (key) => parts.ledger.outsideCount(key),
        },
        clock.monotonicMs(),
      );
      metrics.reportersOwned.set(figures.owned);
      for (const [state, count] of Object.entries(figures.byState)) metrics.reporters.set({ state }, count);
      for (const [reason, count] of Object.entries(figures.setAside)) metrics.setAside.set({ reason }, count);
      metrics.backlogSeconds.set(figures.backlogMs / 1000);
      metrics.leaseHeld.set(lease.isHeld ? 1 : 0);
      metrics.leaderElectionMasterStatus.set({ name: LEADER_LEASE }, leader.isHeld ? 1 : 0);
    },
    async start(signal) {
      lease.start();
      leader.start();
      lost.start();
      inheritance.start();
      await Promise.all([reportersReflector.run(signal), leasesReflector.run(signal)]);
    },
    stopLeading: () => leader.release(),
    async stop() {
      lost.stop();
      inheritance.stop();
      reporters.stop();
      await lease.release();
    },
  };
}
