import { settled } from '../../support/fake-time.ts';

interface Happening {
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
  readonly #heap: Happening[] = [];
  #order = 0;
  /** What a real server is doing: fake time stands still until it is done. */
  readonly #outside = new Set<Promise<unknown>>();

  /** Lets something happen after `delayMs` (at least 0); the answer cancels it. */
  after(delayMs: number, happen: () => void): () => void {
    this.#order += 1;
    const happening = {
      atMs: this.nowMs + Math.max(0, delayMs),
      order: this.#order,
      happen,
      cancelled: false,
    };
    this.#push(happening);
    return () => {
      happening.cancelled = true;
    };
  }

  /** Fake time waits for this. */
  hold(work: Promise<unknown>): void {
    const held = work.finally(() => this.#outside.delete(held)).catch(() => undefined);
    this.#outside.add(held);
  }

  /** Lets time pass. */
  async pass(ms: number): Promise<void> {
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
    await settled();
    while (this.#outside.size > 0) {
      await Promise.all(this.#outside);
      await settled();
    }
  }

  #push(happening: Happening): void {
    const heap = this.#heap;
    let at = heap.push(happening) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (!isBefore(heap[at], heap[above])) break;
      swap(heap, at, above);
      at = above;
    }
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    heap[0] = last;
    let at = 0;
    for (;;) {
      let least = at;
      for (const below of [2 * at + 1, 2 * at + 2]) if (isBefore(heap[below], heap[least])) least = below;
      if (least === at) return;
      swap(heap, at, least);
      at = least;
    }
  }
}

function isBefore(a: Happening | undefined, b: Happening | undefined): boolean {
  if (a === undefined || b === undefined) return false;
  return a.atMs === b.atMs ? a.order < b.order : a.atMs < b.atMs;
}

function swap(heap: Happening[], a: number, b: number): void {
  const [first, second] = [heap[a], heap[b]];
  if (first === undefined || second === undefined) return;
  heap[a] = second;
  heap[b] = first;
}
