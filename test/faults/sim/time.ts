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
  /** A binary heap, earliest event first. */
  readonly #heap: ScheduledEvent[] = [];
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
    this.#push(event);
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
    for (let next = this.#heap[0]; next !== undefined && next.atMs <= untilMs; next = this.#heap[0]) {
      this.#pop();
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

  #push(event: ScheduledEvent): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(heap[at], heap[parent])) break;
      swap(heap, at, parent);
      at = parent;
    }
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    heap[0] = last;
    let at = 0;
    for (;;) {
      let smallest = at;
      for (const child of [2 * at + 1, 2 * at + 2])
        if (isBefore(heap[child], heap[smallest])) smallest = child;
      if (smallest === at) return;
      swap(heap, at, smallest);
      at = smallest;
    }
  }
}

function isBefore(a: ScheduledEvent | undefined, b: ScheduledEvent | undefined): boolean {
  if (a === undefined || b === undefined) return false;
  return a.atMs === b.atMs ? a.order < b.order : a.atMs < b.atMs;
}

function swap(heap: ScheduledEvent[], a: number, b: number): void {
  const [first, second] = [heap[a], heap[b]];
  if (first === undefined || second === undefined) return;
  heap[a] = second;
  heap[b] = first;
}
