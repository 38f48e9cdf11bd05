import type { Clock } from '../clock.ts';
import type { ReporterId, Tunnel } from '../core/tunnel.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';

/**
 * How far a `created_at` may be ahead of the API server. The API server prints `<invalid>` as UP for a time that is 2 s or
 * more in the future; the rest is for API servers of one cluster whose clocks differ.
 */
const MAX_AHEAD_MS = 1000;
/**
 * A tunnel of a connected reporter is reported before the heartbeat timeout, which is this long or three report
 * intervals. An older `created_at` comes from an initiator whose clock is behind, or from a tunnel that was already up
 * when its reporter connected.
 */
const MIN_MAX_AGE_MS = 15_000;
/** A replica that did not renew its Lease for this long writes nothing, so a response has usually arrived by then. */
const MAX_UNDECIDED_MS = 10_000;
const LOG_INTERVAL_MS = 10_000;

export interface CreationTimesOptions {
  /**
   * The clock of the API server. `nowMs`: ms since 1970; undefined before its first response. `maxAheadMs`: by how much
   * that may be ahead until the next response, in ms; 0 in general.
   */
  readonly serverClock: { nowMs(): number | undefined; maxAheadMs(): number };
  /** `--report-interval`. */
  readonly settings: { readonly reportIntervalMs: number };
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

/**
 * Decides about the reported creation times of tunnels, which come from the clocks of initiators: a time in the future is
 * omitted from the object, and what is plausible is measured.
 *
 * The decision is made once, when the value is written, by the clock of the API server. The object records the omitted
 * value, so no replica makes the decision again.
 */
export class CreationTimes {
  readonly #options: CreationTimesOptions;
  readonly #throttled: LogThrottle;

  constructor(options: CreationTimesOptions) {
    this.#options = options;
    this.#throttled = createLogThrottle(options.clock, LOG_INTERVAL_MS);
  }

  /** Returns true if `createdAt` must be omitted from the object that is about to be written. */
  mustOmit({ createdAt }: Tunnel): boolean {
    if (createdAt === undefined) return false;
    const nowMs = this.#options.serverClock.nowMs();
    // Without a response of the API server nothing can be written either; a proxy may remove its dates.
    return nowMs !== undefined && Date.parse(createdAt) > nowMs + MAX_AHEAD_MS;
  }

  /**
   * Returns true if only the next response of the API server shows whether `createdAt` must be omitted: it is in the
   * future, unless this machine was suspended. The write must then wait, but not forever: a proxy may remove later dates.
   *
   * @param receivedMs when the report was received, monotonic ms
   */
  isUndecided({ createdAt }: Tunnel, receivedMs: number): boolean {
    const { serverClock, clock } = this.#options;
    const maxAheadMs = serverClock.maxAheadMs();
    if (maxAheadMs === 0 || createdAt === undefined) return false;
    const nowMs = serverClock.nowMs();
    if (nowMs === undefined || clock.monotonicMs() - receivedMs >= MAX_UNDECIDED_MS) return false;
    const aheadMs = Date.parse(createdAt) - nowMs;
    return aheadMs <= MAX_AHEAD_MS && aheadMs + maxAheadMs > MAX_AHEAD_MS;
  }

  /**
   * Counts an object that was created, or patched because `createdAt` changed.
   *
   * @param isOmitted what `mustOmit` returned for the write
   * @param receivedMs when the report was received, monotonic ms
   */
  record(reporter: ReporterId, tunnel: Tunnel, isOmitted: boolean, receivedMs: number): void {
    if (isOmitted) this.#recordOmitted(reporter, tunnel);
    else this.#recordWritten(tunnel, receivedMs);
  }

  #recordOmitted(reporter: ReporterId, { name, createdAt }: Tunnel): void {
    const { metrics, log } = this.#options;
    metrics.createdAtOmitted.inc();
    this.#throttled('omitted', (suppressed) =>
      log.warn(
        { reporter, tunnel: name, createdAt, hint: 'synchronize the clock of the initiator', ...suppressed },
        'omitted a creation time that is in the future',
      ),
    );
  }

  /**
   * Measures the time from `createdAt` to now, when the object was written. By the wall clock of this machine, which is
   * more precise than that of the API server.
   */
  #recordWritten({ createdAt }: Tunnel, receivedMs: number): void {
    if (createdAt === undefined) return;
    const { settings, clock, metrics } = this.#options;
    const elapsedMs = clock.wallMs() - Date.parse(createdAt);
    const ageWhenReceivedMs = elapsedMs - (clock.monotonicMs() - receivedMs);
    if (elapsedMs < 0 || ageWhenReceivedMs > Math.max(MIN_MAX_AGE_MS, 3 * settings.reportIntervalMs)) return;
    metrics.upToObjectSeconds.observe(elapsedMs / 1000);
  }
}
