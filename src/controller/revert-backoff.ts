import { LRUCache } from 'lru-cache';
import type { Clock } from '../clock.ts';

interface Reverted {
  readonly times: number;
  /** When the delay before the last revert ends. */
  readonly untilMs: number;
}

/** An object that was not reverted for this long starts without a delay again. */
const RESET_AFTER_MS = 600_000;
const INITIAL_DELAY_MS = 1000;
const MAX_DELAY_MS = 300_000;
/** Objects that are tracked: far more than a person edits, and a bound on the memory that a program can cause to be used. */
const MAX_TRACKED_OBJECTS = 10_000;

/**
 * The delay before an external change of an object is reverted: none the first time, then 1 s, doubling up to 5 min.
 * Without it, two controllers that want different states of an object would write it in a loop.
 */
export class RevertBackoff {
  readonly #clock: Clock;
  /** Limited by size, because `max` allocates memory for that many entries in advance. */
  readonly #reverted = new LRUCache<string, Reverted>({
    maxSize: MAX_TRACKED_OBJECTS,
    sizeCalculation: () => 1,
  });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Records an external change, and returns the delay before it may be reverted, in ms. During a delay nothing was
   * reverted that could have been changed again, so further changes count as the same one and return the remaining delay.
   */
  nextDelayMs(key: string, tunnelName: string): number {
    const id = `${key}\0${tunnelName}`;
    const nowMs = this.#clock.monotonicMs();
    const known = this.#reverted.peek(id);
    if (known !== undefined && nowMs < known.untilMs) return known.untilMs - nowMs;
    const times = known !== undefined && nowMs - known.untilMs < RESET_AFTER_MS ? known.times + 1 : 1;
    const delayMs = times === 1 ? 0 : Math.min(MAX_DELAY_MS, INITIAL_DELAY_MS * 2 ** (times - 2));
    this.#reverted.set(id, { times, untilMs: nowMs + delayMs });
    return delayMs;
  }
}
