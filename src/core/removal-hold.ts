/** When the removals of a full push are held. */
export interface RemovalHoldRule {
  /** How long objects that a full push lacks are kept, in ms; 0: removals are never held. */
  readonly holdMs: number;
  /** Removals are held if the full push lacks more than this share of the reporter's objects, 0 to 100. */
  readonly thresholdPercent: number;
  /** Removals are held if the full push lacks more than this number of objects. */
  readonly maxImmediate: number;
}

/** `maxImmediate` of the operator: a full push that lacks up to this many objects removes them immediately. */
export const MAX_IMMEDIATE_REMOVALS = 10;

/** Holds nothing. */
export const NO_REMOVAL_HOLD: RemovalHoldRule = { holdMs: 0, thresholdPercent: 100, maxImmediate: 0 };

/**
 * Returns whether the removals of a full push are held.
 *
 * @param lacking objects of the reporter that the full push lacks
 * @param total objects of the reporter
 */
export function holdsRemovals(
  { holdMs, thresholdPercent, maxImmediate }: RemovalHoldRule,
  lacking: number,
  total: number,
): boolean {
  return holdMs > 0 && lacking > maxImmediate && lacking * 100 > total * thresholdPercent;
}

/**
 * The names of one reporter whose objects are kept although the last full push lacks them. A name is held until a
 * deadline of its own, which a later full push neither extends nor shortens.
 */
export class HeldRemovals {
  /** The end of each hold, monotonic ms. All holds have the same length, so the first entry ends first. */
  readonly #untilMs = new Map<string, number>();
  #lastUntilMs = 0;

  get size(): number {
    return this.#untilMs.size;
  }

  /** The end of the latest hold, monotonic ms. */
  get lastUntilMs(): number {
    return this.#lastUntilMs;
  }

  /** The end of the next hold, monotonic ms; undefined if nothing is held. */
  get nextUntilMs(): number | undefined {
    return this.#untilMs.values().next().value;
  }

  has(name: string): boolean {
    return this.#untilMs.has(name);
  }

  names(): Iterable<string> {
    return this.#untilMs.keys();
  }

  /** Holds a name, unless it is held already. */
  add(name: string, untilMs: number): void {
    if (this.#untilMs.has(name)) return;
    this.#untilMs.set(name, untilMs);
    this.#lastUntilMs = untilMs;
  }

  /** Ends the hold of a name. Returns false if it is not held. */
  remove(name: string): boolean {
    return this.#untilMs.delete(name);
  }

  /** Ends the oldest holds until at most `max` names are held. Returns their names. */
  shrink(max: number): string[] {
    const released: string[] = [];
    for (const name of this.#untilMs.keys()) {
      if (this.#untilMs.size <= Math.max(0, max)) break;
      this.#untilMs.delete(name);
      released.push(name);
    }
    return released;
  }

  /** Ends the holds whose time has passed. Returns their names. */
  takeEnded(nowMs: number): string[] {
    const released: string[] = [];
    for (const [name, untilMs] of this.#untilMs) {
      if (untilMs > nowMs) break;
      this.#untilMs.delete(name);
      released.push(name);
    }
    return released;
  }
}
