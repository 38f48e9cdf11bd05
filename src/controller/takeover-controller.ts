import type { Clock } from '../clock.ts';
import { reporterIdOf } from '../core/reporter-object.ts';
import { parseReporterKey, type ReporterId } from '../core/tunnel.ts';
import type { Log } from '../log.ts';
import { runPeriodically } from '../run-periodically.ts';
import type { MirroredTunnels } from './mirrored-tunnels.ts';
import type { Readiness } from './readiness.ts';
import type { ReplicaRegistry } from './replica-registry.ts';
import type { ReporterCache } from './reporter-cache.ts';
import type { ReporterEnqueuer } from './reporter-enqueuer.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { WriteFence } from './write-fence.ts';

const SCAN_INTERVAL_MS = 2000;
/**
 * Objects, reporters and Leases come from three watches without a common order, so a reporter must appear abandoned for
 * this long. An error would cost writes, never objects: the claim has a precondition, and the real owner claims again
 * with its next report.
 */
const ABANDONED_AFTER_MS = 5000;

export interface TakeoverControllerOptions {
  /** This process, as the owner of reporters. */
  readonly self: string;
  /** The Lease of the leader. */
  readonly leader: { readonly isHeld: boolean };
  readonly registry: Pick<ReporterRegistry, 'entry'>;
  readonly reporters: Pick<ReporterEnqueuer, 'takeOver' | 'isActive'>;
  readonly cache: Pick<ReporterCache, 'get' | 'entries'>;
  /** The tunnels in either form. */
  readonly mirrored: Pick<MirroredTunnels, 'reporterKeys'>;
  readonly replicas: Pick<ReplicaRegistry, 'expiredLeases' | 'isAlive'>;
  readonly fence: WriteFence;
  readonly readiness: Pick<Readiness, 'hasSynced'>;
  /** Deletes a Lease. Errors are ignored. */
  readonly leases: {
    delete(
      name: string,
      preconditions: { readonly uid: string; readonly resourceVersion: string },
    ): Promise<unknown>;
  };
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Ensures that every object has a live owner. The leader claims reporters whose owner does not hold a live Lease, and
 * orphaned objects (without a reporter object). Every replica claims reporters whose object names it as the owner
 * without a confirmed claim (a claim that timed out and took effect). From the claim on the replica is an owner without
 * a stream, which does not end with its leadership; before the claim it writes nothing.
 */
export class TakeoverController {
  readonly #options: TakeoverControllerOptions;
  /** Since when a reporter has appeared abandoned, by key. */
  #abandoned = new Map<string, number>();
  #stopScanning: (() => void) | undefined;

  constructor(options: TakeoverControllerOptions) {
    this.#options = options;
  }

  start(): void {
    const { clock, log } = this.#options;
    this.#stopScanning = runPeriodically(clock, log, {
      name: 'scan for abandoned reporters',
      intervalMs: SCAN_INTERVAL_MS,
      run: () => this.#scan(),
    });
  }

  stop(): void {
    this.#stopScanning?.();
  }

  #scan(): void {
    const { self, leader, readiness, fence, cache, mirrored, replicas, leases } = this.#options;
    if (!readiness.hasSynced || !fence.canWrite()) return;
    // If the watch of Leases does not show this replica's renewals, it shows no others, and all replicas would appear dead.
    if (!replicas.isAlive(self)) return;
    const isLeader = leader.isHeld;
    const stillAbandoned = new Map<string, number>();
    // A few replicas own all reporters, so each owner is evaluated once.
    const isAbandonedBy = new Map<string | undefined, boolean>();
    for (const [key, object] of cache.entries()) {
      const owner = object.status?.owner?.replica;
      let isAbandoned = isAbandonedBy.get(owner);
      if (isAbandoned === undefined)
        isAbandonedBy.set(owner, (isAbandoned = this.#isAbandoned(owner, isLeader)));
      if (isAbandoned) this.#track(stillAbandoned, key, reporterIdOf(object), false);
    }
    if (isLeader) {
      for (const key of mirrored.reporterKeys()) {
        if (cache.get(key) === undefined) this.#track(stillAbandoned, key, parseReporterKey(key), true);
      }
    }
    // Evaluated on all replicas, because this removes deleted Leases from the registry.
    for (const { metadata } of replicas.expiredLeases())
      if (isLeader) void leases.delete(metadata.name, metadata).catch(() => undefined);
    this.#abandoned = stillAbandoned;
  }

  #isAbandoned(owner: string | undefined, isLeader: boolean): boolean {
    const { self, fence } = this.#options;
    if (owner === self) return true;
    return isLeader && (owner === undefined || !fence.isAlive(owner));
  }

  #track(stillAbandoned: Map<string, number>, key: string, reporter: ReporterId, isOrphan: boolean): void {
    const { registry, reporters, clock } = this.#options;
    const entry = registry.entry(key);
    // A reporter that is connected to or owned by this replica is the business of the reporter controller.
    if (
      entry !== undefined &&
      (entry.stream !== undefined || entry.ownership.owns || reporters.isActive(entry))
    )
      return;
    const nowMs = clock.monotonicMs();
    const sinceMs = this.#abandoned.get(key) ?? nowMs;
    if (nowMs - sinceMs < ABANDONED_AFTER_MS) stillAbandoned.set(key, sinceMs);
    else reporters.takeOver(reporter, isOrphan);
  }
}
