import type { Clock } from './clock.ts';

const DEFAULT_INTERVAL_MS = 60_000;
/** Keys that are tracked per interval; all further keys share one line. */
const MAX_KEYS = 256;

/**
 * Calls `emit` at most once per key and interval.
 *
 * @param key what counts as the same line, for example a rejection reason; may be text that a peer chose
 * @param emit logs the line and adds the given fields to it: `suppressed` is the number of calls since the
 *   previous line of this key, absent if there were none
 */
export type LogThrottle = (key: string, emit: (fields: { readonly suppressed?: number }) => void) => void;

/**
 * Creates a throttle that lets one line per key and interval through, so that a flood of equal events cannot fill the log.
 * It tracks at most 256 keys per interval, because keys may be text that peers make up.
 *
 * @param intervalMs default 1 minute
 */
export function createLogThrottle(clock: Clock, intervalMs = DEFAULT_INTERVAL_MS): LogThrottle {
  const logged = new Map<string, { readonly lastLoggedMs: number; suppressed: number }>();

  function removeExpired(nowMs: number): void {
    for (const [key, { lastLoggedMs }] of logged) if (nowMs - lastLoggedMs >= intervalMs) logged.delete(key);
  }

  return (requestedKey, emit) => {
    const nowMs = clock.monotonicMs();
    if (!logged.has(requestedKey) && logged.size >= MAX_KEYS) removeExpired(nowMs);
    const key = logged.has(requestedKey) || logged.size < MAX_KEYS ? requestedKey : '';
    const last = logged.get(key);
    if (last !== undefined && nowMs - last.lastLoggedMs < intervalMs) {
      last.suppressed += 1;
      return;
    }
    const suppressed = last?.suppressed ?? 0;
    logged.set(key, { lastLoggedMs: nowMs, suppressed: 0 });
    emit(suppressed === 0 ? {} : { suppressed });
  };
}
