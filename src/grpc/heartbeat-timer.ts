import type { Clock } from '../clock.ts';

/** Envoy sends a report each interval, an empty one if need be: after three without one nobody is there. */
const MAX_MISSED_INTERVALS = 3;
/** But not sooner than this: an Envoy that was busy is not one that is gone. */
const MIN_TIMEOUT_MS = 15_000;
/** For the first report, which may be 64 MiB over a slow line. */
const INITIAL_TIMEOUT_MS = 300_000;

/**
 * Notices that a reporter says nothing any more: for three of its report intervals or 15 s, whichever is longer, and
 * before it was told an interval for 5 minutes. One timer, which looks again when silence would have been too long,
 * instead of one that each report sets anew.
 */
export class HeartbeatTimer {
  readonly #clock: Clock;
  readonly #onTimeout: (details: string) => void;
  #timeoutMs = INITIAL_TIMEOUT_MS;
  #lastReportMs: number;
  #cancel: (() => void) | undefined;

  /** @param onTimeout called once, with what to tell the peer; may call `stop` */
  constructor(clock: Clock, onTimeout: (details: string) => void) {
    this.#clock = clock;
    this.#onTimeout = onTimeout;
    this.#lastReportMs = clock.monotonicMs();
    this.#check();
  }

  /** A report was read. */
  reset(nowMs: number): void {
    this.#lastReportMs = nowMs;
  }

  /** The reporter was told to report as often as this. */
  setInterval(intervalMs: number): void {
    this.#timeoutMs = Math.max(MAX_MISSED_INTERVALS * intervalMs, MIN_TIMEOUT_MS);
    this.#check();
  }

  /** Leaves no timer. */
  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #check(): void {
    this.stop();
    const remainingMs = this.#lastReportMs + this.#timeoutMs - this.#clock.monotonicMs();
    if (remainingMs > 0) this.#cancel = this.#clock.setTimer(remainingMs, () => this.#check());
    else this.#onTimeout(`no report within ${Math.round(this.#timeoutMs / 1000)} s`);
  }
}
