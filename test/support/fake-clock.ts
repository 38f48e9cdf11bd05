import type { Clock } from '../../src/clock.ts';

let pendingImmediates = 0;

/** Returns true while callbacks of `FakeClock.setImmediate` have not run yet. */
export function hasPendingImmediates(): boolean {
  return pendingImmediates > 0;
}

interface Timer {
  readonly dueMs: number;
  readonly callback: () => void;
}

/**
 * A clock that stands still until a test advances it. The wall clock starts at `startWallMs`; both clocks advance
 * together.
 */
export class FakeClock implements Clock {
  readonly #startWallMs: number;
  readonly #timers = new Set<Timer>();
  #nowMs = 0;

  constructor(startWallMs = Date.UTC(2026, 10, 23)) {
    this.#startWallMs = startWallMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#startWallMs + this.#nowMs;
  }

  setTimer(delayMs: number, callback: () => void): () => void {
    const timer = { dueMs: this.#nowMs + Math.max(delayMs, 0), callback };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  /** Calls `callback` in the next iteration of the real event loop; fake time does not pass. */
  setImmediate(callback: () => void): void {
    pendingImmediates += 1;
    setImmediate(() => {
      pendingImmediates -= 1;
      callback();
    });
  }

  /** Remaining time of each pending timer, shortest first. */
  get pendingTimersMs(): number[] {
    return [...this.#timers].map(({ dueMs }) => dueMs - this.#nowMs).toSorted((a, b) => a - b);
  }

  /** Advances the clock and runs the timers that become due, in order, including timers set on the way. */
  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (let next = this.#next(); next !== undefined && next.dueMs <= untilMs; next = this.#next()) {
      this.#timers.delete(next);
      this.#nowMs = next.dueMs;
      next.callback();
    }
    this.#nowMs = untilMs;
  }

  /** Advances the clock without running timers, as while a process is stopped, and then runs those that are due. */
  freeze(ms: number): void {
    this.#nowMs += ms;
    for (let next = this.#next(); next !== undefined && next.dueMs <= this.#nowMs; next = this.#next()) {
      this.#timers.delete(next);
      next.callback();
    }
  }

  /** Returns the next timer; of equal times, the one that was set first, as in Node. */
  #next(): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers) if (first === undefined || timer.dueMs < first.dueMs) first = timer;
    return first;
  }
}
