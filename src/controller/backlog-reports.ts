import { delayMs, newBucket, take, type Rate } from '../core/token-bucket.ts';

const MIN_RATE: Rate = { burst: 50, perSecond: 2 };
/** All backlogs are reported within this time, however many reporters there are. */
const MAX_DELAY_SECONDS = 300;
/** The interval at which a waiting report is tried again; the reports of this time are possible at once. */
const RETRY_SECONDS = 10;

/**
 * Limits the status writes that report a backlog: 50 at once, then 2 per second, and more if there are more than 600
 * reporters. When the objects of many reporters change at the same time, they all wait until the last ones are written,
 * and two status writes of each, which cost the API server as much as five objects, would make all of them wait longer.
 */
export class BacklogReports {
  readonly #bucket = newBucket();

  /** Returns true if a backlog may be reported now. */
  isAllowed(reporterCount: number, nowMs: number): boolean {
    return delayMs(this.#bucket, rateFor(reporterCount), nowMs) === 0;
  }

  /** Records a report. */
  report(reporterCount: number, nowMs: number): void {
    take(this.#bucket, rateFor(reporterCount), nowMs);
  }
}

function rateFor(reporterCount: number): Rate {
  const perSecond = Math.max(MIN_RATE.perSecond, reporterCount / MAX_DELAY_SECONDS);
  return { burst: Math.max(MIN_RATE.burst, perSecond * RETRY_SECONDS), perSecond };
}
