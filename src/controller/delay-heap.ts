interface HeapEntry<T> {
  readonly atMs: number;
  readonly item: T;
}

/** Items by the time they are due, earliest first: a binary heap, so that 100,000 waiting keys need one timer. */
export class DelayHeap<T> {
  #heap: HeapEntry<T>[] = [];

  get size(): number {
    return this.#heap.length;
  }

  /** When the earliest item is due; undefined when there is none. */
  get earliestMs(): number | undefined {
    return this.#heap[0]?.atMs;
  }

  push(atMs: number, item: T): void {
    const heap = this.#heap;
    const added = { atMs, item };
    let index = heap.length;
    heap.push(added);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || above.atMs <= atMs) break;
      heap[index] = above;
      index = parent;
    }
    heap[index] = added;
  }

  /** Takes the earliest item if it is due by `nowMs`. */
  popDue(nowMs: number): T | undefined {
    const heap = this.#heap;
    const [first] = heap;
    if (first === undefined || first.atMs > nowMs) return undefined;
    const last = heap.pop();
    if (last !== undefined && heap.length > 0) this.#sink(last);
    return first.item;
  }

  /** Drops the items that do not stand for anything any more. */
  retain(isCurrent: (item: T) => boolean): void {
    // Sorted, it is a heap.
    this.#heap = this.#heap.filter(({ item }) => isCurrent(item)).toSorted((a, b) => a.atMs - b.atMs);
  }

  #sink(entry: HeapEntry<T>): void {
    const heap = this.#heap;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      const left = heap[child];
      const right = heap[child + 1];
      if (left === undefined) break;
      let smallest = left;
      if (right !== undefined && right.atMs < left.atMs) {
        child += 1;
        smallest = right;
      }
      if (entry.atMs <= smallest.atMs) break;
      heap[index] = smallest;
      index = child;
    }
    heap[index] = entry;
  }
}
