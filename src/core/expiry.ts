/** How far a reporter that nobody hears is lost. */
export type LostPhase =
  /** Its rows stay as they are. */
  | 'lost'
  /** Its rows are to say that nobody knows. */
  | 'unknown'
  /** Its rows are to go, and then its object. */
  | 'expired';

/** After this replica had no Lease: others may have acted meanwhile, and reporters had nobody to come back to. */
const PAUSE_AFTER_REGAINED_MS = 15_000;
/** The first look after a stop of the process finds more time gone than it could have seen. */
const LONGEST_STEP_MS = 5000;

/**
 * The time for which a reporter has been lost, as its owner counts it on its own monotonic clock: from the claim or the
 * end of the stream on, whichever is later, and standing still while the owner may not write and for 15 s after. Time
 * that nobody could have used to come back is not counted, and no other machine's clock is ever asked.
 *
 * To be looked at every few seconds: of a longer gap 5 s count, as the process may have been stopped meanwhile.
 */
export class LostTimer {
  #elapsedMs = 0;
  #lookedMs: number;
  #pausedUntilMs = Number.NEGATIVE_INFINITY;

  constructor(nowMs: number) {
    this.#lookedMs = nowMs;
  }

  /**
   * Counts on to `nowMs`.
   *
   * @param mayWrite false while this replica holds no Lease
   */
  look(nowMs: number, mayWrite: boolean): void {
    if (mayWrite) {
      const fromMs = Math.max(this.#lookedMs, this.#pausedUntilMs);
      this.#elapsedMs += Math.min(LONGEST_STEP_MS, Math.max(0, nowMs - fromMs));
    } else {
      this.#pausedUntilMs = nowMs + PAUSE_AFTER_REGAINED_MS;
    }
    this.#lookedMs = nowMs;
  }

  /** For how long it has been lost, as counted. */
  get elapsedMs(): number {
    return this.#elapsedMs;
  }

  /** @param limits greater than 0; `unknownAfterMs` may be the greater of the two, and is never reached then */
  phase(limits: { readonly unknownAfterMs: number; readonly expireAfterMs: number }): LostPhase {
    if (this.#elapsedMs >= limits.expireAfterMs) return 'expired';
    return this.#elapsedMs >= limits.unknownAfterMs ? 'unknown' : 'lost';
  }
}
