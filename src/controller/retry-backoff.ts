/** A wait that doubles with each failure in a row. */
export interface Backoff {
  readonly initialMs: number;
  readonly maxMs: number;
}

/** What the API server may answer differently in a moment. */
export const RETRY: Backoff = { initialMs: 100, maxMs: 30_000 };
/** What stays refused until somebody changes something: a quota, a right, a schema. */
export const SLOW_RETRY: Backoff = { initialMs: 5000, maxMs: 300_000 };

/**
 * The wait before the next try, with the upper half left to chance, so that what failed together is not tried together.
 *
 * @param failures tries that failed in a row, at least 1
 * @param random 0 to 1
 */
export function retryDelayMs(backoff: Backoff, failures: number, random: number): number {
  const full = Math.min(backoff.maxMs, backoff.initialMs * 2 ** Math.min(failures - 1, 30));
  return full * (0.5 + random / 2);
}
