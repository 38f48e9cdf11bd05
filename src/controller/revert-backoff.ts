import type { Clock } from '../clock.ts';

interface Reverted {
  readonly times: number;
  /** When the wait for the last of these times is over. */
  readonly untilMs: number;
}

/** Undone once in a while is an accident; a row that stays as it is for this long has its history forgotten. */
const FORGET_AFTER_MS = 600_000;
const INITIAL_WAIT_MS = 1000;
const MAX_WAIT_MS = 300_000;
/** Rows whose history is kept: far more than a person edits, and a bound on what a program can make this remember. */
const MAX_TRACKED_OBJECTS = 10_000;

/**
 * How long to wait before a row that somebody else changed is put right again: not at all the first time, then 1 s
 * and twice as long each time, to 5 minutes. Two controllers that want a row to differ would else write without end.
 */
export class RevertBackoff {
  readonly #clock: Clock;
  readonly #reverted = new Map<string, Reverted>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Notes that a row was undone, and gives the wait in ms. While a wait is under way nothing was put right that could
   * be undone once more: then it gives what is left of that, so that many edits in a row count as one.
   */
  nextDelayMs(key: string, tunnelName: string): number {
    const id = `${key}\0${tunnelName}`;
    const nowMs = this.#clock.monotonicMs();
    const known = this.#reverted.get(id);
    if (known !== undefined && nowMs < known.untilMs) return known.untilMs - nowMs;
    const times = known !== undefined && nowMs - known.untilMs < FORGET_AFTER_MS ? known.times + 1 : 1;
    const waitMs = times === 1 ? 0 : Math.min(MAX_WAIT_MS, INITIAL_WAIT_MS * 2 ** (times - 2));
    // Put back at the end, so that the first in the map is the one longest left alone.
    this.#reverted.delete(id);
    this.#reverted.set(id, { times, untilMs: nowMs + waitMs });
    if (this.#reverted.size > MAX_TRACKED_OBJECTS) {
      const [oldest] = this.#reverted.keys();
      if (oldest !== undefined) this.#reverted.delete(oldest);
    }
    return waitMs;
  }
}
