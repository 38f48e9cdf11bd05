/** More changes of owner than this within a minute mean that two Envoys report with the same ID. */
const MAX_PER_MINUTE = 3;
const WINDOW_MS = 60_000;
/** Longer than the 5 minutes to which the delay before a repeated claim grows, during which a conflict is not visible. */
const CONFLICT_RESET_MS = 600_000;
const INITIAL_WAIT_MS = 1000;
const MAX_WAIT_MS = 300_000;

/**
 * Distinguishes a reporter that reconnects from two that share one ID, by the rate of flaps: changes from a live replica
 * to another, or from a stream to a newer one on the same replica. A change from an owner that is dead or has no stream
 * is not evidence of a duplicate and must not be recorded.
 */
export class FlapDetector {
  /** Flaps of the last minute. */
  #recentMs: number[] = [];
  #conflictSinceMs: number | undefined;
  #lastFlapMs = Number.NEGATIVE_INFINITY;
  /** Flaps since the conflict was detected. */
  #flapsSinceConflict = 0;

  /** Records a flap. Returns true if it starts a conflict. */
  record(nowMs: number): boolean {
    const wasConflict = this.isConflict(nowMs);
    this.#lastFlapMs = nowMs;
    this.#recentMs = [...this.#recentMs.filter((flapMs) => nowMs - flapMs < WINDOW_MS), nowMs];
    if (wasConflict) {
      this.#flapsSinceConflict += 1;
      return false;
    }
    this.#conflictSinceMs = this.#recentMs.length > MAX_PER_MINUTE ? nowMs : undefined;
    this.#flapsSinceConflict = 0;
    return this.#conflictSinceMs !== undefined;
  }

  /** Returns true from the fourth flap within a minute until there has been none for 10 minutes. */
  isConflict(nowMs: number): boolean {
    return this.#conflictSinceMs !== undefined && nowMs - this.#lastFlapMs < CONFLICT_RESET_MS;
  }

  /** Returns when the conflict ends if there are no further flaps; undefined without a conflict. */
  conflictEndsMs(nowMs: number): number | undefined {
    return this.isConflict(nowMs) ? this.#lastFlapMs + CONFLICT_RESET_MS : undefined;
  }

  /** Returns the delay before a stream that replaces another one claims: 0 without a conflict, then 1 s, doubling to 5 min. */
  claimDelayMs(nowMs: number): number {
    if (!this.isConflict(nowMs)) return 0;
    return Math.min(MAX_WAIT_MS, INITIAL_WAIT_MS * 2 ** Math.min(this.#flapsSinceConflict, 30));
  }
}
