import type { Clock } from '../../src/clock.ts';

interface Timer {
  readonly dueMs: number;
  readonly callback: () => void;
}

/** Time that stands still until a test moves it. The wall clock begins at `startWallMs`; both clocks move together. */
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

  /** How long until each timer that waits, soonest first. */
  get pendingTimersMs(): number[] {
    return [...this.#timers].map(({ dueMs }) => dueMs - this.#nowMs).toSorted((a, b) => a - b);
  }

  /** Lets time pass, and runs what falls due on the way in its order, also what is set on the way. */
  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (let next = this.#next(); next !== undefined && next.dueMs <= untilMs; next = this.#next()) {
      this.#timers.delete(next);
      this.#nowMs = next.dueMs;
      next.callback();
    }
    this.#nowMs = untilMs;
  }

  /** Of equal times the one that was set first, as the machine's own timers. */
  #next(): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers) if (first === undefined || timer.dueMs < first.dueMs) first = timer;
    return first;
  }
}
