const MINUTE_S = 60;
const HOUR_S = 60 * MINUTE_S;
const DAY_S = 24 * HOUR_S;
const YEAR_S = 365 * DAY_S;

/**
 * Formats a duration in milliseconds as `kubectl get` shows it (`HumanDuration` of k8s.io/apimachinery): at most two
 * units, the smaller one only while it matters: `90s`, `5m10s`, `3h`. A duration of -2 s or less is `<invalid>`.
 */
export function humanDuration(ms: number): string {
  const seconds = Math.trunc(ms / 1000);
  if (seconds < -1) return '<invalid>';
  if (seconds < 2 * MINUTE_S) return `${Math.max(seconds, 0)}s`;
  if (seconds < 10 * MINUTE_S) return twoUnits(seconds, MINUTE_S, 'm', 1, 's');
  if (seconds < 3 * HOUR_S) return `${Math.trunc(seconds / MINUTE_S)}m`;
  if (seconds < 8 * HOUR_S) return twoUnits(seconds, HOUR_S, 'h', MINUTE_S, 'm');
  if (seconds < 2 * DAY_S) return `${Math.trunc(seconds / HOUR_S)}h`;
  if (seconds < 8 * DAY_S) return twoUnits(seconds, DAY_S, 'd', HOUR_S, 'h');
  if (seconds < 2 * YEAR_S) return `${Math.trunc(seconds / DAY_S)}d`;
  if (seconds < 8 * YEAR_S) return twoUnits(seconds, YEAR_S, 'y', DAY_S, 'd');
  return `${Math.trunc(seconds / YEAR_S)}y`;
}

function twoUnits(
  seconds: number,
  large: number,
  largeUnit: string,
  small: number,
  smallUnit: string,
): string {
  const remainder = Math.trunc((seconds % large) / small);
  return `${Math.trunc(seconds / large)}${largeUnit}${remainder === 0 ? '' : `${remainder}${smallUnit}`}`;
}
