import type { Clock } from '../clock.ts';
import type { ReporterId } from '../core/tunnel.ts';
import type { Log } from '../log.ts';
import { createLogThrottle } from '../log-throttle.ts';

/** Says whose streams policies end. */
export interface DenialLog {
  /** @param reporter undefined where the stream has not said */
  denied(reporter: ReporterId | undefined, rejection: string): void;
}

/** One line a minute for the same refusal: an Envoy that is denied comes back every 5 s, and a fleet of them too. */
export function createDenialLog(clock: Clock, log: Log): DenialLog {
  const throttled = createLogThrottle(clock);
  return {
    denied(reporter, rejection) {
      throttled(rejection, (more) =>
        log.warn({ reporter, error: rejection, ...more }, 'stream denied by policy'),
      );
    },
  };
}
