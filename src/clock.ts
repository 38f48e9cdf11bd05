/** A source of time. Code that waits or measures takes one as an argument, so that tests control the time. */
export interface Clock {
  /** Milliseconds since an arbitrary moment, with fractions; never decreases. For durations and deadlines. */
  monotonicMs(): number;
  /** Milliseconds since 1970 in UTC, according to the machine. For timestamps and expiry dates set by other machines. */
  wallMs(): number;
  /**
   * Calls `callback` once after `delayMs` (at least 0).
   *
   * @returns a function that cancels the timer; it can be called at any time and more than once
   */
  setTimer(delayMs: number, callback: () => void): () => void;
}

/** The clock of the machine. Its timers keep the process alive until they fire or are cancelled. */
export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  setTimer(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};
