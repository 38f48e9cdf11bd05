import { delayMs, newBucket, take, type Rate } from '../core/token-bucket.ts';

const MIN_RATE: Rate = { burst: 50, perSecond: 2 };
/** Each reporter can write within this time, however many there are. */
const MAX_DELAY_SECONDS = 300;
/** When to try again. The writes of this time are possible at once. */
export const STATUS_RETRY_MS = 10_000;

/**
 * Limits the status writes of all reporters of this replica that can wait: those in which only counts or messages changed,
 * and those that report a backlog. 50 are possible at once, then 2 per second, and more if there are more than 600
 * reporters. Each costs the API server more than a write of an object does. Without a limit, each change of a tunnel
 * would cause one, and when the objects of many reporters change at the same time, they would all wait for two of each.
 */
export class StatusBudget {
  readonly #bucket = newBucket();

  /** Returns true if a write is possible now. */
  isAvailable(reporterCount: number, nowMs: number): boolean {
    return delayMs(this.#bucket, rateFor(reporterCount), nowMs) === 0;
  }

  /** Records a write. */
  take(reporterCount: number, nowMs: number): void {
    take(this.#bucket, rateFor(reporterCount), nowMs);
  }
}

function rateFor(reporterCount: number): Rate {
  const perSecond = Math.max(MIN_RATE.perSecond, reporterCount / MAX_DELAY_SECONDS);
  return { burst: Math.max(MIN_RATE.burst, (perSecond * STATUS_RETRY_MS) / 1000), perSecond };
}
