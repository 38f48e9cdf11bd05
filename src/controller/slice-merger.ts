import type { Clock } from '../clock.ts';
import type { Ledger } from '../core/ledger.ts';
import type { Log } from '../log.ts';
import { runPeriodically } from '../run-periodically.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { SliceAssignments } from './slice-assignments.ts';
import type { SliceEnqueuer } from './slice-enqueuer.ts';
import type { Workqueue } from './workqueue.ts';
import type { WriteAuthorizer } from './write-authorizer.ts';

const INTERVAL_MS = 10_000;
/** Merges of all reporters per interval. A merge costs two writes. */
const MERGES_PER_INTERVAL = 10;

export interface SliceMergerOptions {
  readonly ledger: Ledger;
  readonly assignments: SliceAssignments;
  readonly slices: SliceEnqueuer;
  readonly registry: ReporterRegistry;
  readonly writeAuthorizer: WriteAuthorizer;
  /** The queue of tunnels and slices. */
  readonly queue: Workqueue;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Merges half-empty slices of connected reporters for which no write waits for a worker: at most one pair of each
 * reporter per 10 s, and at most 10 pairs in total. The next round continues with the next reporter.
 */
export class SliceMerger {
  readonly #options: SliceMergerOptions;
  #stop: (() => void) | undefined;
  /** The reporter of the last merge. */
  #last: string | undefined;

  constructor(options: SliceMergerOptions) {
    this.#options = options;
  }

  start(): void {
    const { clock, log } = this.#options;
    this.#stop = runPeriodically(clock, log, {
      name: 'merge half-empty slices',
      intervalMs: INTERVAL_MS,
      run: () => this.#mergeSome(),
    });
  }

  stop(): void {
    this.#stop?.();
  }

  #mergeSome(): void {
    const { slices } = this.#options;
    let merges = 0;
    for (const key of this.#keys()) {
      if (merges === MERGES_PER_INTERVAL) return;
      if (!this.#isIdle(key) || !slices.mergeNext(key)) continue;
      merges += 1;
      this.#last = key;
    }
  }

  /** Returns the reporters in the order of their turns. */
  #keys(): string[] {
    const keys = [...this.#options.assignments.keys()];
    const next = this.#last === undefined ? 0 : keys.indexOf(this.#last) + 1;
    return [...keys.slice(next), ...keys.slice(0, next)];
  }

  #isIdle(key: string): boolean {
    const { ledger, registry, writeAuthorizer, queue } = this.#options;
    const entry = registry.entry(key);
    const isStable = ledger.isComplete(key) && ledger.heldRemovals(key) === undefined;
    if (entry?.stream === undefined || !isStable || !writeAuthorizer.canWrite(key)) return false;
    // Writes that the API server rejects, or that wait because a tunnel flaps, may wait for hours.
    return queue.pending(key) <= entry.pendingWrites.blockedCount;
  }
}
