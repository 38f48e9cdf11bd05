import TinyQueue from 'tinyqueue';
import { flushEventLoop } from '../../support/fake-time.ts';

interface ScheduledEvent {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
  cancelled: boolean;
}

/**
 * The clock of a simulation. It advances from one event to the next, and everything that can run has run between
 * two events. Events at the same time run in the order in which they were scheduled, so runs are reproducible.
 */
export class SimTime {
  /** Milliseconds since the start of the run. */
  nowMs = 0;
  readonly #events = new TinyQueue<ScheduledEvent>([], (a, b) => a.atMs - b.atMs || a.order - b.order);
  #order = 0;
  /** Pending work of a real server; fake time stands still until it is done. */
  readonly #pendingWork = new Set<Promise<unknown>>();

  /** Schedules an event after `delayMs` (at least 0); returns a function that cancels it. */
  after(delayMs: number, run: () => void): () => void {
    this.#order += 1;
    const event = {
      atMs: this.nowMs + Math.max(0, delayMs),
      order: this.#order,
      run,
      cancelled: false,
    };
    this.#events.push(event);
    return () => {
      event.cancelled = true;
    };
  }

  /** Makes fake time wait for this work. */
  blockOn(work: Promise<unknown>): void {
    const pending = work.finally(() => this.#pendingWork.delete(pending)).catch(() => undefined);
    this.#pendingWork.add(pending);
  }

  /** Advances the clock. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms;
    await this.#settle();
    for (let next = this.#events.peek(); next && next.atMs <= untilMs; next = this.#events.peek()) {
      this.#events.pop();
      if (next.cancelled) continue;
      this.nowMs = next.atMs;
      next.run();
      await this.#settle();
    }
    this.nowMs = untilMs;
  }

  async #settle(): Promise<void> {
    await flushEventLoop();
    while (this.#pendingWork.size > 0) {
      await Promise.all(this.#pendingWork);
      await flushEventLoop();
    }
  }
}
