import type { Clock } from './clock.ts';
import { createEventRecorder } from './controller/event-recorder.ts';
import type { ControllerSettings } from './controller/settings.ts';
import type { TransitionSink } from './controller/transition-recorder.ts';
import { createCaches, createControllers, type Caches, type Controllers } from './controllers.ts';
import { Ledger, type LedgerLimits } from './core/ledger.ts';
import type { Names } from './core/names.ts';
import type { ExpectationObject } from './core/expectation-object.ts';
import type { PolicyObject } from './core/policy-object.ts';
import type { ReporterObject } from './core/reporter-object.ts';
import type { SliceObject } from './core/slice-object.ts';
import type { TunnelObject } from './core/tunnel-object.ts';
import type { ApiClient } from './k8s/client.ts';
import { leaseResource, type LeaseObject } from './k8s/lease.ts';
import {
  createEventApi,
  createExpectationApi,
  createPolicyApi,
  createReporterApi,
  createSliceApi,
  createTunnelApi,
  eventResource,
  expectationResource,
  policyResource,
  reporterResource,
  sliceResource,
  tunnelResource,
} from './k8s/resources.ts';
import type { Log } from './log.ts';
import type { Metrics } from './metrics.ts';
import { detectPauses } from './pause-detector.ts';
import { Reflectors } from './reflectors.ts';
import { createReplicaLeases, type ReplicaLeases } from './replica-leases.ts';

export interface ReplicaOptions {
  /** This process: the replica ID with a random suffix per start. */
  readonly self: string;
  readonly names: Names;
  readonly client: ApiClient;
  readonly namespace: string;
  readonly limits: LedgerLimits;
  readonly settings: ControllerSettings;
  /** `--require-policy`. Default: false. */
  readonly requirePolicy?: boolean;
  /** Where the transitions of tunnels are recorded. Default: nowhere. */
  readonly transitionSink?: TransitionSink | undefined;
  /** As in `Reflectors`. */
  readonly watchSlices?: boolean;
  /** As in `Reflectors`. */
  readonly watchPolicies?: boolean;
  /** As in `Reflectors`. */
  readonly watchExpectations?: boolean;
  /** As in `Reflectors`. */
  readonly tunnelPageLimit?: number;
  readonly clock: Clock;
  /** 0 to 1, for jitter. */
  readonly random: () => number;
  readonly metrics: Metrics;
  /** Names the API server in each line. */
  readonly log: Log;
}

/** The part of an operator between the reporting service and the API server. */
export interface Replica {
  readonly ledger: Ledger;
  readonly caches: Caches;
  readonly leases: ReplicaLeases;
  readonly controllers: Controllers;
  /** Starts the watches, the Leases and the controllers. Resolves when `signal` is aborted and the watches have ended. */
  run(signal: AbortSignal): Promise<void>;
}

/** Builds a replica. Each line uses only lines above it. The operator and the simulation call this function. */
export function createReplica(options: ReplicaOptions): Replica {
  const { self, names, client, namespace, settings, requirePolicy, clock, random, metrics, log } = options;
  const ledger = new Ledger(options.limits, settings.removalHold);
  const caches = createCaches({ names, ledger, requirePolicy, clock, metrics, log });
  const reflectors = new Reflectors({
    client,
    namespace,
    caches,
    watchSlices: options.watchSlices,
    watchPolicies: options.watchPolicies,
    watchExpectations: options.watchExpectations,
    tunnelPageLimit: options.tunnelPageLimit,
    clock,
    random,
    log,
  });
  const leaseClient = client.resource<LeaseObject>(leaseResource(namespace));
  const leases = createReplicaLeases({
    self,
    requirePolicy,
    names,
    client: leaseClient,
    replicas: caches.replicas,
    reporters: caches.reporters,
    reflectors,
    clock,
    random,
    log,
  });
  const events = createEventRecorder({
    api: createEventApi(client.resource<object>(eventResource(namespace)), namespace, self),
    cache: caches.reporters,
    fence: leases.fence,
    clock,
    metrics,
    log,
  });
  const controllers = createControllers({
    self,
    names,
    ledger,
    caches,
    watches: reflectors,
    apis: {
      tunnels: createTunnelApi(client.resource<TunnelObject>(tunnelResource(namespace))),
      slices: createSliceApi(client.resource<SliceObject>(sliceResource(namespace))),
      reporters: createReporterApi(client.resource<ReporterObject>(reporterResource(namespace))),
      policies: createPolicyApi(client.resource<PolicyObject>(policyResource(namespace))),
      expectations: createExpectationApi(client.resource<ExpectationObject>(expectationResource(namespace))),
      leases: leaseClient,
      events,
      objectEvents: events,
      serverClock: client.serverClock,
    },
    fence: leases.fence,
    leader: leases.leader,
    transitionSink: options.transitionSink,
    settings,
    clock,
    random,
    metrics,
    log,
  });
  return {
    ledger,
    caches,
    leases,
    controllers,
    run(signal) {
      const reflecting = reflectors.run(signal);
      const stopDetecting = detectPauses(clock, log, (pausedMs) => reflectors.onPaused(pausedMs));
      signal.addEventListener('abort', stopDetecting, { once: true });
      leases.own.start();
      leases.leader.start();
      controllers.start();
      return reflecting;
    },
  };
}
