/**
 * A span as kubectl shows ages, in one unit: `4s`, `12m`, `3h`, `2d`. Below two of a unit in the next smaller one, so that
 * `90s` is not `1m`. Less than a second, and the future: `0s`.
 */
export function formatAge(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3_600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}
