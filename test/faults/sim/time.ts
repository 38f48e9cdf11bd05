import { flushEventLoop } from '../../support/fake-time.ts';

interface ScheduledEvent {
  readonly atMs: number;
  readonly order: number;
  readonly happen: () => void;
  cancelled: boolean;
}

/**
 * The time of a simulated world: it jumps from one happening to the next, and everything that can run has run between
 * two of them. Of happenings at one moment the one that was set first comes first, so a run is the same each time.
 */
export class SimTime {
  /** Milliseconds since the world began. */
  nowMs = 0;
  /** A binary heap, soonest first. */
  readonly #heap: ScheduledEvent[] = [];
  #order = 0;
  /** What a real server is doing: fake time stands still until it is done. */
  readonly #pendingWork = new Set<Promise<unknown>>();

  /** Lets something happen after `delayMs` (at least 0); the answer cancels it. */
  after(delayMs: number, happen: () => void): () => void {
    this.#order += 1;
    const event = {
      atMs: this.nowMs + Math.max(0, delayMs),
      order: this.#order,
      happen,
      cancelled: false,
    };
    this.#push(event);
    return () => {
      event.cancelled = true;
    };
  }

  /** Fake time waits for this. */
  blockOn(work: Promise<unknown>): void {
    const pending = work.finally(() => this.#pendingWork.delete(pending)).catch(() => undefined);
    this.#pendingWork.add(pending);
  }

  /** Lets time pass. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms;
    await this.#settle();
    for (let next = this.#heap[0]; next !== undefined && next.atMs <= untilMs; next = this.#heap[0]) {
      this.#pop();
      if (next.cancelled) continue;
      this.nowMs = next.atMs;
      next.happen();
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
