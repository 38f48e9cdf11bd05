/** How far a reporter that nobody hears is lost. */
export type DisconnectPhase =
  /** Its rows stay as they are. */
  | 'grace'
  /** Its rows are to say that nobody knows. */
  | 'unknown'
  /** Its rows are to go, and then its object. */
  | 'expired';

/** After this replica had no Lease: others may have acted meanwhile, and reporters had nobody to come back to. */
const PAUSE_AFTER_REGAIN_MS = 15_000;
/** The first look after a stop of the process finds more time gone than it could have seen. */
const MAX_STEP_MS = 5000;

/**
 * The time for which a reporter has been lost, as its owner counts it on its own monotonic clock: from the claim or the
 * end of the stream on, whichever is later, and standing still while the owner may not write and for 15 s after. Time
 * that nobody could have used to come back is not counted, and no other machine's clock is ever asked.
 *
 * To be looked at every few seconds: of a longer gap 5 s count, as the process may have been stopped meanwhile.
 */
export class GraceTimer {
  #elapsedMs = 0;
  #lastTickMs: number;
  #pausedUntilMs = Number.NEGATIVE_INFINITY;

  constructor(nowMs: number) {
    this.#lastTickMs = nowMs;
  }

  /**
   * Counts on to `nowMs`.
   *
   * @param canWrite false while this replica holds no Lease
   */
  tick(nowMs: number, canWrite: boolean): void {
    if (canWrite) {
      const fromMs = Math.max(this.#lastTickMs, this.#pausedUntilMs);
      this.#elapsedMs += Math.min(MAX_STEP_MS, Math.max(0, nowMs - fromMs));
    } else {
      this.#pausedUntilMs = nowMs + PAUSE_AFTER_REGAIN_MS;
    }
    this.#lastTickMs = nowMs;
  }

  /** For how long it has been lost, as counted. */
  get elapsedMs(): number {
    return this.#elapsedMs;
  }

  /** @param limits greater than 0; `unknownAfterMs` may be the greater of the two, and is never reached then */
  phase(limits: { readonly unknownAfterMs: number; readonly expireAfterMs: number }): DisconnectPhase {
    if (this.#elapsedMs >= limits.expireAfterMs) return 'expired';
    return this.#elapsedMs >= limits.unknownAfterMs ? 'unknown' : 'grace';
  }
}
