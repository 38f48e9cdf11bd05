/** Whoever takes from a budget: a connection. */
export interface Holder {
  /** Holders of one address share one fate. */
  readonly address: string;
}

/** How much there is, and what becomes of who takes too much. */
export interface FairBudgetParts<H extends Holder> {
  /** What all may hold together; one holder alone may hold half of it. */
  readonly limit: number;
  /** Told who has to go; its share has been given back by then. */
  readonly overdrawn: (holder: H) => void;
}

/**
 * What all connections together may make this process hold.
 *
 * Where it is exceeded, the greatest holder of the address that holds most has to go. So a peer can crowd out others
 * only as far as it shares their address, and an address that holds no more than its equal share loses nothing.
 */
export class FairBudget<H extends Holder> {
  readonly #parts: FairBudgetParts<H>;
  readonly #held = new Map<H, number>();
  #total = 0;

  constructor(parts: FairBudgetParts<H>) {
    this.#parts = parts;
  }

  /** What is held by all. */
  get total(): number {
    return this.#total;
  }

  /** Takes, or with a negative change gives back. Of a holder that has left nothing is counted. */
  change(holder: H, change: number): void {
    const before = this.#held.get(holder);
    if (before === undefined) return;
    this.#held.set(holder, before + change);
    this.#total += change;
    if (change <= 0) return;
    const { limit } = this.#parts;
    if (before + change > limit / 2) this.#end(holder);
    while (this.#total > limit) this.#end(this.#greatest());
  }

  join(holder: H): void {
    this.#held.set(holder, 0);
  }

  /** All it held is given back. */
  leave(holder: H): void {
    this.#total -= this.#held.get(holder) ?? 0;
    this.#held.delete(holder);
  }

  #end(holder: H): void {
    this.leave(holder);
    this.#parts.overdrawn(holder);
  }

  #greatest(): H {
    const byAddress = new Map<string, number>();
    for (const [{ address }, held] of this.#held) {
      byAddress.set(address, (byAddress.get(address) ?? 0) + held);
    }
    let greatest: { readonly holder: H; readonly held: number; readonly ofAddress: number } | undefined;
    for (const [holder, held] of this.#held) {
      const ofAddress = byAddress.get(holder.address) ?? 0;
      const lead = ofAddress - (greatest?.ofAddress ?? 0) || held - (greatest?.held ?? 0);
      if (greatest === undefined || lead > 0) greatest = { holder, held, ofAddress };
    }
    if (greatest === undefined) throw new RangeError(`${this.#total} is held by nobody`);
    return greatest.holder;
  }
}
