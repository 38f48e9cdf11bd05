/** More than this many within a minute: two Envoys report under one id. */
const MAX_PER_MINUTE = 3;
const WINDOW_MS = 60_000;
/** The wait of a stream that claims again grows to 5 minutes, so a quarrel may be silent for that long. */
const CONFLICT_RESET_MS = 600_000;
const INITIAL_WAIT_MS = 1000;
const MAX_WAIT_MS = 300_000;

/**
 * Tells a reporter that moves about from two that share one id, by how often it changes place: from a live replica to
 * another, or from a stream to a newer one on the same replica. A change whose former owner was dead or had no stream is
 * no sign of anything, and not to be told here.
 */
export class FlapDetector {
  /** Of the last minute. */
  #recentMs: number[] = [];
  #conflictSinceMs: number | undefined;
  #lastFlapMs = Number.NEGATIVE_INFINITY;
  /** Changes since a conflict was found. */
  #flapsSinceConflict = 0;

  /** The reporter has changed place. True when that makes it a conflict that was none before. */
  record(nowMs: number): boolean {
    const wasConflict = this.isConflict(nowMs);
    this.#lastFlapMs = nowMs;
    this.#recentMs = [...this.#recentMs.filter((atMs) => nowMs - atMs < WINDOW_MS), nowMs];
    if (wasConflict) {
      this.#flapsSinceConflict += 1;
      return false;
    }
    this.#conflictSinceMs = this.#recentMs.length > MAX_PER_MINUTE ? nowMs : undefined;
    this.#flapsSinceConflict = 0;
    return this.#conflictSinceMs !== undefined;
  }

  /** True from the fourth change within a minute on, until there has been none for 10 minutes. */
  isConflict(nowMs: number): boolean {
    return this.#conflictSinceMs !== undefined && nowMs - this.#lastFlapMs < CONFLICT_RESET_MS;
  }

  /** When a conflict ends, if nothing more happens; undefined while there is none. */
  conflictEndsMs(nowMs: number): number | undefined {
    return this.isConflict(nowMs) ? this.#lastFlapMs + CONFLICT_RESET_MS : undefined;
  }

  /** How long a stream that takes the place of another is to wait before it claims: doubling from 1 s to 5 min. */
  claimDelayMs(nowMs: number): number {
    if (!this.isConflict(nowMs)) return 0;
    return Math.min(MAX_WAIT_MS, INITIAL_WAIT_MS * 2 ** Math.min(this.#flapsSinceConflict, 30));
  }
}
