/**
 * A bound on calls under way: so many at once, the others in the order in which they came, urgent ones first. Without it
 * 2,000 reporters that come back at once would stand in the way of each other's time-outs.
 */
export class CallSlots {
  #free: number;
  readonly #urgent: (() => void)[] = [];
  readonly #others: (() => void)[] = [];

  /** @param slots calls at once, at least 1 */
  constructor(slots: number) {
    this.#free = slots;
  }

  /** Runs `call` when a slot is free; its result is the call's. */
  async run<T>(urgent: boolean, call: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => (urgent ? this.#urgent : this.#others).push(resolve));
    try {
      return await call();
    } finally {
      const next = this.#urgent.shift() ?? this.#others.shift();
      // The slot is handed on, so that nobody can take it in between.
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}
