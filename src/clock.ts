/**
 * Time as an argument: what waits or measures takes a `Clock`, so that tests can let hours pass in a moment.
 */
export interface Clock {
  /** Milliseconds since some fixed moment, with fractions; never goes back. For durations and deadlines. */
  monotonicMs(): number;
  /** Milliseconds since 1970 in UTC, as the machine believes. For timestamps and other machines' expiry dates. */
  wallMs(): number;
  /** Calls `callback` once after `delayMs` (at least 0). The answer cancels it, and may be called at any time, also twice. */
  setTimer(delayMs: number, callback: () => void): () => void;
}

/** The machine's own clock. Its timers keep the process alive until they have fired or are cancelled. */
export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  setTimer(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};
