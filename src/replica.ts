import type { Clock } from './clock.ts';
import { TakeoverController } from './controller/takeover-controller.ts';
import { ExpiryController } from './controller/expiry-controller.ts';
import type { TunnelEnqueuer } from './controller/tunnel-enqueuer.ts';
import { ReplicaRegistry } from './controller/replica-registry.ts';
import { LeaseWriteFence } from './controller/lease-write-fence.ts';
import { ReporterCache } from './controller/reporter-cache.ts';
import { createReporterEvents } from './controller/reporter-events.ts';
import { collectReporterStats } from './controller/reporter-stats.ts';
import { ReporterController } from './controller/reporter-controller.ts';
import type { TunnelCache } from './controller/tunnel-cache.ts';
import type { Workqueue } from './controller/workqueue.ts';
import type { Ledger } from './core/ledger.ts';
import type { Names } from './core/names.ts';
import type { ReporterObject } from './core/reporter-object.ts';
import { errorMessage } from './error-message.ts';
import { ApiError } from './k8s/api-error.ts';
import type { ApiClient } from './k8s/client.ts';
import { createEventApi, eventResource, createReporterApi, reporterResource } from './k8s/resources.ts';
import { LEADER_LEASE, leaseResource, type LeaseObject, Lease } from './k8s/lease.ts';
import { Reflector } from './k8s/reflector.ts';
import type { Log } from './log.ts';
import type { Metrics } from './metrics.ts';

