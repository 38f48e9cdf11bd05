/** More than this many within a minute: two Envoys report under one id. */
const MOST_A_MINUTE = 3;
const WINDOW_MS = 60_000;
/** The wait of a stream that claims again grows to 5 minutes, so a quarrel may be silent for that long. */
const PEACE_MS = 600_000;
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 300_000;

/**
 * Tells a reporter that moves about from two that share one id, by how often it changes place: from a live replica to
 * another, or from a stream to a newer one on the same replica. A change whose former owner was dead or had no stream is
 * no sign of anything, and not to be told here.
 */
export class PlaceChanges {
  /** Of the last minute. */
  #atMs: number[] = [];
  #conflictSinceMs: number | undefined;
  #lastMs = Number.NEGATIVE_INFINITY;
  /** Changes since a conflict was found. */
  #since = 0;

  /** The reporter has changed place. True when that makes it a conflict that was none before. */
  changed(nowMs: number): boolean {
    const was = this.conflict(nowMs);
    this.#lastMs = nowMs;
    this.#atMs = [...this.#atMs.filter((atMs) => nowMs - atMs < WINDOW_MS), nowMs];
    if (was) {
      this.#since += 1;
      return false;
    }
    this.#conflictSinceMs = this.#atMs.length > MOST_A_MINUTE ? nowMs : undefined;
    this.#since = 0;
    return this.#conflictSinceMs !== undefined;
  }

  /** True from the fourth change within a minute on, until there has been none for 10 minutes. */
  conflict(nowMs: number): boolean {
    return this.#conflictSinceMs !== undefined && nowMs - this.#lastMs < PEACE_MS;
  }

  /** When a conflict ends, if nothing more happens; undefined while there is none. */
  endsMs(nowMs: number): number | undefined {
    return this.conflict(nowMs) ? this.#lastMs + PEACE_MS : undefined;
  }

  /** How long a stream that takes the place of another is to wait before it claims: doubling from 1 s to 5 min. */
  waitMs(nowMs: number): number {
    if (!this.conflict(nowMs)) return 0;
    return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(this.#since, 30));
  }
}
