import type { Clock } from '../clock.ts';

/** Envoy sends a report each interval, an empty one if need be: after three without one nobody is there. */
const SILENT_INTERVALS = 3;
/** But not sooner than this: an Envoy that was busy is not one that is gone. */
const LEAST_SILENCE_MS = 15_000;
/** For the first report, which may be 64 MiB over a slow line. */
const FIRST_REPORT_MS = 300_000;

/**
 * Notices that a reporter says nothing any more: for three of its report intervals or 15 s, whichever is longer, and
 * before it was told an interval for 5 minutes. One timer, which looks again when silence would have been too long,
 * instead of one that each report sets anew.
 */
export class Silence {
  readonly #clock: Clock;
  readonly #tooLong: (details: string) => void;
  #mostMs = FIRST_REPORT_MS;
  #heardMs: number;
  #cancel: (() => void) | undefined;

  /** @param tooLong called once, with what to tell the peer; may call `stop` */
  constructor(clock: Clock, tooLong: (details: string) => void) {
    this.#clock = clock;
    this.#tooLong = tooLong;
    this.#heardMs = clock.monotonicMs();
    this.#look();
  }

  /** A report was read. */
  heard(nowMs: number): void {
    this.#heardMs = nowMs;
  }

  /** The reporter was told to report as often as this. */
  expect(intervalMs: number): void {
    this.#mostMs = Math.max(SILENT_INTERVALS * intervalMs, LEAST_SILENCE_MS);
    this.#look();
  }

  /** Leaves no timer. */
  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #look(): void {
    this.stop();
    const leftMs = this.#heardMs + this.#mostMs - this.#clock.monotonicMs();
    if (leftMs > 0) this.#cancel = this.#clock.setTimer(leftMs, () => this.#look());
    else this.#tooLong(`no report within ${Math.round(this.#mostMs / 1000)} s`);
  }
}
