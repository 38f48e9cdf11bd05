import type { Clock } from '../clock.ts';

/** A flood must not fill the log: of each reason one line a minute, which says how many there were. */
const LOG_INTERVAL_MS = 60_000;

/** @param say logs the line, with what is to stand in it beside */
export type SayOf = (reason: string, say: (more: { readonly moreSinceLastLine?: number }) => void) => void;

/** Lets of each reason one line a minute through, and tells it how many were left out since the last. */
export function sparingly(clock: Clock): SayOf {
  const logged = new Map<string, { readonly atMs: number; unsaid: number }>();
  return (reason, say) => {
    const nowMs = clock.monotonicMs();
    const last = logged.get(reason);
    if (last !== undefined && nowMs - last.atMs < LOG_INTERVAL_MS) {
      last.unsaid += 1;
      return;
    }
    const unsaid = last?.unsaid ?? 0;
    logged.set(reason, { atMs: nowMs, unsaid: 0 });
    say(unsaid === 0 ? {} : { moreSinceLastLine: unsaid });
  };
}
