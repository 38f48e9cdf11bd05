/**
 * Shares the processor among reports that are decoded: in each turn of the event loop one of them goes a step on, so
 * that a small report waits for one step and not for one of each. Connections take turns, so that a thousand streams
 * of one peer do not stand in the way of another's.
 */
export class DecodeScheduler {
  readonly #waiting = new Map<object, (() => void)[]>();
  #isScheduled = false;

  /** Resolves when it is the turn of `connection`, in a later turn of the event loop. */
  wait(connection: object): Promise<void> {
    return new Promise((resolve) => {
      const queue = this.#waiting.get(connection);
      if (queue === undefined) this.#waiting.set(connection, [resolve]);
      else queue.push(resolve);
      this.#schedule();
    });
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => this.#runNext());
  }

  #runNext(): void {
    this.#isScheduled = false;
    const first = this.#waiting.entries().next().value;
    if (first === undefined) return;
    const [connection, queue] = first;
    const resume = queue.shift();
    this.#waiting.delete(connection);
    if (queue.length > 0) this.#waiting.set(connection, queue);
    if (this.#waiting.size > 0) this.#schedule();
    resume?.();
  }
}

/**
 * Runs a generator to its end, letting other streams have their turn at each rest.
 *
 * @param isCancelled asked after each rest: nobody waits for the result any more
 * @returns what the generator returns; undefined when given up
 */
export async function runCooperatively<T>(
  work: Generator<undefined, T>,
  yieldTurn: () => Promise<void>,
  isCancelled: () => boolean,
): Promise<T | undefined> {
  for (;;) {
    const { done, value } = work.next();
    if (done === true) return value;
    await yieldTurn();
    if (isCancelled()) return undefined;
  }
}
