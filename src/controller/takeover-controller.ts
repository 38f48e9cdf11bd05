import type { Clock } from '../clock.ts';
import { reporterIdOf } from '../core/reporter-object.ts';
import { parseReporterKey, type ReporterId } from '../core/tunnel.ts';
import { runPeriodically } from '../run-periodically.ts';
import type { ObservedLease, ReplicaRegistry } from './replica-registry.ts';
import type { ReporterCache } from './reporter-cache.ts';
import type { ReporterController } from './reporter-controller.ts';
import type { WriteFence } from './write-fence.ts';

const SCAN_INTERVAL_MS = 2000;
/**
 * Rows, reporters and Leases are three watches without a common order: what looks abandoned has to look so for this
 * long. A mistake would cost writes, never rows: the claim's precondition and its reader's next report mend it.
 */
const ABANDONED_AFTER_MS = 5000;

/** What the leader has to know of others to take over what they left. */
export interface TakeoverControllerOptions {
  readonly self: string;
  readonly isLeader: () => boolean;
  readonly reporters: Pick<ReporterController, 'entry' | 'takeOver'>;
  readonly cache: ReporterCache;
  /** Reporters that have rows, by key. */
  readonly reportersWithObjects: () => Iterable<string>;
  readonly registry: Pick<ReplicaRegistry, 'expiredLeases' | 'isAlive'>;
  readonly fence: WriteFence;
  readonly hasSynced: () => boolean;
  /** Deletes a Lease; what it rejects with is not looked at. */
  readonly deleteLease: (lease: ObservedLease) => Promise<void>;
  readonly clock: Clock;
}

/**
 * Sees to it that every row has an owner that lives. The leader claims reporters whose owner holds no live Lease, and
 * rows without any reporter's object; each replica claims again what is written to its own name without being its own
 * (a claim that timed out and landed). From the claim on it is an owner without a stream like any other, also when it
 * leads no more; until the claim it touches nothing.
 */
export class TakeoverController {
  readonly #options: TakeoverControllerOptions;
  /** Since when a reporter has looked abandoned, by key. */
  #abandoned = new Map<string, number>();
  #stopScanning: (() => void) | undefined;

  constructor(options: TakeoverControllerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#stopScanning = runPeriodically(this.#options.clock, SCAN_INTERVAL_MS, () => this.#scan());
  }

  stop(): void {
    this.#stopScanning?.();
  }

  #scan(): void {
    const { self, isLeader, hasSynced, fence, cache, reportersWithObjects, registry, deleteLease } =
      this.#options;
    if (!hasSynced() || !fence.canWrite()) return;
    // A watch of Leases that does not show this replica's own renewals shows nobody's: all others would look dead.
    if (!registry.isAlive(self)) return;
    const leading = isLeader();
    const stillAbandoned = new Map<string, number>();
    // A few replicas own all reporters: each is judged once.
    const abandoned = new Map<string | undefined, boolean>();
    for (const [key, object] of cache.entries()) {
      const owner = object.status?.owner?.replica;
      let isAbandoned = abandoned.get(owner);
      if (isAbandoned === undefined) abandoned.set(owner, (isAbandoned = this.#isAbandoned(owner, leading)));
      if (isAbandoned) this.#track(stillAbandoned, key, reporterIdOf(object), false);
    }
    if (leading) {
      for (const key of reportersWithObjects()) {
        if (cache.get(key) === undefined) this.#track(stillAbandoned, key, parseReporterKey(key), true);
      }
    }
    // Also by those that do not lead, whose memory of the dead ends here.
    for (const lease of registry.expiredLeases()) if (leading) void deleteLease(lease).catch(() => undefined);
    this.#abandoned = stillAbandoned;
  }

  #isAbandoned(owner: string | undefined, leading: boolean): boolean {
    const { self, fence } = this.#options;
    if (owner === self) return true;
    return leading && (owner === undefined || !fence.isAlive(owner));
  }

  #track(stillAbandoned: Map<string, number>, key: string, reporter: ReporterId, isOrphan: boolean): void {
    const { reporters, clock } = this.#options;
    const entry = reporters.entry(key);
    // Served or owned here: then what is to be done about it is decided there.
    if (entry !== undefined && (entry.stream !== undefined || entry.ownership.owns || entry.busy)) return;
    const nowMs = clock.monotonicMs();
    const sinceMs = this.#abandoned.get(key) ?? nowMs;
    if (nowMs - sinceMs < ABANDONED_AFTER_MS) stillAbandoned.set(key, sinceMs);
    else reporters.takeOver(reporter, isOrphan);
  }
}
