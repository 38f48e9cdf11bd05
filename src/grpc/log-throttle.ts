import type { Clock } from '../clock.ts';

/** A flood must not fill the log: of each reason one line a minute, which says how many there were. */
const LOG_INTERVAL_MS = 60_000;
/** Reasons that are told apart; beyond it one line stands for all others. */
const MAX_KEYS = 256;

/** @param say logs the line, with what is to stand in it beside */
export type LogThrottle = (reason: string, emit: (more: { readonly suppressed?: number }) => void) => void;

/**
 * Lets of each reason one line a minute through, and tells it how many were left out since the last. Reasons may be
 * peers' own words: of those more than 256 in a minute are taken for one.
 */
export function createLogThrottle(clock: Clock): LogThrottle {
  const logged = new Map<string, { readonly lastLoggedMs: number; suppressed: number }>();

  function forgetOld(nowMs: number): void {
    for (const [key, { lastLoggedMs }] of logged)
      if (nowMs - lastLoggedMs >= LOG_INTERVAL_MS) logged.delete(key);
  }

  return (reason, emit) => {
    const nowMs = clock.monotonicMs();
    if (!logged.has(reason) && logged.size >= MAX_KEYS) forgetOld(nowMs);
    const key = logged.has(reason) || logged.size < MAX_KEYS ? reason : '';
    const last = logged.get(key);
    if (last !== undefined && nowMs - last.lastLoggedMs < LOG_INTERVAL_MS) {
      last.suppressed += 1;
      return;
    }
    const suppressed = last?.suppressed ?? 0;
    logged.set(key, { lastLoggedMs: nowMs, suppressed: 0 });
    emit(suppressed === 0 ? {} : { suppressed: suppressed });
  };
}