/** What the replica shares with the rest of the operator, and whom it tells. */
export interface ReplicaOptions {
  /** This process, unlike any other that ever ran. */
  readonly self: string;
  readonly namespace: string;
  readonly client: ApiClient;
  readonly names: Names;
  readonly ledger: Ledger;
  readonly queue: Workqueue;
  readonly rows: TunnelCache;
  readonly objectsSynced: () => boolean;
  /** It is known who may report what: before, no row is to be written. */
  readonly policiesSynced: () => boolean;
  /** Nothing has to be remembered of a reporter any more. */
  readonly onReporterRemoved: (key: string) => void;
  readonly needsWrite: (key: string, tunnelName: string) => boolean;
  /** Asked when it is needed: it needs the replica in turn. */
  readonly enqueuer: () => TunnelEnqueuer;
  readonly reportIntervalMs: () => number;
  readonly unknownAfterMs: number;
  readonly expireAfterMs: number;
  /** What watches showed may not be what is stored: rows and policies, which are not listed here, are to be listed again. */
  readonly relistOthers: () => void;
  /** The API server did not answer: watches may have lost their connection too. */
  readonly onUnreachable: () => void;
  /** Reporters are listed, or the Lease is held: it may be ready now. */
  readonly onReadinessChanged: () => void;
  readonly clock: Clock;
  readonly random: () => number;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** This replica among others: what it owns, that it lives, whether it leads. */
export interface Replica {
  readonly reporters: ReporterController;
  /** Why it is not ready; undefined when it is. Once ready, it stays so while the API server is away. */
  notReady(): string | undefined;
  /** True while this replica leads. */
  isLeader(): boolean;
  /** Rows have been listed, or policies are known, so what waited for that can go on. */
  resume(): void;
  retryNow(): void;
  /** Sets what is read at a scrape. */
  updateGauges(): void;
  /** Begins to list, and to acquire its Lease. */
  start(signal: AbortSignal): Promise<unknown>;
  /** Lets another replica lead. To be called first, as nothing else waits for it. */
  stopLeading(): Promise<void>;
  /** Nothing more is begun; the Lease is given up. */
  stop(): Promise<void>;
}

/** Builds the parts of a replica and hands them to each other. */
export function createReplica(options: ReplicaOptions): Replica {
  const { self, namespace, client, names, rows, objectsSynced, clock, random, metrics, log } = options;
  const leases = client.resource<LeaseObject>(leaseResource(namespace));
  const reporterClient = client.resource<ReporterObject>(reporterResource(namespace));
  const events = createEventApi(client.resource<object>(eventResource(namespace)), namespace, self);

  const cache: ReporterCache = new ReporterCache(names, (key, after, before) =>
    reporters.onObjectChanged(key, after, before),
  );
  const registry = new ReplicaRegistry(names, clock);
  const hasSynced = (): boolean =>
    objectsSynced() && reportersReflector.hasSynced && options.policiesSynced();
  let everHeld = false;

  /**
   * A Lease is written every 5 s, so it tells first. A watch from a version of before shows nothing, and goes on as if nothing
   * had been as soon as the restored store has come to that version.
   */
  const onRollback = (): void => {
    log.warn('etcd appears to have been restored; relisting all resources');
    options.relistOthers();
    reportersReflector.relist();
    leasesReflector.relist();
  };

  const lease: Lease = new Lease({
    client: leases,
    name: names.leaseName(self),
    identity: self,
    exclusive: true,
    canAcquire: () => true,
    onAcquired: () => {
      log.info(
        { replica: self },
        everHeld ? 'reacquired replica Lease; rereading all reporters' : 'acquired replica Lease',
      );
      everHeld = true;
      fence.onLeaseHeld();
      options.onReadinessChanged();
    },
    onRollback: onRollback,
    onResult: createLeaseLogger('cannot renew the replica Lease; writes are paused while it is not held'),
    clock,
    random,
  });
  const leader: Lease = new Lease({
    client: leases,
    name: LEADER_LEASE,
    identity: self,
    exclusive: false,
    // A replica that may not write rows must not lead either.
    canAcquire: () => fence.canWrite(),
    onAcquired: () => log.info({ replica: self }, 'became leader'),
    onRollback: onRollback,
    onResult: createLeaseLogger('cannot acquire leader lease; takeover of orphaned reporters is paused'),
    clock,
    random,
  });
  registry.onLease = (name, seen) => {
    if (name === LEADER_LEASE) leader.onWatchEvent(seen);
    else if (name === names.leaseName(self)) lease.onWatchEvent(seen);
  };

  const fence: LeaseWriteFence = new LeaseWriteFence({
    self,
    isHeld: () => lease.isHeld,
    isAlive: (replica) => registry.isAlive(replica),
    isServing: (replica) => registry.isServing(replica),
    cache,
    relist: () => reportersReflector.relist(),
    onWritable: () => reporters.resume(),
  });
  cache.onListed = () => fence.onReportersListed();

  const reporters: ReporterController = new ReporterController({
    ...options,
    api: createReporterApi(reporterClient),
    cache,
    fence,
    hasSynced,
    relist: onRollback,
    objectNames: (key) => rows.tunnelNames(key),
    objectCount: (key) => rows.tunnelCount(key),
    resync: (key, sinceMs) => options.enqueuer().resync(key, sinceMs),
    onReporterRemoved(key) {
      options.enqueuer().forget(key);
      options.onReporterRemoved(key);
    },
    events: createReporterEvents({
      create: (regarding, text, wallMs) => events.create(regarding, text, wallMs),
      cache,
      canWrite: () => fence.canWrite(),
      onDropped: () => metrics.eventsDropped.inc(),
      onFailed: (error) => log.debug({ error: errorMessage(error) }, 'failed to create event'),
      clock,
    }),
  });
  const expiryController = new ExpiryController({
    entries: () => reporters.entries(),
    reconciler: reporters.reconciler,
    fence,
    objectNames: (key) => rows.tunnelNames(key),
    enqueue: (key, tunnelName) => options.enqueuer().enqueue(key, tunnelName),
    pending: (key) => options.queue.pending(key),
    unknownAfterMs: options.unknownAfterMs,
    clock,
  });
  const takeoverController = new TakeoverController({
    self,
    isLeader: () => leader.isHeld,
    reporters,
    cache,
    reportersWithObjects: () => rows.reporterKeys(),
    registry,
    fence,
    hasSynced,
    async deleteLease({ metadata }) {
      await leases.delete(metadata.name, metadata);
    },
    clock,
  });
  options.queue.onEmptied = (key) => reporters.onQueueEmptied(key);

  const reportersReflector: Reflector<ReporterObject> = new Reflector<ReporterObject>({
    source: reporterClient,
    handler: cache,
    clock,
    random,
    log,
    onStateChange: (state) => {
      if (state !== 'synced') return;
      reporters.resume();
      options.onReadinessChanged();
    },
  });
  const leasesReflector = new Reflector<LeaseObject>({
    source: leases,
    handler: registry,
    clock,
    random,
    log,
  });

  /** Says that it does not work, once for each time that it begins not to. */
  function createLeaseLogger(what: string): (failure: Error | undefined) => void {
    let failing = false;
    return (failure) => {
      if (failure === undefined) {
        failing = false;
        return;
      }
      // An answer, of whatever kind, is no reason to doubt the watches' connections.
      if (failure instanceof ApiError && failure.status === undefined) options.onUnreachable();
      if (!failing) log.warn({ error: failure.message, retry: 'every 1s' }, what);
      failing = true;
    };
  }

  return {
    reporters,
    notReady() {
      if (!objectsSynced()) return 'ReverseTunnels not listed yet';
      if (!reportersReflector.hasSynced) return 'ReverseTunnelReporters not listed yet';
      if (!options.policiesSynced()) return 'ReverseTunnelPolicies not listed yet';
      return everHeld ? undefined : 'replica Lease not acquired yet';
    },
    isLeader: () => leader.isHeld,
    resume: () => reporters.resume(),
    retryNow() {
      reportersReflector.retryNow();
      leasesReflector.retryNow();
    },
    updateGauges() {
      const stats = collectReporterStats(
        reporters.entries(),
        {
          objectCount: (key) => rows.tunnelCount(key),
          pending: (key) => options.queue.pending(key),
          deniedCount: (key) => options.ledger.deniedCount(key),
        },
        clock.monotonicMs(),
      );
      metrics.reportersOwned.set(stats.owned);
      for (const [state, count] of Object.entries(stats.byState)) metrics.reporters.set({ state }, count);
      for (const [reason, count] of Object.entries(stats.rejected))
        metrics.tunnelsRejected.set({ reason }, count);
      metrics.oldestPendingWriteSeconds.set(stats.backlogMs / 1000);
      metrics.leaseHeld.set(lease.isHeld ? 1 : 0);
      metrics.leaderElectionMasterStatus.set({ name: LEADER_LEASE }, leader.isHeld ? 1 : 0);
    },
    async start(signal) {
      lease.start();
      leader.start();
      expiryController.start();
      takeoverController.start();
      await Promise.all([reportersReflector.run(signal), leasesReflector.run(signal)]);
    },
    stopLeading: () => leader.release(),
    async stop() {
      expiryController.stop();
      takeoverController.stop();
      reporters.stop();
      await lease.release();
    },
  };
}
