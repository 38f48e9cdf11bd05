/**
 * The wait before another try after `failures` failures in a row: doubling from `baseMs`, at most `maxMs`, of which a
 * random half is taken off so that replicas that failed together do not come back together.
 *
 * @param random gives numbers from 0 to below 1
 */
export function jitteredBackoffMs(
  failures: number,
  baseMs: number,
  maxMs: number,
  random: () => number,
): number {
  const fullMs = Math.min(maxMs, baseMs * 2 ** Math.min(Math.max(failures - 1, 0), 30));
  return fullMs * (0.5 + random() / 2);
}
