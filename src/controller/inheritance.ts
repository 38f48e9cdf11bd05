import type { Clock } from '../clock.ts';
import { reporterOf } from '../core/reporter-object.ts';
import { reporterOfKey, type ReporterId } from '../core/tunnel.ts';
import { every } from '../every.ts';
import type { LeaseSeen, ReplicaDirectory } from './replica-directory.ts';
import type { ReporterCache } from './reporter-cache.ts';
import type { Reporters } from './reporters.ts';
import type { Standing } from './standing.ts';

const SCAN_EVERY_MS = 2000;
/**
 * Rows, reporters and Leases are three watches without a common order: what looks abandoned has to look so for this
 * long. A mistake would cost writes, never rows: the claim's precondition and its reader's next report mend it.
 */
const ABANDONED_FOR_MS = 5000;

/** What the leader has to know of others to take over what they left. */
export interface InheritanceParts {
  readonly self: string;
  readonly isLeader: () => boolean;
  readonly reporters: Pick<Reporters, 'entry' | 'inherit'>;
  readonly cache: ReporterCache;
  /** Reporters that have rows, by key. */
  readonly reportersWithRows: () => Iterable<string>;
  readonly directory: Pick<ReplicaDirectory, 'longDead' | 'isAlive'>;
  readonly standing: Standing;
  readonly isListed: () => boolean;
  /** Deletes a Lease; what it rejects with is not looked at. */
  readonly deleteLease: (lease: LeaseSeen) => Promise<void>;
  readonly clock: Clock;
}

/**
 * Sees to it that every row has an owner that lives. The leader claims reporters whose owner holds no live Lease, and
 * rows without any reporter's object; each replica claims again what is written to its own name without being its own
 * (a claim that timed out and landed). From the claim on it is an owner without a stream like any other, also when it
 * leads no more; until the claim it touches nothing.
 */
export class Inheritance {
  readonly #parts: InheritanceParts;
  /** Since when a reporter has looked abandoned, by key. */
  #abandoned = new Map<string, number>();
  #end: (() => void) | undefined;

  constructor(parts: InheritanceParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#end = every(this.#parts.clock, SCAN_EVERY_MS, () => this.#scan());
  }

  stop(): void {
    this.#end?.();
  }

  #scan(): void {
    const { self, isLeader, isListed, standing, cache, reportersWithRows, directory, deleteLease } =
      this.#parts;
    if (!isListed() || !standing.mayWrite()) return;
    // A watch of Leases that does not show this replica's own renewals shows nobody's: all others would look dead.
    if (!directory.isAlive(self)) return;
    const leads = isLeader();
    const still = new Map<string, number>();
    // A few replicas own all reporters: each is judged once.
    const abandoned = new Map<string | undefined, boolean>();
    for (const [key, object] of cache.entries()) {
      const owner = object.status?.owner?.replica;
      let is = abandoned.get(owner);
      if (is === undefined) abandoned.set(owner, (is = this.#isAbandoned(owner, leads)));
      if (is) this.#note(still, key, reporterOf(object), false);
    }
    if (leads) {
      for (const key of reportersWithRows()) {
        if (cache.get(key) === undefined) this.#note(still, key, reporterOfKey(key), true);
      }
    }
    // Also by those that do not lead, whose memory of the dead ends here.
    for (const lease of directory.longDead()) if (leads) void deleteLease(lease).catch(() => undefined);
    this.#abandoned = still;
  }

  #isAbandoned(owner: string | undefined, leads: boolean): boolean {
    const { self, standing } = this.#parts;
    if (owner === self) return true;
    return leads && (owner === undefined || !standing.isAlive(owner));
  }

  #note(still: Map<string, number>, key: string, reporter: ReporterId, orphan: boolean): void {
    const { reporters, clock } = this.#parts;
    const entry = reporters.entry(key);
    // Served or owned here: then what is to be done about it is decided there.
    if (entry !== undefined && (entry.stream !== undefined || entry.ownership.owns || entry.busy)) return;
    const nowMs = clock.monotonicMs();
    const sinceMs = this.#abandoned.get(key) ?? nowMs;
    if (nowMs - sinceMs < ABANDONED_FOR_MS) still.set(key, sinceMs);
    else reporters.inherit(reporter, orphan);
  }
}
