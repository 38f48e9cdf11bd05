import type { Clock } from './clock.ts';
import { Authorizer } from './controller/authorizer.ts';
import { CreationTimes, type CreationTimesOptions } from './controller/creation-times.ts';
import { Departures } from './controller/departures.ts';
import { ExpectationCache } from './controller/expectation-cache.ts';
import { ExpectationReconciler, type ExpectationStatusApi } from './controller/expectation-reconciler.ts';
import { ExpectationTracker } from './controller/expectation-tracker.ts';
import { FlapRecorder } from './controller/flap-recorder.ts';
import { ExpiryController } from './controller/expiry-controller.ts';
import { ItemReconciler } from './controller/item-reconciler.ts';
import { LiveReader } from './controller/live-reader.ts';
import { MirroredTunnels } from './controller/mirrored-tunnels.ts';
import type { ReporterObjectApi, SliceObjectApi, TunnelObjectApi } from './controller/object-api.ts';
import { PolicyCache } from './controller/policy-cache.ts';
import { PolicyStatusWriter, type PolicyStatusApi } from './controller/policy-status-writer.ts';
import { Readiness } from './controller/readiness.ts';
import { RejectedEntries } from './controller/rejected-entries.ts';
import { RemovalHolds } from './controller/removal-holds.ts';
import { ReplicaRegistry } from './controller/replica-registry.ts';
import { ReportBurst } from './controller/report-burst.ts';
import { ReportIntake } from './controller/report-intake.ts';
import { ReporterCache } from './controller/reporter-cache.ts';
import { ReporterEnqueuer } from './controller/reporter-enqueuer.ts';
import type { EventRecorder, ObjectEventRecorder } from './controller/event-recorder.ts';
import { ReporterReconciler } from './controller/reporter-reconciler.ts';
import { Representations } from './controller/representations.ts';
import { RewriteLimiter } from './controller/rewrite-limiter.ts';
import { RewriteRecorder } from './controller/rewrite-recorder.ts';
import { RewrittenSlices } from './controller/rewritten-slices.ts';
import { ReporterRegistry, type CreateOwnership } from './controller/reporter-registry.ts';
import type { ControllerSettings } from './controller/settings.ts';
import { SliceAssignments } from './controller/slice-assignments.ts';
import { SliceCache } from './controller/slice-cache.ts';
import { SliceEnqueuer } from './controller/slice-enqueuer.ts';
import { SliceMerger } from './controller/slice-merger.ts';
import { SlicePlanner } from './controller/slice-planner.ts';
import { SliceReconciler } from './controller/slice-reconciler.ts';
import { SliceTransitionRecorder } from './controller/slice-transitions.ts';
import { SliceWriter } from './controller/slice-writer.ts';
import { StatusBudget } from './controller/status-budget.ts';
import { TakeoverController, type TakeoverControllerOptions } from './controller/takeover-controller.ts';
import { TransitionRecorder, type TransitionSink } from './controller/transition-recorder.ts';
import { TunnelCache } from './controller/tunnel-cache.ts';
import { TunnelEnqueuer } from './controller/tunnel-enqueuer.ts';
import { TunnelReconciler } from './controller/tunnel-reconciler.ts';
import { Workers } from './controller/workers.ts';
import { Workqueue } from './controller/workqueue.ts';
import { WriteAuthorizer } from './controller/write-authorizer.ts';
import { WriteFailures } from './controller/write-failures.ts';
import type { WriteFence, WriteFenceEventHandler } from './controller/write-fence.ts';
import { WritePlanner } from './controller/write-planner.ts';
import { FlappingTunnels } from './core/flapping-tunnels.ts';
import type { Ledger } from './core/ledger.ts';
import type { Names } from './core/names.ts';
import type { Log } from './log.ts';
import type { Metrics } from './metrics.ts';

