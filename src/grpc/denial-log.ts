import type { Clock } from '../clock.ts';
import type { ReporterId } from '../core/tunnel.ts';
import type { Log } from '../log.ts';

/** An Envoy that is denied comes back every 5 s, and a fleet of them must not fill the log. */
const LOG_INTERVAL_MS = 60_000;
/** Denials that are told apart; beyond it one line stands for all others. */
const TOLD_APART = 256;

/** Says whose streams policies end. */
export interface DenialLog {
  /** @param reporter undefined where the stream has not said */
  denied(reporter: ReporterId | undefined, refusal: string): void;
}

/** One line a minute for the same refusal, with how often it came since the last one. */
export function createDenialLog(clock: Clock, log: Log): DenialLog {
  const said = new Map<string, { atMs: number; unsaid: number }>();

  function forgetOld(nowMs: number): void {
    for (const [key, { atMs }] of said) if (nowMs - atMs >= LOG_INTERVAL_MS) said.delete(key);
  }

  return {
    denied(reporter, refusal) {
      const nowMs = clock.monotonicMs();
      if (!said.has(refusal) && said.size >= TOLD_APART) forgetOld(nowMs);
      const key = said.has(refusal) || said.size < TOLD_APART ? refusal : '';
      const last = said.get(key);
      if (last !== undefined && nowMs - last.atMs < LOG_INTERVAL_MS) {
        last.unsaid += 1;
        return;
      }
      said.set(key, { atMs: nowMs, unsaid: 0 });
      const more = last === undefined || last.unsaid === 0 ? {} : { moreSinceLastLine: last.unsaid };
      log.warn({ reporter, ...more }, `stream denied: ${refusal}`);
    },
  };
}
