/** Phases of a disconnected reporter. */
export type DisconnectPhase =
  /** Its objects stay unchanged. */
  | 'grace'
  /** Its objects are set to Unknown. */
  | 'unknown'
  /** Its objects are deleted, and then its reporter object. */
  | 'expired';

/** After this replica has regained its Lease: other replicas may have acted, and reporters could not reconnect. */
const PAUSE_AFTER_REGAIN_MS = 15_000;
/** The first tick after the process was stopped would otherwise count time that the process did not observe. */
const MAX_STEP_MS = 5000;

/**
 * Measures how long a reporter has been disconnected, on the monotonic clock of its owner: from the claim or the end of
 * the stream, whichever is later. The timer is paused while the owner must not write and for 15 s afterwards, so time in
 * which the reporter could not have reconnected is not counted. The clocks of other machines are never used.
 *
 * Must be ticked every few seconds: at most 5 s count per tick, because the process may have been stopped.
 */
export class GraceTimer {
  #elapsedMs = 0;
  #lastTickMs: number;
  #pausedUntilMs = Number.NEGATIVE_INFINITY;

  constructor(nowMs: number) {
    this.#lastTickMs = nowMs;
  }

  /**
   * Advances the timer to `nowMs`.
   *
   * @param canWrite false while this replica does not hold its Lease
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

  /** The time counted so far. */
  get elapsedMs(): number {
    return this.#elapsedMs;
  }

  /**
   * Returns the current phase.
   *
   * @param limits greater than 0; if `unknownAfterMs` is the greater of the two, the phase `unknown` never occurs
   */
  phase(limits: { readonly unknownAfterMs: number; readonly expireAfterMs: number }): DisconnectPhase {
    if (this.#elapsedMs >= limits.expireAfterMs) return 'expired';
    return this.#elapsedMs >= limits.unknownAfterMs ? 'unknown' : 'grace';
  }
}
