import type { Clock } from '../clock.ts';
import { every } from '../every.ts';
import type { ReporterDriver } from './reporter-driver.ts';
import type { Lost, ReporterEntry } from './reporter-entry.ts';
import type { Standing } from './standing.ts';

/** How often the time of lost reporters is looked at, and how often a batch of rows is taken. */
const TICK_MS = 1000;
/** Rows marked or deleted a second, over all lost reporters: a third of what a small API server can do. */
const ROWS_A_TICK = 200;
/** Of one reporter, where many wait: as expiry costs a fresh read a batch, a batch is to be worth it. */
const LEAST_SHARE = 20;

/** Whose rows are to go, how one is queued, and after how long. */
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

interface Waiting {
  readonly entry: ReporterEntry;
  readonly lost: Lost;
  readonly turn: number;
}

/**
 * What becomes of reporters that are owned here and have no stream: their rows stay as they are, then say Unknown, then
 * go, then their object goes. Rows are taken a batch a second, so that thousands of lost tunnels leave the API server
 * room for those that live; before each batch of deletions the reporter's object is read anew (`Ownership.mayExpire`).
 */
export class LostReporters {
  readonly #parts: LostReportersParts;
  /** The place in the line: who was given rows goes to its end, who is new comes there. */
  readonly #turns = new WeakMap<Lost, number>();
  #lastTurn = 0;
  #end: (() => void) | undefined;

  constructor(parts: LostReportersParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#end = every(this.#parts.clock, TICK_MS, () => this.#tick());
  }

  stop(): void {
    this.#end?.();
  }

  #tick(): void {
    const { entries, standing, clock, unknownAfterMs } = this.#parts;
    const nowMs = clock.monotonicMs();
    const mayWrite = standing.mayWrite();
    const waiting: Waiting[] = [];
    for (const entry of entries()) {
      const { lost } = entry;
      if (lost === undefined) continue;
      lost.timer.look(nowMs, mayWrite);
      const phase = lost.timer.phase({ unknownAfterMs, expireAfterMs: lost.expireAfterMs });
      if (phase !== lost.phase) {
        lost.phase = phase;
        lost.todo = undefined;
      }
      if (phase !== 'lost' && mayWrite && entry.ownership.owns)
        waiting.push({ entry, lost, turn: this.#turnOf(lost) });
    }
    waiting.sort((a, b) => a.turn - b.turn);
    this.#share(waiting);
  }

  /** One with thousands of rows does not hold up those with a few: each has its share, and what is left over goes round. */
  #share(all: readonly Waiting[]): void {
    let left = ROWS_A_TICK;
    let waiting = all;
    do {
      const share = Math.max(LEAST_SHARE, Math.floor(left / waiting.length));
      const more: Waiting[] = [];
      for (const one of waiting) {
        const most = Math.min(share, left);
        const queued = this.#bringOn(one.entry, one.lost, most);
        left -= queued;
        if (queued > 0) this.#turns.set(one.lost, (this.#lastTurn += 1));
        if (queued === most) more.push(one);
      }
      waiting = more;
    } while (left > 0 && waiting.length > 0);
  }

  #turnOf(lost: Lost): number {
    const turn = this.#turns.get(lost) ?? (this.#lastTurn += 1);
    this.#turns.set(lost, turn);
    return turn;
  }

  /** Queues the next rows of a reporter, at most `most` of them; gives how many it were. */
  #bringOn(entry: ReporterEntry, lost: Lost, most: number): number {
    const { rowNames, queueOne, pending } = this.#parts;
    const { key } = entry;
    lost.todo ??= [...rowNames(key)];
    let queued = 0;
    while (queued < most) {
      const name = lost.todo.pop();
      if (name === undefined) break;
      if (queueOne(key, name)) queued += 1;
    }
    if (lost.todo.length > 0 || pending(key) > 0 || lost.phase !== 'expired') return queued;
    const [standing] = rowNames(key);
    // Some were refused, or came late: once more from the start.
    if (standing !== undefined) lost.todo = undefined;
    else this.#parts.driver.deleteObject(entry);
    return queued;
  }
}