/** Concurrent reconciliations of reporters. They use connections of their own, so object writes never delay claims. */
const REPORTER_CONCURRENCY = 16;
/** Concurrent writes of statuses of expectations; the writes of tunnels need the connections more. */
const EXPECTATION_CONCURRENCY = 4;

/** The objects as last seen, by kind. Reflectors fill them. */
export interface Caches {
  readonly tunnels: TunnelCache;
  readonly slices: SliceCache;
  readonly reporters: ReporterCache;
  readonly policies: PolicyCache;
  readonly expectations: ExpectationCache;
  /** Leases. */
  readonly replicas: ReplicaRegistry;
}

export interface CachesOptions {
  readonly names: Names;
  readonly ledger: Ledger;
  /** `--require-policy`. Default: false. */
  readonly requirePolicy?: boolean | undefined;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

export function createCaches(options: CachesOptions): Caches {
  const { names, ledger, requirePolicy, clock, metrics, log } = options;
  return {
    tunnels: new TunnelCache(names, ledger),
    slices: new SliceCache(names, ledger),
    reporters: new ReporterCache(names),
    policies: new PolicyCache({ requirePolicy, clock, metrics, log }),
    expectations: new ExpectationCache(),
    replicas: new ReplicaRegistry(names, clock),
  };
}

/** The API server as the controllers see it. */
export interface ControllerApis {
  readonly tunnels: TunnelObjectApi;
  readonly slices: SliceObjectApi;
  readonly reporters: ReporterObjectApi;
  readonly policies: PolicyStatusApi;
  readonly expectations: ExpectationStatusApi;
  readonly leases: TakeoverControllerOptions['leases'];
  readonly events: EventRecorder;
  readonly objectEvents: ObjectEventRecorder;
  readonly serverClock: CreationTimesOptions['serverClock'];
}

/** The reflectors as the controllers see them. */
export interface Watches {
  /** Retries failed lists and watches soon, and checks whether open watches are alive. */
  retryNow(): void;
  /** Lists ReverseTunnel objects again. */
  relistTunnels(): void;
  /** Lists ReverseTunnelSlice objects again. */
  relistSlices(): void;
  /** Lists all kinds again: etcd was restored. */
  relistAll(): void;
}

/** The write fence with its events; `LeaseWriteFence` implements it. */
export interface ObservableFence extends WriteFence {
  readonly everHeld: boolean;
  addEventHandler(handler: WriteFenceEventHandler): void;
}

export interface ControllersOptions {
  /** This process: the replica ID with a random suffix per start. */
  readonly self: string;
  readonly names: Names;
  readonly ledger: Ledger;
  readonly caches: Caches;
  readonly watches: Watches;
  readonly apis: ControllerApis;
  readonly fence: ObservableFence;
  /** The Lease of the leader. */
  readonly leader: { readonly isHeld: boolean };
  /** Where the transitions of tunnels are recorded. Default: nowhere. */
  readonly transitionSink?: TransitionSink | undefined;
  readonly settings: ControllerSettings;
  /** Default: `Ownership`. Tests replace it with one that violates a rule. */
  readonly createOwnership?: CreateOwnership | undefined;
  readonly clock: Clock;
  /** 0 to 1, for jitter. */
  readonly random: () => number;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** The controllers of one replica. */
export interface Controllers {
  readonly authorizer: Authorizer;
  readonly readiness: Readiness;
  readonly registry: ReporterRegistry;
  readonly flapping: FlappingTunnels;
  /** The tunnels in either form. */
  readonly mirrored: MirroredTunnels;
  readonly burst: ReportBurst;
  readonly intake: ReportIntake;
  readonly writeAuthorizer: WriteAuthorizer;
  readonly tunnels: {
    readonly queue: Workqueue;
    readonly enqueuer: TunnelEnqueuer;
    readonly workers: Workers;
  };
  readonly reporters: {
    readonly queue: Workqueue;
    readonly enqueuer: ReporterEnqueuer;
    readonly workers: Workers;
  };
  readonly expectations: {
    readonly queue: Workqueue;
    readonly tracker: ExpectationTracker;
  };
  /** Starts everything that acts on its own. Workers of tunnels start once both forms are listed. */
  start(): void;
  /** Resolves when everything that was reported is written, except what is delayed. */
  drained(): Promise<void>;
  /** Stops everything and ends all timers. Requests in flight end by themselves. */
  stop(): void;
}

/**
 * Builds the controllers of one replica. Each line uses only lines above it; whatever must react to an event of an
 * earlier line is added to it as an event handler. The operator, the simulation and the tests all call this function.
 */
export function createControllers(options: ControllersOptions): Controllers {
  const { self, names, ledger, caches, watches, apis, fence, leader, settings } = options;
  const { transitionSink: sink, clock, random, metrics, log } = options;
  const { events, serverClock } = apis;

  const authorizer = new Authorizer(clock);
  const readiness = new Readiness({
    objects: caches.tunnels,
    slices: caches.slices,
    reporters: caches.reporters,
    authorizer,
    fence,
  });
  const registry = new ReporterRegistry({
    self,
    names,
    cache: caches.reporters,
    settings,
    createOwnership: options.createOwnership,
    clock,
  });
  const flapping = new FlappingTunnels();
  const mirrored = new MirroredTunnels(caches.tunnels, caches.slices);
  const representations = new Representations({ ledger, slices: caches.slices, authorizer, settings });
  const assignments = new SliceAssignments(names, caches.slices, settings.maxSliceTunnels);
  const departures = new Departures();
  const slicePlanner = new SlicePlanner({
    objects: caches.tunnels,
    slices: caches.slices,
    assignments,
    representations,
    registry,
    departures,
  });
  const planner = new WritePlanner({
    ledger,
    objects: caches.tunnels,
    registry,
    representations,
    slices: slicePlanner,
  });
  const tunnelQueue = new Workqueue(clock);
  const reporterQueue = new Workqueue(clock);

  const reporterEnqueuer = new ReporterEnqueuer({
    registry,
    queue: reporterQueue,
    fence,
    readiness,
    events,
    clock,
    metrics,
    log,
  });
  const reader = new LiveReader({ api: apis.reporters, cache: caches.reporters, watches, clock, metrics });
  const writeAuthorizer = new WriteAuthorizer({
    registry,
    fence,
    reader,
    reporters: reporterEnqueuer,
    queue: tunnelQueue,
    clock,
  });
  const transitions =
    sink === undefined
      ? undefined
      : new TransitionRecorder({
          sink,
          ledger,
          mirrored,
          assignments,
          registry,
          queue: tunnelQueue,
          authorizer,
          clock,
        });
  const sliceEnqueuer = new SliceEnqueuer({
    ledger,
    slices: caches.slices,
    assignments,
    planner: slicePlanner,
    flapping,
    registry,
    writeAuthorizer,
    queue: tunnelQueue,
    clock,
    metrics,
  });
  const tunnelEnqueuer = new TunnelEnqueuer({
    ledger,
    objects: caches.tunnels,
    mirrored,
    planner,
    slicePlanner,
    slices: sliceEnqueuer,
    flapping,
    registry,
    writeAuthorizer,
    queue: tunnelQueue,
    transitions,
    clock,
    metrics,
  });
  const holds = new RemovalHolds({
    ledger,
    mirrored,
    registry,
    reporters: reporterEnqueuer,
    tunnels: tunnelEnqueuer,
    events,
    clock,
    metrics,
    log,
  });
  const flaps = new FlapRecorder({ flapping, registry, events, clock, log });
  const burst = new ReportBurst();
  const intake = new ReportIntake({
    ledger,
    mirrored,
    assignments,
    authorizer,
    reporters: reporterEnqueuer,
    tunnels: tunnelEnqueuer,
    registry,
    holds,
    flaps,
    burst,
    queue: tunnelQueue,
    clock,
    transitions,
  });

  const limiter = new RewriteLimiter();
  const rewrites = new RewriteRecorder({ events, clock, metrics, log });
  const creationTimes = new CreationTimes({ serverClock, settings, clock, metrics, log });
  const failures = new WriteFailures({ registry, writeAuthorizer, events, clock, log });
  const rejectedEntries = new RejectedEntries({
    cache: caches.slices,
    assignments,
    planner: slicePlanner,
    slices: sliceEnqueuer,
    registry,
    writeAuthorizer,
    queue: tunnelQueue,
    clock,
    log,
  });
  const tunnelReconciler = new TunnelReconciler({
    api: apis.tunnels,
    ledger,
    cache: caches.tunnels,
    planner,
    slicePlanner,
    slices: sliceEnqueuer,
    departures,
    rejected: rejectedEntries,
    registry,
    flapping,
    creationTimes,
    writeAuthorizer,
    failures,
    names,
    queue: tunnelQueue,
    rewrites,
    limiter,
    transitions,
    watches,
    clock,
    metrics,
    log,
  });
  const rewrittenSlices = new RewrittenSlices();
  const sliceTransitions = new SliceTransitionRecorder(transitions, mirrored);
  const sliceWriter = new SliceWriter({
    api: apis.slices,
    cache: caches.slices,
    assignments,
    slices: sliceEnqueuer,
    flapping,
    departures,
    failures,
    transitions: sliceTransitions,
    creationTimes,
    names,
    watches,
    clock,
    metrics,
    log,
  });
  const sliceReconciler = new SliceReconciler({
    writer: sliceWriter,
    ledger,
    cache: caches.slices,
    objects: caches.tunnels,
    planner: slicePlanner,
    slices: sliceEnqueuer,
    tunnels: tunnelEnqueuer,
    registry,
    flapping,
    departures,
    writeAuthorizer,
    failures,
    rejected: rejectedEntries,
    rewritten: rewrittenSlices,
    transitions: sliceTransitions,
    rewrites,
    limiter,
    clock,
    metrics,
  });
  const merger = new SliceMerger({
    ledger,
    assignments,
    slices: sliceEnqueuer,
    registry,
    writeAuthorizer,
    queue: tunnelQueue,
    clock,
    log,
  });
  const tunnelWorkers = new Workers({
    queue: tunnelQueue,
    reconciler: new ItemReconciler(tunnelReconciler, sliceReconciler),
    concurrency: settings.writeConcurrency,
    backoff: 'shortened',
    burst,
    onUnreachable: watches,
    retryCounter: metrics.workqueueRetries.labels({ name: 'tunnels' }),
    clock,
    random,
    log,
  });
  const reporterWorkers = new Workers({
    queue: reporterQueue,
    reconciler: new ReporterReconciler({
      api: apis.reporters,
      cache: caches.reporters,
      registry,
      reader,
      ledger,
      mirrored,
      planner,
      slicePlanner,
      assignments,
      queue: tunnelQueue,
      tunnels: tunnelEnqueuer,
      fence,
      readiness,
      settings,
      flapping,
      limiter,
      statusBudget: new StatusBudget(),
      events,
      rewrites,
      clock,
      metrics,
      log,
    }),
    concurrency: REPORTER_CONCURRENCY,
    backoff: 'held',
    burst,
    onUnreachable: watches,
    retryCounter: metrics.workqueueRetries.labels({ name: 'reporters' }),
    clock,
    random,
    log,
  });
  const expiry = new ExpiryController({
    registry,
    reporters: reporterEnqueuer,
    tunnels: tunnelEnqueuer,
    queue: tunnelQueue,
    mirrored,
    fence,
    settings,
    clock,
    log,
  });
  const takeover = new TakeoverController({
    self,
    leader,
    registry,
    reporters: reporterEnqueuer,
    cache: caches.reporters,
    mirrored,
    replicas: caches.replicas,
    fence,
    readiness,
    leases: apis.leases,
    clock,
    log,
  });
  const policyStatus = new PolicyStatusWriter({
    api: apis.policies,
    policies: caches.policies,
    leader,
    clock,
    log,
  });
  const expectationQueue = new Workqueue(clock);
  const expectationTracker = new ExpectationTracker({
    expectations: caches.expectations,
    tunnels: mirrored,
    names,
    leader,
    queue: expectationQueue,
    clock,
    log,
  });
  const expectationWorkers = new Workers({
    queue: expectationQueue,
    reconciler: new ExpectationReconciler({
      api: apis.expectations,
      cache: caches.expectations,
      tracker: expectationTracker,
      leader,
      events: apis.objectEvents,
      rewrites,
      clock,
      log,
    }),
    concurrency: EXPECTATION_CONCURRENCY,
    backoff: 'held',
    onUnreachable: watches,
    retryCounter: metrics.workqueueRetries.labels({ name: 'expectations' }),
    clock,
    random,
    log,
  });

  // Before the workers start.
  mirrored.addEventHandler(holds);
  // Before the enqueuer, which compares the slices with what is assigned to them.
  caches.slices.addEventHandler(sliceEnqueuer);
  caches.slices.addEventHandler(tunnelEnqueuer);
  if (transitions !== undefined) {
    // Before the enqueuer, which makes the tunnel active.
    caches.tunnels.addEventHandler({
      onTunnelObjectChanged: (key, name) => transitions.onTunnelObjectChanged(key, name),
    });
    caches.slices.addEventHandler({
      onTunnelObserved: (key, before, after) => transitions.onEntryObserved(key, before, after),
    });
    mirrored.addEventHandler({ onListed: () => transitions.onListed() });
    registry.addEventHandler(transitions);
  }
  caches.tunnels.addEventHandler(tunnelEnqueuer);
  mirrored.addEventHandler({ onListed: () => tunnelWorkers.start() });
  mirrored.addEventHandler(expectationTracker);
  caches.expectations.addEventHandler(expectationTracker);
  caches.policies.addEventHandler(authorizer);
  authorizer.addEventHandler(tunnelEnqueuer);
  registry.addEventHandler(tunnelEnqueuer);
  registry.addEventHandler(sliceEnqueuer);
  registry.addEventHandler(rewrittenSlices);
  registry.addEventHandler(rejectedEntries);
  registry.addEventHandler(sliceTransitions);
  registry.addEventHandler(departures);
  registry.addEventHandler(authorizer);
  registry.addEventHandler(flaps);
  tunnelQueue.addEventHandler(reporterEnqueuer);
  for (const source of [caches.tunnels, caches.slices, caches.reporters, authorizer, fence]) {
    source.addEventHandler(reporterEnqueuer);
    source.addEventHandler(readiness);
  }

  return {
    authorizer,
    readiness,
    registry,
    flapping,
    mirrored,
    burst,
    intake,
    writeAuthorizer,
    tunnels: { queue: tunnelQueue, enqueuer: tunnelEnqueuer, workers: tunnelWorkers },
    reporters: { queue: reporterQueue, enqueuer: reporterEnqueuer, workers: reporterWorkers },
    expectations: { queue: expectationQueue, tracker: expectationTracker },
    start() {
      reporterWorkers.start();
      expiry.start();
      merger.start();
      rejectedEntries.start();
      takeover.start();
      policyStatus.start();
      expectationTracker.start();
      expectationWorkers.start();
    },
    async drained() {
      // A stream that has just opened must be claimed first.
      await reporterWorkers.drained();
      await tunnelEnqueuer.drained();
      sliceEnqueuer.flush();
      await tunnelWorkers.drained();
    },
    stop() {
      tunnelWorkers.stop();
      reporterWorkers.stop();
      holds.stop();
      expiry.stop();
      merger.stop();
      rejectedEntries.stop();
      takeover.stop();
      policyStatus.stop();
      expectationTracker.stop();
      expectationWorkers.stop();
      caches.policies.stop();
    },
  };
}
