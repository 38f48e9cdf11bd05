/**
 * A bound on calls under way: so many at once, the others in the order in which they came, urgent ones first. Without it
 * 2,000 reporters that come back at once would stand in the way of each other's time-outs.
 */
export class Semaphore {
  #available: number;
  readonly #urgent: (() => void)[] = [];
  readonly #normal: (() => void)[] = [];

  /** @param permits calls at once, at least 1 */
  constructor(permits: number) {
    this.#available = permits;
  }

  /** Runs `call` when a slot is free; its result is the call's. */
  async run<T>(urgent: boolean, call: () => Promise<T>): Promise<T> {
    if (this.#available > 0) this.#available -= 1;
    else await new Promise<void>((resolve) => (urgent ? this.#urgent : this.#normal).push(resolve));
    try {
      return await call();
    } finally {
      const next = this.#urgent.shift() ?? this.#normal.shift();
      // The slot is handed on, so that nobody can take it in between.
      if (next === undefined) this.#available += 1;
      else next();
    }
  }
}
