import type { Clock } from '../clock.ts';

/** A flood must not fill the log: of each reason one line a minute, which says how many there were. */
const LOG_INTERVAL_MS = 60_000;
/** Reasons that are told apart; beyond it one line stands for all others. */
const TOLD_APART = 256;

/** @param say logs the line, with what is to stand in it beside */
export type SayOf = (reason: string, say: (more: { readonly suppressed?: number }) => void) => void;

/**
 * Lets of each reason one line a minute through, and tells it how many were left out since the last. Reasons may be
 * peers' own words: of those more than 256 in a minute are taken for one.
 */
export function sparingly(clock: Clock): SayOf {
  const logged = new Map<string, { readonly atMs: number; unsaid: number }>();

  function forgetOld(nowMs: number): void {
    for (const [key, { atMs }] of logged) if (nowMs - atMs >= LOG_INTERVAL_MS) logged.delete(key);
  }

  return (reason, say) => {
    const nowMs = clock.monotonicMs();
    if (!logged.has(reason) && logged.size >= TOLD_APART) forgetOld(nowMs);
    const key = logged.has(reason) || logged.size < TOLD_APART ? reason : '';
    const last = logged.get(key);
    if (last !== undefined && nowMs - last.atMs < LOG_INTERVAL_MS) {
      last.unsaid += 1;
      return;
    }
    const unsaid = last?.unsaid ?? 0;
    logged.set(key, { atMs: nowMs, unsaid: 0 });
    say(unsaid === 0 ? {} : { suppressed: unsaid });
  };
}
