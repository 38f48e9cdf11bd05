/** Status writes in which only counts changed, of all reporters together: 20 at once, then 5 per second. */
const BURST = 20;
const WRITES_PER_SECOND = 5;
const WRITE_INTERVAL_MS = 1000 / WRITES_PER_SECOND;

/**
 * Limits the status writes in which only counts changed. Each costs the API server as much as two objects, so those of
 * 500 reporters that are filled at the same time would take the time of 1,000 objects every 10 s.
 *
 * Each write that has to wait gets a time of its own, so that waiting reporters are not evaluated repeatedly.
 */
export class CountsLimiter {
  #nextMs = Number.NEGATIVE_INFINITY;

  /** Reserves the time of one write, and returns it: `nowMs`, or later. Monotonic ms. */
  reserve(nowMs: number): number {
    const slotMs = Math.max(this.#nextMs, nowMs - (BURST - 1) * WRITE_INTERVAL_MS);
    this.#nextMs = slotMs + WRITE_INTERVAL_MS;
    return Math.max(nowMs, slotMs);
  }
}
