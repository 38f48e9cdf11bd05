import type { Clock } from './clock.ts';
import type { ReplicaRegistry } from './controller/replica-registry.ts';
import type { ReporterCache } from './controller/reporter-cache.ts';
import { LeaseWriteFence } from './controller/write-fence.ts';
import type { Names } from './core/names.ts';
import { REQUIRE_POLICY_ANNOTATIONS } from './core/policy-object.ts';
import { ApiError } from './k8s/api-error.ts';
import { createFaultLog, type FaultLog } from './k8s/fault-log.ts';
import { LEADER_LEASE, Lease, type LeaseEventHandler, type LeaseObject } from './k8s/lease.ts';
import type { ResourceClient } from './k8s/resource-client.ts';
import type { Log } from './log.ts';
import type { Metrics } from './metrics.ts';
import type { Reflectors } from './reflectors.ts';

export interface ReplicaLeasesOptions {
  /** This process: the replica ID with a random suffix per start. */
  readonly self: string;
  /** `--require-policy`, which the replica's Lease shows to `doctor`. Default: false. */
  readonly requirePolicy?: boolean | undefined;
  readonly names: Names;
  readonly client: ResourceClient<LeaseObject>;
  readonly replicas: ReplicaRegistry;
  readonly reporters: ReporterCache;
  readonly reflectors: Reflectors;
  readonly clock: Clock;
  /** 0 to 1, for jitter. */
  readonly random: () => number;
  readonly log: Log;
}

/** The two Leases of a replica, and the fence that depends on the first. */
export interface ReplicaLeases {
  /** Held as long as the process runs; without it the replica writes nothing. */
  readonly own: Lease;
  /** Held by one of the replicas. */
  readonly leader: Lease;
  readonly fence: LeaseWriteFence;
}

/** Creates the Leases of a replica. Neither is acquired before its `start` is called. */
export function createReplicaLeases(options: ReplicaLeasesOptions): ReplicaLeases {
  const { self, requirePolicy, names, client, replicas, reporters, reflectors, clock, random, log } = options;
  const common = { client, identity: self, clock, random };
  const ownName = names.leaseName(self);

  const annotations = requirePolicy === true ? REQUIRE_POLICY_ANNOTATIONS : undefined;
  const own = new Lease({ ...common, name: ownName, annotations, exclusive: true });
  const fence = new LeaseWriteFence({
    self,
    lease: own,
    replicas,
    cache: reporters,
    reflector: reflectors.reporters,
  });
  // A replica that is fenced must not become the leader.
  const leader = new Lease({ ...common, name: LEADER_LEASE, exclusive: false, fence });

  own.addEventHandler(
    new LeaseLog(reflectors, log, self, {
      acquired: 'acquired replica Lease',
      reacquired: 'reacquired replica Lease; rereading all reporters',
      faults: createFaultLog({
        fields: { replica: self },
        failed: 'cannot renew the replica Lease; writes are paused while it is not held',
        recovered: 'renewal of the replica Lease recovered',
        log,
        clock,
      }),
    }),
  );
  leader.addEventHandler(
    new LeaseLog(reflectors, log, self, {
      acquired: 'became leader',
      reacquired: 'became leader',
      faults: createFaultLog({
        fields: { replica: self },
        failed: 'cannot acquire leader lease; takeover of orphaned reporters is paused',
        recovered: 'acquisition of the leader lease recovered',
        log,
        clock,
      }),
    }),
  );
  own.addEventHandler(fence);
  own.addEventHandler(reflectors);
  leader.addEventHandler(reflectors);
  replicas.addEventHandler(ownName, own);
  replicas.addEventHandler(LEADER_LEASE, leader);
  reporters.addEventHandler(fence);
  return { own, leader, fence };
}

/** Sets the gauges of the Leases for a scrape. */
export function updateLeaseMetrics({ own, leader }: ReplicaLeases, metrics: Metrics): void {
  metrics.leaseHeld.set(own.isHeld ? 1 : 0);
  metrics.leaderElectionMasterStatus.set({ name: LEADER_LEASE }, leader.isHeld ? 1 : 0);
}

interface LeaseMessages {
  readonly acquired: string;
  readonly reacquired: string;
  readonly faults: FaultLog;
}

/** Logs when a Lease is acquired, and why it cannot be. */
class LeaseLog implements LeaseEventHandler {
  readonly #reflectors: Pick<Reflectors, 'retryNow'>;
  readonly #log: Log;
  readonly #replica: string;
  readonly #messages: LeaseMessages;
  #everAcquired = false;

  constructor(reflectors: Pick<Reflectors, 'retryNow'>, log: Log, replica: string, messages: LeaseMessages) {
    this.#reflectors = reflectors;
    this.#log = log;
    this.#replica = replica;
    this.#messages = messages;
  }

  onAcquired(): void {
    const { acquired, reacquired } = this.#messages;
    this.#log.info({ replica: this.#replica }, this.#everAcquired ? reacquired : acquired);
    this.#everAcquired = true;
  }

  onResult(failure: Error | undefined): void {
    const { faults } = this.#messages;
    if (failure === undefined) {
      faults.logRecovery();
      return;
    }
    // A response of any kind does not indicate that the watches have lost their connections.
    if (failure instanceof ApiError && failure.status === undefined) this.#reflectors.retryNow();
    faults.logFailure(failure, 'every 1s');
  }
}
