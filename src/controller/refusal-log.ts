import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';

/** A quota that is used up refuses thousands of rows, each again and again: one line in this time stands for all. */
const ONE_LINE_IN_MS = 10_000;

/** Says that row writes are refused: the first at once, then one in 10 s with the number of those in between. */
export class RefusalLog {
  readonly #clock: Clock;
  readonly #log: Log;
  #saidMs = Number.NEGATIVE_INFINITY;
  #unsaid = 0;

  constructor(clock: Clock, log: Log) {
    this.#clock = clock;
    this.#log = log;
  }

  /** @param row what was refused, for the line: its reporter, tunnel, verb and error */
  refused(row: object): void {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#saidMs < ONE_LINE_IN_MS) {
      this.#unsaid += 1;
      return;
    }
    this.#log.warn(
      { ...row, suppressed: this.#unsaid },
      'ReverseTunnel write rejected; retrying with backoff',
    );
    this.#saidMs = nowMs;
    this.#unsaid = 0;
  }
}
