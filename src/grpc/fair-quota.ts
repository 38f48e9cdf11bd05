/** Whoever takes from a budget: a connection. */
export interface Holder {
  /** Holders of one address share one fate. */
  readonly address: string;
}

/** How much there is, and what becomes of who takes too much. */
export interface FairQuotaOptions<H extends Holder> {
  /** What all may hold together; one holder alone may hold half of it. */
  readonly limit: number;
  /** Told who has to go; its share has been given back by then. */
  readonly onExceeded: (holder: H) => void;
}

/**
 * What all connections together may make this process hold.
 *
 * Where it is exceeded, the greatest holder of the address that holds most has to go. So a peer can crowd out others
 * only as far as it shares their address, and an address that holds no more than its equal share loses nothing.
 */
export class FairQuota<H extends Holder> {
  readonly #options: FairQuotaOptions<H>;
  readonly #usage = new Map<H, number>();
  #total = 0;

  constructor(options: FairQuotaOptions<H>) {
    this.#options = options;
  }

  /** What is held by all. */
  get total(): number {
    return this.#total;
  }

  /** Takes, or with a negative change gives back. Of a holder that has left nothing is counted. */
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

  register(holder: H): void {
    this.#usage.set(holder, 0);
  }

  /** All it held is given back. */
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
    if (largest === undefined) throw new RangeError(`${this.#total} is held by nobody`);
    return largest.holder;
  }
}
