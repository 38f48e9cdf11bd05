/** An exponential backoff: the delay doubles with each consecutive failure. */
export interface Backoff {
  /** Delay after the first failure. */
  readonly initialMs: number;
  readonly maxMs: number;
}

/** For failures that are likely to go away soon, such as an unavailable API server. */
export const RETRY: Backoff = { initialMs: 100, maxMs: 30_000 };
/** For rejections that last until a quota, a permission or a schema is changed. */
export const SLOW_RETRY: Backoff = { initialMs: 5000, maxMs: 300_000 };

/**
 * Returns the delay before the next attempt, in ms. The upper half of the delay is random, so that clients that failed
 * together do not retry together.
 *
 * @param failures consecutive failures; 0 counts as 1
 * @param random from 0 to 1
 */
export function backoffDelayMs({ initialMs, maxMs }: Backoff, failures: number, random: number): number {
  const fullMs = Math.min(maxMs, initialMs * 2 ** Math.min(Math.max(failures - 1, 0), 30));
  return fullMs * (0.5 + random / 2);
}
