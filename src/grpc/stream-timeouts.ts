import type { Clock } from '../clock.ts';
import type { MessageProgress } from './connection-guard-inbound.ts';

/** Envoy sends a report per interval, an empty one if nothing changed: after three missed ones it is gone. */
const MAX_MISSED_INTERVALS = 3;
/** The minimum heartbeat timeout: an Envoy that is briefly busy is not gone. */
const MIN_TIMEOUT_MS = 15_000;
/** The timeout for the first report, which may have 64 MiB and arrive over a slow link. */
const INITIAL_TIMEOUT_MS = 300_000;
/** A check that runs later than this shows that the process itself was stopped or starved for that time. */
const MAX_CHECK_DELAY_MS = 1000;
/** The time until the next check in that case: the reports that arrived meanwhile are read first. */
const RECHECK_MS = 1000;
/** Rechecks run at multiples of this, so those of all streams wake the process together. */
const RECHECK_GRID_MS = 1000;
/** The share by which a stream's maximum age varies, so that streams opened together do not end together. */
const JITTER = 0.1;

/** The maximum time for which the bytes of one report count as signs of life: a report of 64 MiB at 2 Mbit/s. */
const MAX_RECEIVE_MS = 300_000;

/**
 * Detects that a reporter no longer sends reports. The heartbeat timeout is three report intervals, at least 15 s;
 * until an interval has been sent to the reporter, it is 5 minutes. While a report arrives, each of its bytes counts as a
 * sign of life, for 5 minutes at most: a large report on a slow line takes longer than the timeout, and a client that
 * sends a byte now and then must not keep its stream forever.
 *
 * A single timer rechecks at the earliest possible timeout, so a report does not have to reset a timer.
 *
 * A check that runs late proves nothing about the reporter: a process that was frozen, or had no CPU, runs its timers
 * before it reads the reports in its sockets. It is repeated after 1 s; otherwise all streams would end at once.
 */
export class HeartbeatTimer {
  readonly #clock: Clock;
  readonly #onTimeout: (details: string) => void;
  readonly #progress: () => MessageProgress | undefined;
  #timeoutMs = INITIAL_TIMEOUT_MS;
  #lastReportMs: number;
  #cancel: (() => void) | undefined;

  /**
   * @param onTimeout called once, with the message for the peer; may call `stop`
   * @param progress returns how far a report that is not complete has arrived, in monotonic ms
   */
  constructor(
    clock: Clock,
    onTimeout: (details: string) => void,
    progress: () => MessageProgress | undefined = () => undefined,
  ) {
    this.#progress = progress;
    this.#clock = clock;
    this.#onTimeout = onTimeout;
    this.#lastReportMs = clock.monotonicMs();
    this.#check();
  }

  /** Records that a report was received at `nowMs`. */
  reset(nowMs: number): void {
    this.#lastReportMs = nowMs;
  }

  /** Records the report interval that was sent to the reporter. */
  setInterval(intervalMs: number): void {
    this.#timeoutMs = Math.max(MAX_MISSED_INTERVALS * intervalMs, MIN_TIMEOUT_MS);
    this.#check();
  }

  /** Cancels the timer. */
  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** @param dueMs when the check was to run; undefined: now */
  #check(dueMs?: number): void {
    this.stop();
    const nowMs = this.#clock.monotonicMs();
    const remainingMs = this.#deadlineMs() - nowMs;
    if (remainingMs > 0) this.#checkAfter(nowMs, recheckDelayMs(nowMs, remainingMs));
    else if (dueMs !== undefined && nowMs - dueMs > MAX_CHECK_DELAY_MS) this.#checkAfter(nowMs, RECHECK_MS);
    else this.#onTimeout(`no report within ${Math.round(this.#timeoutMs / 1000)} s`);
  }

  #checkAfter(nowMs: number, delayMs: number): void {
    this.#cancel = this.#clock.setTimer(delayMs, () => this.#check(nowMs + delayMs));
  }

  #deadlineMs(): number {
    const deadlineMs = this.#lastReportMs + this.#timeoutMs;
    // The timeout of the first report is long enough for its arrival.
    const progress = this.#timeoutMs === INITIAL_TIMEOUT_MS ? undefined : this.#progress();
    if (progress === undefined) return deadlineMs;
    const { firstByteMs, lastByteMs } = progress;
    return Math.max(deadlineMs, Math.min(lastByteMs + this.#timeoutMs, firstByteMs + MAX_RECEIVE_MS));
  }
}

/** Returns the time until the last multiple of the grid before the timeout; less than a grid before, until the timeout. */
function recheckDelayMs(nowMs: number, remainingMs: number): number {
  const gridMs = Math.floor((nowMs + remainingMs) / RECHECK_GRID_MS) * RECHECK_GRID_MS;
  return gridMs > nowMs ? gridMs - nowMs : remainingMs;
}

/** When and why a stream ends even though its peer behaves. */
export interface StreamDeadline {
  /** Milliseconds from now. */
  readonly ttlMs: number;
  readonly reason: 'max_age' | 'credential_expired';
  /** The message for the peer. */
  readonly details: string;
}

/**
 * Computes the deadline of a stream: the expiry of its credential, or the maximum age (±10 %) if that is earlier. A
 * revoked certificate, ServiceAccount or permission therefore takes effect within the maximum age.
 *
 * @param expiresMs ms since 1970; undefined: the credential does not expire
 * @param credentialAgeMs time since the peer presented its credential: 0 for a credential sent with the stream itself
 * @param random 0 to 1
 */
export function streamDeadline(
  expiresMs: number | undefined,
  maxAgeMs: number,
  credentialAgeMs: number,
  wallMs: number,
  random: number,
): StreamDeadline {
  const ageMs = Math.max(0, maxAgeMs * (1 - JITTER + 2 * JITTER * random) - credentialAgeMs);
  const remainingMs = expiresMs === undefined ? Number.POSITIVE_INFINITY : Math.max(0, expiresMs - wallMs);
  return remainingMs <= ageMs
    ? {
        ttlMs: remainingMs,
        reason: 'credential_expired',
        details: 'credential expired; reconnect with a new one',
      }
    : { ttlMs: ageMs, reason: 'max_age', details: 'maximum stream age reached; reconnect' };
}
