/** So many backlogs are reported without a delay, as soon as they are old enough. */
const BURST = 50;
const INTERVAL_MS = 500;
/** The longest delay, however many reporters wait. */
const MAX_DELAY_MS = 300_000;

/**
 * Spreads the status writes that report a backlog: 50 at once, then 2 per second, and faster if there are more than 600
 * reporters. When the objects of many reporters change at the same time, they all wait until the last ones are written,
 * and two status writes of each, which cost the API server as much as five objects, would make all of them wait longer.
 *
 * Each backlog gets a time of its own, so that waiting ones are not evaluated repeatedly.
 */
export class BacklogReports {
  #nextMs = Number.NEGATIVE_INFINITY;

  /** Returns when a backlog that is old enough now is reported, monotonic ms: `nowMs` or later. */
  reserve(reporterCount: number, nowMs: number): number {
    const intervalMs = Math.min(INTERVAL_MS, MAX_DELAY_MS / reporterCount);
    const earliestMs = nowMs - (BURST - 1) * intervalMs;
    const slotMs = Math.min(Math.max(this.#nextMs, earliestMs), nowMs + MAX_DELAY_MS);
    this.#nextMs = slotMs + intervalMs;
    return Math.max(slotMs, nowMs);
  }
}
