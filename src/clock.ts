/** A clock that is passed as an argument, so that tests can control the time of everything that waits or measures. */
export interface Clock {
  /** Returns milliseconds, with fractions, since an arbitrary moment. Never goes back. For durations and deadlines. */
  monotonicMs(): number;
  /** Returns milliseconds since 1970 in UTC by the machine's clock. For timestamps and expiry dates of other machines. */
  wallMs(): number;
  /**
   * Calls `callback` once after `delayMs` (at least 0).
   *
   * @returns a function that cancels the call; it may be called at any time, and more than once
   */
  setTimer(delayMs: number, callback: () => void): () => void;
  /** Calls `callback` once on a later tick, after everything that the current tick writes was handed to the kernel. */
  setImmediate(callback: () => void): void;
}

/** Node's limit, 24.8 days: it calls a timer with a longer delay back at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * The machine's clock. Its timers keep the process alive until they fire or are cancelled. A delay of more than 24.8 days
 * is shortened to that.
 */
export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  setTimer(delayMs, callback) {
    const timer = setTimeout(callback, Math.min(delayMs, MAX_TIMER_MS));
    return () => clearTimeout(timer);
  },
  setImmediate(callback) {
    setImmediate(callback);
  },
};
