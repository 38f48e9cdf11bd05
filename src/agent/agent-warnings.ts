import type { Clock } from '../clock.ts';
import { sanitize } from '../core/text.ts';
import { errorMessage } from '../error-message.ts';
import type { StreamStatus } from '../grpc/report-message.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import type { SkippedTunnel, SkipReason } from './tunnel-tracker.ts';

/** Maximum length of text from Envoy in the log. */
const MAX_LOGGED_LENGTH = 200;
const LOG_HINT = 'use the log_format in examples/envoy-responder-standard.yaml';
/** How to change a configuration for a tunnel that cannot be reported. */
const SKIP_HINTS: Readonly<Record<SkipReason, string>> = {
  unknown_tenant: 'set --default-tenant or --lifecycle-log, or enable tenant isolation in Envoy',
  several_tenants: 'enable tenant isolation in Envoy (enable_tenant_isolation)',
  ambiguous_name: 'avoid ":" in the cluster and node IDs of initiators, or set --lifecycle-log',
  malformed_name: 'use a version of Envoy that the agent supports (1.39 or 1.40)',
  invalid_utf8: 'use UTF-8 in the IDs of initiators',
  duplicate_name: 'give each initiator a node ID of its own, or enable tenant isolation in Envoy',
};

/** Longer than Envoy keeps a line before it writes it, which is 10 s by default (`--file-flush-interval-msec`). */
const LOG_LINE_TIMEOUT_MS = 15_000;
const LATE_LINE = 'the lifecycle log does not name it: check that its listener writes the log';
/** For the reasons with which a line of the lifecycle log completes what the gauge lacks: the hint if there is none. */
const LATE_LINE_HINTS: Readonly<Partial<Record<SkipReason, string>>> = {
  unknown_tenant: `${LATE_LINE}, or set --default-tenant`,
  ambiguous_name: `${LATE_LINE}, or avoid ":" in the cluster and node IDs of initiators`,
};

/** The log lines about what prevents or limits reports: one per cause and minute. */
export class AgentWarnings {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #throttled: LogThrottle;
  readonly #followsLog: boolean;
  /** Since when the gauges that wait for a line of the lifecycle log have been skipped. */
  #waitingSinceMs: ReadonlyMap<string, number> = new Map();

  /** @param followsLog whether there is a lifecycle log, whose lines may arrive after the gauge */
  constructor(log: Log, clock: Clock, followsLog: boolean) {
    this.#log = log;
    this.#clock = clock;
    this.#throttled = createLogThrottle(clock);
    this.#followsLog = followsLog;
  }

  /** @param isExpected whether the message of the error suffices, without its stack */
  pollFailed(error: unknown, isExpected: boolean): void {
    const message = errorMessage(error);
    const fields = isExpected ? { error: message } : { err: error };
    this.#throttled(`poll ${message}`, (suppressed) =>
      this.#log.error({ ...fields, ...suppressed }, 'failed to poll Envoy; reports are paused'),
    );
  }

  lifecycleLogUnreadable(error: Error): void {
    this.#throttled(`log ${error.message}`, (suppressed) =>
      this.#log.warn(
        { error: error.message, ...suppressed },
        'failed to read the lifecycle log; polling only',
      ),
    );
  }

  invalidLogLine(error: string, line: string): void {
    this.#throttled(`line ${error}`, (suppressed) =>
      this.#log.warn(
        { error, line: sanitize(line, MAX_LOGGED_LENGTH), hint: LOG_HINT, ...suppressed },
        'invalid line in the lifecycle log',
      ),
    );
  }

  /**
   * A tunnel that a line of the lifecycle log may still complete is logged 15 s after it came up.
   *
   * @param skipped all tunnels that the last poll skipped
   */
  tunnelsSkipped(skipped: readonly SkippedTunnel[]): void {
    const nowMs = this.#clock.monotonicMs();
    const waiting = new Map<string, number>();
    const tunnelsByReason = new Map<SkipReason, SkippedTunnel[]>();
    for (const tunnel of skipped) {
      const { gauge, reason } = tunnel;
      if (this.#followsLog && LATE_LINE_HINTS[reason] !== undefined) {
        const sinceMs = this.#waitingSinceMs.get(gauge) ?? nowMs;
        waiting.set(gauge, sinceMs);
        if (nowMs - sinceMs < LOG_LINE_TIMEOUT_MS) continue;
      }
      const tunnels = tunnelsByReason.get(reason);
      if (tunnels === undefined) tunnelsByReason.set(reason, [tunnel]);
      else tunnels.push(tunnel);
    }
    this.#waitingSinceMs = waiting;
    for (const [reason, tunnels] of tunnelsByReason) this.#logSkipped(reason, tunnels);
  }

  #logSkipped(reason: SkipReason, tunnels: readonly SkippedTunnel[]): void {
    const example = sanitize(tunnels[0]?.gauge ?? '', MAX_LOGGED_LENGTH);
    const hint = (this.#followsLog ? LATE_LINE_HINTS[reason] : undefined) ?? SKIP_HINTS[reason];
    this.#throttled(`skipped ${reason}`, (suppressed) =>
      this.#log.warn(
        { reason, tunnels: tunnels.length, example, hint, ...suppressed },
        'tunnels are up and not, or not completely, reported',
      ),
    );
  }

  streamEnded(reason: string, status: StreamStatus | undefined): void {
    this.#throttled(`stream ${reason} ${status?.message ?? ''}`, (suppressed) =>
      this.#log.warn(
        { reason, code: status?.code, error: status?.message, ...suppressed },
        'the stream to the operator ended; reconnecting',
      ),
    );
  }
}
