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

/** The log lines about what prevents or limits reports: one per cause and minute. */
export class AgentWarnings {
  readonly #log: Log;
  readonly #throttled: LogThrottle;

  constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#throttled = createLogThrottle(clock);
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

  /** @param tunnels all have this reason; logs nothing if there are none */
  tunnelsSkipped(reason: SkipReason, tunnels: readonly SkippedTunnel[]): void {
    const [first] = tunnels;
    if (first === undefined) return;
    const example = sanitize(first.gauge, MAX_LOGGED_LENGTH);
    this.#throttled(`skipped ${reason}`, (suppressed) =>
      this.#log.warn(
        { reason, tunnels: tunnels.length, example, hint: SKIP_HINTS[reason], ...suppressed },
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
