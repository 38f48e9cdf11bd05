/** Ends a tick early enough for the ACK of a small report, and late enough for many reports of a few kilobytes. */
const MAX_TICK_MS = 5;

/**
 * Schedules the decoding of large reports: in each tick of the event loop, one step after the other for 5 ms, so a small
 * report waits for that time only, whatever the number of large ones. When a fleet connects, each tick also handles API
 * responses, so with one step per tick, the last of 100 full pushes of 100 tunnels would be ACKed a fifth later.
 * Connections are scheduled round-robin, so a thousand streams of one peer do not delay those of another.
 */
export class DecodeScheduler {
  readonly #waiting = new Map<object, (() => void)[]>();
  readonly #nowMs: () => number;
  #isScheduled = false;

  /** @param nowMs monotonic ms */
  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
  }

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
    setImmediate(() => this.#runUntil(this.#nowMs() + MAX_TICK_MS));
  }

  #runUntil(endMs: number): void {
    const next = this.#waiting.entries().next().value;
    if (next === undefined) {
      this.#isScheduled = false;
      return;
    }
    const [connection, queue] = next;
    const resume = queue.shift();
    this.#waiting.delete(connection);
    if (queue.length > 0) this.#waiting.set(connection, queue);
    resume?.();
    // The step runs in the microtask that `resume` has queued, so this one follows it.
    queueMicrotask(() => {
      if (this.#nowMs() < endMs) {
        this.#runUntil(endMs);
        return;
      }
      this.#isScheduled = false;
      if (this.#waiting.size > 0) this.#schedule();
    });
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
