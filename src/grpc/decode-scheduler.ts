/**
 * Schedules the decoding of large reports: one step of one report per tick of the event loop, so a small report waits
 * for one step only, whatever the number of large ones. Connections are scheduled round-robin, so a thousand streams of
 * one peer do not delay those of another.
 */
export class DecodeScheduler {
  readonly #waiting = new Map<object, (() => void)[]>();
  #isScheduled = false;

  /** Resolves when a stream of `connection` may run its next step, in a later tick of the event loop. */
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
    const next = this.#waiting.entries().next().value;
    if (next === undefined) return;
    const [connection, queue] = next;
    const resume = queue.shift();
    this.#waiting.delete(connection);
    if (queue.length > 0) this.#waiting.set(connection, queue);
    if (this.#waiting.size > 0) this.#schedule();
    resume?.();
  }
}

/**
 * Runs a generator to completion, and lets other streams run at each `yield`.
 *
 * @param isCancelled checked after each `yield`; true: the result is no longer needed
 * @returns the return value of the generator; undefined if it was cancelled
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
