import type { Clock } from '../clock.ts';

/** Time after which a sample no longer counts is one to two windows: long enough for many samples, too short for drift. */
const WINDOW_MS = 60_000;

/**
 * The clock of the API server, estimated from the `Date` headers of its responses and this process's monotonic clock. It
 * does not depend on the wall clock of this machine, so replicas on machines with different clocks agree.
 *
 * A response that was received at m and carries the date D, which has a resolution of seconds, proves that the clock of
 * the API server was at D or later at m. The estimate is the latest such bound. It is therefore never ahead of the API
 * server, and at most 1 s plus the latency of the best recent response behind it.
 */
export class ServerClock {
  readonly #clock: Clock;
  #lastDate = '';
  #windowStartMs = Number.NEGATIVE_INFINITY;
  /** Time of the API server minus monotonic time: the highest of the current and of the previous window. */
  #offsetMs = Number.NEGATIVE_INFINITY;
  #previousOffsetMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Records the `Date` header of a response that has just been received; ignores anything that is not a date. */
  observe(date: string): void {
    // The first response of a second gives the best bound. This also makes the hot path one comparison.
    if (date === this.#lastDate) return;
    const dateMs = Date.parse(date);
    if (Number.isNaN(dateMs)) return;
    this.#lastDate = date;
    const nowMs = this.#clock.monotonicMs();
    const ageMs = nowMs - this.#windowStartMs;
    if (ageMs >= WINDOW_MS) {
      this.#previousOffsetMs = ageMs < 2 * WINDOW_MS ? this.#offsetMs : Number.NEGATIVE_INFINITY;
      this.#offsetMs = Number.NEGATIVE_INFINITY;
      this.#windowStartMs = nowMs;
    }
    this.#offsetMs = Math.max(this.#offsetMs, dateMs - nowMs);
  }

  /** Returns the time in milliseconds since 1970; undefined before the first response with a date. */
  nowMs(): number | undefined {
    const offsetMs = Math.max(this.#offsetMs, this.#previousOffsetMs);
    return Number.isFinite(offsetMs) ? offsetMs + this.#clock.monotonicMs() : undefined;
  }
}
