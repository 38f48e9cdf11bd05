/** A holder of a share of the quota: a connection. */
export interface Holder {
  /** Holders with the same address are accounted for together. */
  readonly address: string;
}

/** The limit of a quota, and what happens to a holder that exceeds it. */
export interface FairQuotaOptions<H extends Holder> {
  /** The limit on the total usage; a single holder may use half of it. */
  readonly limit: number;
  /** Called with the holder that is evicted, after its share has been released. */
  readonly onExceeded: (holder: H) => void;
}

/**
 * A limit on what all connections together make this process hold.
 *
 * When it is exceeded, the largest holder of the address with the highest usage is evicted. A peer can therefore evict
 * only holders that share its address, and an address within its equal share of the quota loses nothing.
 */
export class FairQuota<H extends Holder> {
  readonly #options: FairQuotaOptions<H>;
  readonly #usage = new Map<H, number>();
  #total = 0;

  constructor(options: FairQuotaOptions<H>) {
    this.#options = options;
  }

  /** The total usage of all holders. */
  get total(): number {
    return this.#total;
  }

  /** Changes the usage of a holder. Has no effect for a holder that is not registered. */
  change(holder: H, change: number): void {
    const before = this.#usage.get(holder);
    if (before === undefined) return;
    this.#usage.set(holder, before + change);
    this.#total += change;
    if (change <= 0) return;
    const { limit } = this.#options;
    if (before + change > limit / 2) this.#evict(holder);
    while (this.#total > limit) this.#evict(this.#largestHolder());
  }

  /** Adds a holder with a usage of 0. */
  register(holder: H): void {
    this.#usage.set(holder, 0);
  }

  /** Removes a holder and releases its whole share. */
  release(holder: H): void {
    this.#total -= this.#usage.get(holder) ?? 0;
    this.#usage.delete(holder);
  }

  #evict(holder: H): void {
    this.release(holder);
    this.#options.onExceeded(holder);
  }

  #largestHolder(): H {
    const byAddress = new Map<string, number>();
    for (const [{ address }, usage] of this.#usage) {
      byAddress.set(address, (byAddress.get(address) ?? 0) + usage);
    }
    let largest: { readonly holder: H; readonly usage: number; readonly ofAddress: number } | undefined;
    for (const [holder, usage] of this.#usage) {
      const ofAddress = byAddress.get(holder.address) ?? 0;
      const lead = ofAddress - (largest?.ofAddress ?? 0) || usage - (largest?.usage ?? 0);
      if (largest === undefined || lead > 0) largest = { holder, usage, ofAddress };
    }
    if (largest === undefined) throw new RangeError(`total is ${this.#total} without holders`);
    return largest.holder;
  }
}
