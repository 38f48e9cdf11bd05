/** Default of `maxRejected`. */
const MAX_REJECTED = 4;

/**
 * Finds the changes of a write that the API server rejects, by writing parts of it: a part that is rejected is divided into
 * halves, until a rejected part is a single change. After each rejected change, the search continues with the largest part
 * that was not written yet, so that the first changes that are written alone are far from each other.
 *
 * One rejected change of n costs about 2 log2(n) writes; if all are rejected, the search ends after about
 * 4 log2(n) writes.
 */
export class RejectionSearch {
  /** Parts that were not written yet. */
  readonly #parts: (readonly string[])[] = [];
  readonly #rejected: string[] = [];
  #part: readonly string[] | undefined;
  readonly #maxRejected: number;
  #isAnyAccepted = false;

  /**
   * @param changes the names of what the rejected write has changed, in parts that are written separately from now on.
   *   Names are unique.
   * @param maxRejected the search ends once this many changes were rejected alone and none was accepted: probably
   *   everything is rejected. Default: 4
   */
  constructor(changes: readonly (readonly string[])[], maxRejected: number = MAX_REJECTED) {
    this.#maxRejected = maxRejected;
    const parts = changes.filter((part) => part.length > 0);
    const [first] = parts;
    if (first === undefined) return;
    if (parts.length === 1) this.#divide(first);
    else {
      this.#part = first;
      this.#parts.push(...parts.slice(1).toReversed());
    }
  }

  /** The changes of the next write; undefined if the search is over. */
  get part(): readonly string[] | undefined {
    return this.#part;
  }

  /** The changes that were rejected although they were written alone. */
  get rejected(): readonly string[] {
    return this.#rejected;
  }

  /** True if the search ended although there are changes that were not written alone, because none was accepted. */
  get isAborted(): boolean {
    return this.#part === undefined && this.#parts.length > 0;
  }

  /** Records that the part was written. */
  accepted(): void {
    this.#isAnyAccepted = true;
    this.skipped();
  }

  /** Records that there is nothing left to write in the part. */
  skipped(): void {
    this.#part = this.#parts.pop();
  }

  /** Records that the write of the part was rejected. */
  partRejected(): void {
    if (this.#part !== undefined) this.#divide(this.#part);
  }

  #divide(part: readonly string[]): void {
    if (part.length > 1) {
      const middle = Math.ceil(part.length / 2);
      this.#part = part.slice(0, middle);
      this.#parts.push(part.slice(middle));
      return;
    }
    this.#rejected.push(...part);
    this.#part = undefined;
    if (!this.#isAnyAccepted && this.#rejected.length >= this.#maxRejected) return;
    this.#part = this.#takeLargest();
  }

  #takeLargest(): readonly string[] | undefined {
    let largest = 0;
    for (const [index, part] of this.#parts.entries())
      if (part.length > (this.#parts[largest]?.length ?? 0)) largest = index;
    return this.#parts.splice(largest, 1)[0];
  }
}
