import type { Clock } from '../clock.ts';

/** Time after which a sample no longer counts is one to two windows: long enough for many samples, too short for drift. */
const WINDOW_MS = 60_000;

/** A wall clock that gains more than this on the monotonic clock shows that the machine was suspended. */
const MIN_SUSPENDED_MS = 1000;

/**
 * The clock of the API server, estimated from the `Date` headers of its responses and this process's monotonic clock. It
 * does not depend on what the wall clock of this machine shows, so replicas on machines with different clocks agree.
 *
 * A response that was received at m and carries the date D, which has a resolution of seconds, proves that the clock of
 * the API server was at D or later at m. The estimate is the latest such bound. It is therefore never ahead of the API
 * server, and at most 1 s plus the latency of the best recent response behind it. The monotonic clock stands still while a
 * machine is suspended; until the next response, the wall clock shows for how long. Only a wall clock that is set forward
 * between two responses makes the estimate run ahead, until the second one; `maxAheadMs` returns by how much.
 */
export class ServerClock {
  readonly #clock: Clock;
  #lastDate = '';
  #windowStartMs = Number.NEGATIVE_INFINITY;
  /** Time of the API server minus monotonic time: the highest of the current and of the previous window. */
  #offsetMs = Number.NEGATIVE_INFINITY;
  #previousOffsetMs = Number.NEGATIVE_INFINITY;
  /** Wall clock minus monotonic clock, at the last response. */
  #wallOffsetMs = Number.POSITIVE_INFINITY;

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
    this.#wallOffsetMs = this.#clock.wallMs() - nowMs;
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
    if (!Number.isFinite(offsetMs)) return undefined;
    return offsetMs + this.#clock.monotonicMs() + this.maxAheadMs();
  }

  /**
   * Returns by how much `nowMs` may be ahead, in ms: what the wall clock has gained since the last response, because the
   * machine was suspended or because the wall clock was set forward. 0 in general, and after the next response.
   */
  maxAheadMs(): number {
    const gainedMs = this.#clock.wallMs() - this.#clock.monotonicMs() - this.#wallOffsetMs;
    return gainedMs > MIN_SUSPENDED_MS ? gainedMs : 0;
  }
}
