import type { Clock } from '../clock.ts';
import type { Ledger } from '../core/ledger.ts';
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
}

/**
 * Merges half-empty slices of connected reporters for which nothing waits to be written: at most one pair of each
 * reporter per 10 s, and at most 10 pairs in total.
 */
export class SliceMerger {
  readonly #options: SliceMergerOptions;
  #stop: (() => void) | undefined;

  constructor(options: SliceMergerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#stop = runPeriodically(this.#options.clock, INTERVAL_MS, () => this.#mergeSome());
  }

  stop(): void {
    this.#stop?.();
  }

  #mergeSome(): void {
    const { assignments, slices } = this.#options;
    let merges = 0;
    for (const key of assignments.keys()) {
      if (merges === MERGES_PER_INTERVAL) return;
      if (this.#isIdle(key) && slices.mergeNext(key)) merges += 1;
    }
  }

  #isIdle(key: string): boolean {
    const { ledger, registry, writeAuthorizer, queue } = this.#options;
    const isConnected = registry.entry(key)?.stream !== undefined;
    const isStable = ledger.isComplete(key) && ledger.heldRemovals(key) === undefined;
    return isConnected && isStable && queue.pending(key) === 0 && writeAuthorizer.canWrite(key);
  }
}
