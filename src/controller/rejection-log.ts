import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';

/** A quota that is used up refuses thousands of rows, each again and again: one line in this time stands for all. */
const LOG_INTERVAL_MS = 10_000;

/** Says that row writes are refused: the first at once, then one in 10 s with the number of those in between. */
export class RejectionLog {
  readonly #clock: Clock;
  readonly #log: Log;
  #lastLoggedMs = Number.NEGATIVE_INFINITY;
  #suppressed = 0;

  constructor(clock: Clock, log: Log) {
    this.#clock = clock;
    this.#log = log;
  }

  /** @param fields what was refused, for the line: its reporter, tunnel, verb and error */
  warn(fields: object): void {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#lastLoggedMs < LOG_INTERVAL_MS) {
      this.#suppressed += 1;
      return;
    }
    this.#log.warn(
      { ...fields, suppressed: this.#suppressed },
      'ReverseTunnel write rejected; retrying with backoff',
    );
    this.#lastLoggedMs = nowMs;
    this.#suppressed = 0;
  }
}
