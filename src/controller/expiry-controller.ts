import type { Clock } from '../clock.ts';
import { runPeriodically } from '../run-periodically.ts';
import type { ReporterReconciler } from './reporter-reconciler.ts';
import type { DisconnectedState, ReporterEntry } from './reporter-entry.ts';
import type { WriteFence } from './write-fence.ts';

/** How often the time of lost reporters is looked at, and how often a batch of rows is taken. */
const TICK_INTERVAL_MS = 1000;
/** Rows marked or deleted a second, over all lost reporters: a third of what a small API server can do. */
const OBJECTS_PER_TICK = 200;
/** Of one reporter, where many wait: as expiry costs a fresh read a batch, a batch is to be worth it. */
const MIN_SHARE = 20;

/** Whose rows are to go, how one is queued, and after how long. */
export interface ExpiryControllerOptions {
  readonly entries: () => Iterable<ReporterEntry>;
  readonly reconciler: Pick<ReporterReconciler, 'reconcile' | 'deleteObject'>;
  readonly fence: WriteFence;
  /** Names of the reporter's tunnels that have a row. */
  readonly objectNames: (key: string) => Iterable<string>;
  /** Queues a row to be looked at; false when there is nothing to do for it. */
  readonly enqueue: (key: string, tunnelName: string) => boolean;
  /** Names of a reporter that the queue has not done with. */
  readonly pending: (key: string) => number;
  readonly unknownAfterMs: number;
  readonly clock: Clock;
}

interface ExpiryCandidate {
  readonly entry: ReporterEntry;
  readonly disconnected: DisconnectedState;
  readonly position: number;
}

/**
 * What becomes of reporters that are owned here and have no stream: their rows stay as they are, then say Unknown, then
 * go, then their object goes. Rows are taken a batch a second, so that thousands of lost tunnels leave the API server
 * room for those that live; before each batch of deletions the reporter's object is read anew (`Ownership.mayExpire`).
 */
export class ExpiryController {
  readonly #options: ExpiryControllerOptions;
  /** The place in the line: who was given rows goes to its end, who is new comes there. */
  readonly #positions = new WeakMap<DisconnectedState, number>();
  #lastPosition = 0;
  #stopTicking: (() => void) | undefined;

  constructor(options: ExpiryControllerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#stopTicking = runPeriodically(this.#options.clock, TICK_INTERVAL_MS, () => this.#tick());
  }

  stop(): void {
    this.#stopTicking?.();
  }

  #tick(): void {
    const { entries, fence, clock, unknownAfterMs } = this.#options;
    const nowMs = clock.monotonicMs();
    const canWrite = fence.canWrite();
    const candidates: ExpiryCandidate[] = [];
    for (const entry of entries()) {
      const { disconnected } = entry;
      if (disconnected === undefined) continue;
      disconnected.timer.tick(nowMs, canWrite);
      const phase = disconnected.timer.phase({ unknownAfterMs, expireAfterMs: disconnected.expireAfterMs });
      if (phase !== disconnected.phase) {
        disconnected.phase = phase;
        disconnected.remaining = undefined;
      }
      if (phase !== 'grace' && canWrite && entry.ownership.owns)
        candidates.push({ entry, disconnected, position: this.#positionOf(disconnected) });
    }
    candidates.sort((a, b) => a.position - b.position);
    this.#distribute(candidates);
  }

  /** One with thousands of rows does not hold up those with a few: each has its share, and what is left over goes round. */
  #distribute(all: readonly ExpiryCandidate[]): void {
    let budget = OBJECTS_PER_TICK;
    let candidates = all;
    do {
      const share = Math.max(MIN_SHARE, Math.floor(budget / candidates.length));
      const unfinished: ExpiryCandidate[] = [];
      for (const candidate of candidates) {
        const limit = Math.min(share, budget);
        const queued = this.#expireBatch(candidate.entry, candidate.disconnected, limit);
        budget -= queued;
        if (queued > 0) this.#positions.set(candidate.disconnected, (this.#lastPosition += 1));
        if (queued === limit) unfinished.push(candidate);
      }
      candidates = unfinished;
    } while (budget > 0 && candidates.length > 0);
  }

  #positionOf(disconnected: DisconnectedState): number {
    const position = this.#positions.get(disconnected) ?? (this.#lastPosition += 1);
    this.#positions.set(disconnected, position);
    return position;
  }

  /** Queues the next rows of a reporter, at most `most` of them; gives how many it were. */
  #expireBatch(entry: ReporterEntry, disconnected: DisconnectedState, limit: number): number {
    const { objectNames, enqueue, pending } = this.#options;
    const { key } = entry;
    disconnected.remaining ??= [...objectNames(key)];
    let queued = 0;
    while (queued < limit) {
      const name = disconnected.remaining.pop();
      if (name === undefined) break;
      if (enqueue(key, name)) queued += 1;
    }
    if (disconnected.remaining.length > 0 || pending(key) > 0 || disconnected.phase !== 'expired')
      return queued;
    const [remainingName] = objectNames(key);
    // Some were refused, or came late: once more from the start.
    if (remainingName !== undefined) disconnected.remaining = undefined;
    else this.#options.reconciler.deleteObject(entry);
    return queued;
  }
}
