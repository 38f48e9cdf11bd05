/** Where no answer is expected at a known time, the window is checked again after this time. */
const RECHECK_MS = 50;

/**
 * Limits how many writes the API server handles within any period of a given length.
 *
 * A write occupies the window from the time at which it is sent until one period after its answer. The API server handles
 * it in between, whenever that is. Take all writes that are handled within one period: when the last of them was sent, all
 * others occupied the window. There are therefore never more of them than the limit, however long writes and answers take.
 */
export class WriteWindow {
  readonly #limit: number;
  readonly #periodMs: number;
  #inFlight = 0;
  /** When the last writes were answered, oldest first; at most `limit` times. */
  readonly #answeredMs: number[] = [];

  constructor(limit: number, periodMs: number) {
    this.#limit = limit;
    this.#periodMs = periodMs;
  }

  /** Returns how long the next write must wait, in ms; 0 if it may be sent now. */
  delayMs(nowMs: number): number {
    while ((this.#answeredMs[0] ?? nowMs) <= nowMs - this.#periodMs) this.#answeredMs.shift();
    if (this.#inFlight + this.#answeredMs.length < this.#limit) return 0;
    const [firstMs] = this.#answeredMs;
    return firstMs === undefined ? RECHECK_MS : firstMs + this.#periodMs - nowMs;
  }

  /** Records that a write is sent. The result must be called once, with the time of its answer or of its failure. */
  start(): (answeredMs: number) => void {
    this.#inFlight += 1;
    return (answeredMs) => {
      this.#inFlight -= 1;
      if (this.#answeredMs.push(answeredMs) > this.#limit) this.#answeredMs.shift();
    };
  }
}
