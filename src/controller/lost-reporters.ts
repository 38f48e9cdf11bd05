import type { Clock } from '../clock.ts';
import type { ReporterDriver } from './reporter-driver.ts';
import type { Lost, ReporterEntry } from './reporter-entry.ts';
import type { Standing } from './standing.ts';

/** How often the time of lost reporters is looked at, and how often a batch of rows is taken. */
const TICK_MS = 1000;
/** Rows marked or deleted a second, over all lost reporters: a third of what a small API server can do. */
const ROWS_A_TICK = 200;

export interface LostReportersParts {
  readonly entries: () => Iterable<ReporterEntry>;
  readonly driver: Pick<ReporterDriver, 'pump' | 'deleteObject'>;
  readonly standing: Standing;
  /** Names of the reporter's tunnels that have a row. */
  readonly rowNames: (key: string) => Iterable<string>;
  /** Queues a row to be looked at; false when there is nothing to do for it. */
  readonly queueOne: (key: string, tunnelName: string) => boolean;
  /** Names of a reporter that the queue has not done with. */
  readonly pending: (key: string) => number;
  readonly unknownAfterMs: number;
  readonly clock: Clock;
}

/**
 * What becomes of reporters that are owned here and have no stream: their rows stay as they are, then say Unknown, then
 * go, then their object goes. Rows are taken a batch a second, so that thousands of lost tunnels leave the API server
 * room for those that live; before each batch of deletions the reporter's object is read anew (`Ownership.mayExpire`).
 */
export class LostReporters {
  readonly #parts: LostReportersParts;
  #cancelTick: (() => void) | undefined;
  #stopped = false;

  constructor(parts: LostReportersParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#tickLater();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelTick?.();
  }

  #tickLater(): void {
    if (this.#stopped) return;
    this.#cancelTick = this.#parts.clock.setTimer(TICK_MS, () => {
      this.#tick();
      this.#tickLater();
    });
  }

  #tick(): void {
    const { entries, standing, clock, unknownAfterMs } = this.#parts;
    const nowMs = clock.monotonicMs();
    const mayWrite = standing.mayWrite();
    let left = ROWS_A_TICK;
    for (const entry of entries()) {
      const { lost } = entry;
      if (lost === undefined) continue;
      lost.timer.look(nowMs, mayWrite);
      const phase = lost.timer.phase({ unknownAfterMs, expireAfterMs: lost.expireAfterMs });
      if (phase !== lost.phase) {
        lost.phase = phase;
        lost.todo = undefined;
      }
      if (phase !== 'lost' && mayWrite && entry.ownership.owns) left = this.#bringOn(entry, lost, left);
    }
  }

  /** Queues the next rows of a reporter, at most `left` of them; gives how many more may be queued. */
  #bringOn(entry: ReporterEntry, lost: Lost, left: number): number {
    const { rowNames, queueOne, pending } = this.#parts;
    const { key } = entry;
    lost.todo ??= [...rowNames(key)];
    let remaining = left;
    while (remaining > 0) {
      const name = lost.todo.pop();
      if (name === undefined) break;
      if (queueOne(key, name)) remaining -= 1;
    }
    if (lost.todo.length > 0 || pending(key) > 0 || lost.phase !== 'expired') return remaining;
    const [standing] = rowNames(key);
    // Some were refused, or came late: once more from the start.
    if (standing !== undefined) lost.todo = undefined;
    else this.#parts.driver.deleteObject(entry);
    return remaining;
  }
}
