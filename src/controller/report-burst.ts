/** A burst ends this long after its last report. A cold process may need 20 ms from one report to the next. */
const QUIET_MS = 30;
/** Fewer changes are written at once: the single ones of a running fleet. */
const MIN_CHANGES = 8;
/** Longest delay for each change that was reported: less than the API server takes to write it. */
const MAX_DELAY_PER_CHANGE_MS = 1;
/** Longest delay of all. */
const MAX_DELAY_MS = 1000;

/**
 * Delays writes while a fleet connects, until its reports have been read. Both compete for the same cores, often with
 * the API server as well: if writes began with the first report, the last of 100 full pushes of 100 tunnels would be
 * ACKed after twice the time, and the objects would be written later, too.
 *
 * A burst is a sequence of reports with at least 8 changes and at most 30 ms between two reports. Writes wait for its
 * end, but at most 1 ms per change and 1 s, so a permanent trickle of changes delays nothing.
 */
export class ReportBurst {
  #changes = 0;
  #startMs = Number.NEGATIVE_INFINITY;
  #lastMs = Number.NEGATIVE_INFINITY;

  /**
   * Records that a report was read.
   *
   * @param changes how many tunnels it has changed
   */
  reportRead(changes: number, nowMs: number): void {
    if (changes === 0) return;
    if (nowMs - this.#lastMs >= QUIET_MS) {
      this.#changes = 0;
      this.#startMs = nowMs;
    }
    this.#changes += changes;
    this.#lastMs = nowMs;
  }

  /** Returns how long writes wait at least, in ms; 0 if they may be sent now. */
  delayMs(nowMs: number): number {
    if (this.#changes < MIN_CHANGES) return 0;
    const endMs = this.#startMs + Math.min(MAX_DELAY_MS, this.#changes * MAX_DELAY_PER_CHANGE_MS);
    return Math.max(0, Math.min(this.#lastMs + QUIET_MS, endMs) - nowMs);
  }
}
