import type { Clock } from '../clock.ts';
import type { ReporterId } from '../core/tunnel.ts';
import type { Log } from '../log.ts';
import { sparingly } from './sparing-log.ts';

/** Says whose streams policies end. */
export interface DenialLog {
  /** @param reporter undefined where the stream has not said */
  denied(reporter: ReporterId | undefined, refusal: string): void;
}

/** One line a minute for the same refusal: an Envoy that is denied comes back every 5 s, and a fleet of them too. */
export function createDenialLog(clock: Clock, log: Log): DenialLog {
  const say = sparingly(clock);
  return {
    denied(reporter, refusal) {
      say(refusal, (more) => log.warn({ reporter, error: refusal, ...more }, 'stream denied by policy'));
    },
  };
}
