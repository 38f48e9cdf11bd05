import { status } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import type { LimitExceeded } from '../core/apply-report.ts';
import type { Peer } from '../core/peer.ts';
import type { RejectedTunnels, Violation } from '../core/report.ts';
import type { EnvoyMetadata } from '../core/reporter-status.ts';
import { quote } from '../core/text.ts';
import { reporterKey, type ReporterId, type Tunnel } from '../core/tunnel.ts';
import type { LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { messageProgress } from './call-guard.ts';
import { runCooperatively } from './decode-scheduler.ts';
import {
  decodeHead,
  decodeReport,
  MalformedReportError,
  TooManyEntriesError,
  type DecodedReport,
} from './decode.ts';
import { NodeIdentity } from './node-identity.ts';
import type { DurationMessage, NodeMessage, ReportResponse } from './messages.ts';
import type { SessionCall } from './report-call.ts';
import type { ReportPolicy, ReportSink } from './session-dependencies.ts';
import { recordedStatus } from './status-interceptor.ts';
import { HeartbeatTimer } from './stream-timeouts.ts';

/** Why a stream was closed, as counted in the metrics. */
export type CloseReason =
  | 'client_closed'
  | 'nack'
  | 'malformed'
  | 'over_limit'
  | 'heartbeat_timeout'
  | 'superseded'
  | 'policy'
  | 'shutdown'
  | 'internal'
  /** `--max-stream-age`, or the expiry of the peer's credential: the reporter should reconnect. */
  | 'max_age'
  | 'credential_expired';

/**
 * Some 16 tunnels, decoded and applied in a tenth of a millisecond: not worth waiting for a turn. Larger reports wait,
 * because those of many reporters may arrive in the same tick.
 */
const SMALL_REPORT_BYTES = 2 * 1024;
/**
 * The minimum interval at which streams of one reporter that wait for its rate check again: each check costs
 * microseconds, and there may be many streams.
 */
const RATE_RETRY_MS = 1000;

/** What all sessions share. */
export interface SessionOptions {
  readonly sink: ReportSink;
  /** Throws if the bytes are not a Node. */
  readonly decodeNode: (bytes: Uint8Array) => NodeMessage;
  /**
   * Called before the first report is applied, once the reporter is identified and the report is valid. Closes all but
   * the newest stream of the reporter, which may include this one.
   */
  readonly onIdentified: (session: Session) => void;
  readonly onClosed: (session: Session, reason: CloseReason) => void;
  /** Called with the size of each report of more than 2 KiB before it is decoded. */
  readonly onLargeReport: (bytes: number) => void;
  /** Resolves when this stream may process a large report: never in the same tick of the event loop. */
  readonly yieldTurn: () => Promise<void>;
  /** The current report interval, 25 ms to 3600 s: sent with a stream's first ACK, and with the next ACK after a change. */
  readonly reportIntervalMs: () => number;
  /** The sink's limit per reporter. A report may list twice as many: a tunnel that flaps is in both of its lists. */
  readonly maxTunnelsPerReporter: number;
  readonly policy: ReportPolicy;
  /**
   * Throttles warnings per reporter and kind: the number of a reporter's streams and reports is not limited.
   */
  readonly throttled: LogThrottle;
  /** Throttles warnings about streams that policies deny: an Envoy that is denied reconnects every 5 s. */
  readonly throttledDenials: LogThrottle;
  /** How a report with invalid parts is answered: with an ACK for the valid parts, or with a NACK. */
  readonly onInvalid: 'skip' | 'nack';
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

/**
 * One stream of one reporter. States:
 *
 * - *unidentified*: no report has been read. The first report must carry `node`; it identifies the stream or ends it.
 * - *identified*: reports are read one at a time, in order: each is decoded, checked, applied and ACKed before the next
 *   one is read, so gRPC's flow control slows down a reporter that is faster than this process.
 * - *closed*: by the peer, a NACK, a newer stream, the heartbeat timeout, a policy or the shutdown. Nothing more is read
 *   or answered.
 *
 * An ACK carries the nonce of its report unchanged: Envoy treats a nonce that it did not send as an error. A NACK does
 * too, unless the nonce is negative. After a NACK the stream ends, as the service definition requires; everything applied before is kept.
 */
export class Session {
  /** Increases with each stream that is opened: of two sessions, the one with the higher number is newer. */
  readonly number: number;
  /** The authenticated peer that opened the stream. */
  readonly peer: Peer;
  readonly #call: SessionCall;
  readonly #options: SessionOptions;
  readonly #node: NodeIdentity;
  readonly #heartbeatTimer: HeartbeatTimer;
  #identified = false;
  /** Undefined before the first report. */
  #lastNonce: bigint | undefined;
  #sentIntervalMs: number | undefined;
  #closed = false;
  #cancelThrottle: (() => void) | undefined;

  /** @param number greater than that of every stream opened before */
  constructor(call: SessionCall, number: number, peer: Peer, options: SessionOptions) {
    this.number = number;
    this.peer = peer;
    this.#call = call;
    this.#options = options;
    this.#node = new NodeIdentity(options.decodeNode);
    this.#heartbeatTimer = new HeartbeatTimer(
      options.clock,
      (details) => this.#onHeartbeatTimeout(details),
      () => messageProgress(call.metadata),
    );
    call.on('data', (bytes: Buffer) => this.#read(bytes));
    call.on('end', () => this.#finish('client_closed'));
    call.on('cancelled', () => this.#onCancelled());
    // Without a listener, an error on a stream that is already gone would end the process.
    call.on('error', () => this.#finish('client_closed'));
  }

  /** The reporter; undefined until the stream's first report has been checked. */
  get reporter(): ReporterId | undefined {
    return this.#node.reporter;
  }

  /** What the reporter's Envoy reports about itself; empty until the first report has been checked. */
  get envoy(): EnvoyMetadata {
    return this.#node.envoy;
  }

  /** Ends the stream with a gRPC status, after everything that was written before. */
  close(reason: CloseReason, code: status, details: string): void {
    if (this.#closed) return;
    this.#finish(reason);
    this.#call.emit('error', { code, details });
  }

  /**
   * Ends the stream if policies no longer allow its peer to report, or to report as this reporter. Called when the
   * stream is opened and when policies change.
   */
  reauthorize(): void {
    const { policy } = this.#options;
    if (this.#closed || !policy.hasPolicies) return;
    const { reporter } = this;
    const rejection =
      policy.peerRejection(this.peer) ??
      (reporter === undefined ? undefined : policy.reporterRejection(this.peer, reporter)?.message);
    if (rejection === undefined) return;
    this.#warnDenied(rejection);
    this.close('policy', status.PERMISSION_DENIED, rejection);
  }

  #read(bytes: Buffer): void {
    if (this.#closed) return;
    // No message, and no end of the stream, is delivered until this report is answered.
    this.#call.pause();
    const receivedMs = this.#options.clock.monotonicMs();
    this.#heartbeatTimer.reset(receivedMs);
    const isHeadChecked = this.#identified || !this.#options.policy.hasPolicies;
    if (bytes.length <= SMALL_REPORT_BYTES && isHeadChecked) this.#readAtOnce(bytes, receivedMs);
    else void this.#readInTurns(bytes, receivedMs);
  }

  /** Reads a small report, such as a heartbeat, without a promise. */
  #readAtOnce(bytes: Buffer, receivedMs: number): void {
    try {
      // A report of this size is decoded in one step.
      const step = decodeReport(bytes, 2 * this.#options.maxTunnelsPerReporter).next();
      if (step.done === true) this.#handleReport(step.value, receivedMs);
    } catch (error) {
      this.#handleError(error);
    } finally {
      this.#throttle();
    }
  }

  async #readInTurns(bytes: Buffer, arrivedMs: number): Promise<void> {
    let receivedMs = arrivedMs;
    try {
      if (bytes.length > SMALL_REPORT_BYTES) {
        this.#options.onLargeReport(bytes.length);
        await this.#options.yieldTurn();
      }
      if (!this.#identified && this.#options.policy.hasPolicies) {
        if (await this.#isDenied(bytes)) return;
        if (await this.#awaitRate()) receivedMs = this.#options.clock.monotonicMs();
        if (this.#closed) return;
      }
      const decoded = await runCooperatively(
        decodeReport(bytes, 2 * this.#options.maxTunnelsPerReporter, (node) => this.#knownTunnels(node)),
        this.#options.yieldTurn,
        () => this.#closed,
      );
      if (decoded === undefined || this.#closed) return;
      this.#handleReport(decoded, receivedMs);
    } catch (error) {
      this.#handleError(error);
    } finally {
      this.#throttle();
    }
  }

  #knownTunnels(node: Uint8Array | undefined): Iterable<Tunnel> {
    const { policy, sink } = this.#options;
    // With policies, the reporter of a first report has been authorized before.
    const reporter = policy.hasPolicies ? this.reporter : this.#node.guess(node);
    return reporter === undefined ? [] : sink.knownTunnels(reporter);
  }

  /** Authorizes the first report before its tunnels are decoded; true if the report has already been answered. */
  async #isDenied(bytes: Buffer): Promise<boolean> {
    const head = await runCooperatively(decodeHead(bytes), this.#options.yieldTurn, () => this.#closed);
    if (head === undefined) return true;
    // Violations of the contract are answered later, like those of any other report.
    return this.#node.check(head.node) === undefined && this.#rejectIfDenied(head.nonce);
  }

  /**
   * Delays the first report until its reporter's rate allows it, so that a new stream does not evade the rate limit.
   * Returns true if there was a delay.
   */
  async #awaitRate(): Promise<boolean> {
    const { policy, clock } = this.#options;
    const { reporter } = this;
    if (reporter === undefined) return false;
    let hasWaited = false;
    for (let debtMs = policy.rateDebtMs(reporter); debtMs > 0; debtMs = policy.rateDebtMs(reporter)) {
      // A further delay means that other streams of the reporter were read: not all of them check at each token.
      const waitMs = hasWaited ? Math.max(debtMs, RATE_RETRY_MS) : debtMs;
      await new Promise<void>((resolve) => {
        const cancel = clock.setTimer(waitMs, resolve);
        this.#cancelThrottle = () => {
          cancel();
          resolve();
        };
      });
      hasWaited = true;
      if (this.#closed) break;
    }
    return hasWaited;
  }

  /** Answers with a NACK and ends the stream if the peer may not report as this reporter; true if it is closed. */
  #rejectIfDenied(nonce: bigint): boolean {
    const { policy, metrics } = this.#options;
    const { reporter } = this;
    if (this.#closed || reporter === undefined) return this.#closed;
    const rejection = policy.reporterRejection(this.peer, reporter);
    if (rejection === undefined) return false;
    metrics.nacks.inc({ reason: rejection.reason });
    this.#warnDenied(rejection.message);
    this.#respond(nonce, { code: status.PERMISSION_DENIED, message: rejection.message });
    this.close('policy', status.PERMISSION_DENIED, rejection.message);
    return true;
  }

  /** Leaves the next report with the peer, by flow control, until the reporter's rate allows it. */
  #throttle(): void {
    const { policy, clock } = this.#options;
    const { reporter } = this;
    const isLimited = reporter !== undefined && !this.#closed && policy.hasPolicies;
    const waitMs = isLimited ? policy.throttleDelayMs(reporter) : 0;
    if (waitMs > 0) this.#cancelThrottle = clock.setTimer(waitMs, () => this.#resume());
    else this.#resume();
  }

  /** Reads the next report once the peer accepts ACKs: otherwise unsent ACKs would accumulate without a limit. */
  #resume(): void {
    if (this.#closed) return;
    if (this.#call.writableNeedDrain) this.#call.once('drain', () => this.#resume());
    else this.#call.resume();
  }

  #handleReport(decoded: DecodedReport, receivedMs: number): void {
    const { sink, metrics, clock, onInvalid, policy } = this.#options;
    const violation = this.#node.check(decoded.node) ?? nonceViolation(decoded.nonce);
    if (violation !== undefined) {
      this.#nack(decoded, violation);
      return;
    }
    const { reporter } = this;
    if (reporter === undefined) return;
    // Checked again: the policies may have changed during decoding.
    if (!this.#identified && this.#rejectIfDenied(decoded.nonce)) return;
    for (const rejected of [decoded.rejected, policy.deniedTunnels(this.peer, reporter, decoded.added)]) {
      const [first] = rejected?.first ?? [];
      if (rejected === undefined || first === undefined) continue;
      if (onInvalid === 'nack') {
        this.#nack(decoded, first);
        return;
      }
      this.#recordRejected(rejected);
    }
    this.#recordNonce(decoded.nonce);
    if (!this.#identified) {
      this.#identified = true;
      this.#options.onIdentified(this);
      // A newer stream of this reporter was identified first, so this report is out of date.
      if (this.#closed) return;
    }

    const exceeded = sink.accept(reporter, decoded, receivedMs);
    if (exceeded !== undefined) {
      const details = limitExceededMessage(reporter, exceeded);
      this.#warn('over the limit', { error: details }, 'limit exceeded; closing the stream');
      metrics.nacks.inc({ reason: 'over_limit' });
      this.#respond(decoded.nonce, { code: status.RESOURCE_EXHAUSTED, message: details });
      this.close('over_limit', status.RESOURCE_EXHAUSTED, details);
      return;
    }
    metrics.reports.inc({ kind: reportKind(decoded) });
    metrics.acks.inc();
    this.#respond(decoded.nonce, undefined);
    metrics.ackSeconds.observe((clock.monotonicMs() - receivedMs) / 1000);
  }

  /** Counts nonces that do not increase by one, as Envoy's do. Every nonce is ACKed unchanged. */
  #recordNonce(nonce: bigint): void {
    const last = this.#lastNonce;
    this.#lastNonce = nonce;
    if (last === undefined || nonce === last + 1n) return;
    const kind = nonce === last ? 'repeated' : nonce < last ? 'decreased' : 'skipped';
    this.#options.metrics.nonceAnomalies.inc({ kind });
  }

  #recordRejected({ count, byReason, first }: RejectedTunnels): void {
    for (const [reason, times] of byReason) this.#options.metrics.tunnelRejections.inc({ reason }, times);
    const messages = first.map(({ message }) => message);
    this.#warn('rejected tunnels', { count, first: messages }, 'rejected invalid tunnels; keeping the rest');
  }

  #nack(decoded: DecodedReport, violation: Violation): void {
    this.#options.metrics.nacks.inc({ reason: violation.reason });
    this.#warn('rejected', { violation: violation.message }, 'report rejected; closing the stream');
    this.#respond(decoded.nonce, { code: status.INVALID_ARGUMENT, message: violation.message });
    this.#finish('nack');
    this.#call.end();
  }

  /** @param error undefined: an ACK */
  #respond(nonce: bigint, error: { code: number; message: string } | undefined): void {
    const response: ReportResponse = {
      node_id: this.reporter?.id ?? '',
      // A negative nonce is rejected, and the contract requires that request_nonce is not negative either.
      request_nonce: nonce < 0n ? '0' : String(nonce),
      ...(error === undefined ? this.#intervalUpdate() : { error_detail: error }),
    };
    this.#call.write(response);
  }

  /** Returns the report interval if the reporter does not have it yet: the contract asks not to repeat it. */
  #intervalUpdate(): { report_interval?: DurationMessage } {
    const intervalMs = this.#options.reportIntervalMs();
    if (intervalMs === this.#sentIntervalMs) return {};
    this.#sentIntervalMs = intervalMs;
    this.#heartbeatTimer.setInterval(intervalMs);
    const seconds = Math.floor(intervalMs / 1000);
    return { report_interval: { seconds, nanos: Math.round((intervalMs - seconds * 1000) * 1e6) } };
  }

  #onHeartbeatTimeout(details: string): void {
    this.#warn('heartbeat timeout', { error: details }, 'heartbeat timeout; closing the stream');
    this.close('heartbeat_timeout', status.DEADLINE_EXCEEDED, details);
  }

  #handleError(error: unknown): void {
    if (error instanceof TooManyEntriesError) {
      this.#warn(
        'too many entries',
        { error: error.message },
        'report has too many entries; closing the stream',
      );
      this.close('over_limit', status.RESOURCE_EXHAUSTED, error.message);
      return;
    }
    if (error instanceof MalformedReportError) {
      this.#warn('malformed', { error: error.message }, 'malformed report; closing the stream');
      this.close('malformed', status.INVALID_ARGUMENT, error.message);
      return;
    }
    this.#options.log.error(
      { reporter: this.reporter, err: error },
      'unexpected error while handling a report; closing the stream',
    );
    this.close('internal', status.INTERNAL, 'internal error while handling the report');
  }

  /** The call was cancelled by the peer, or by grpc-js, which then has already sent the reason to the peer. */
  #onCancelled(): void {
    const recorded = recordedStatus(this.#call.metadata);
    if (this.#closed || recorded?.code !== status.RESOURCE_EXHAUSTED) {
      this.#finish('client_closed');
      return;
    }
    this.#warn('too large', { error: recorded.details }, 'report too large; closing the stream');
    this.#finish('over_limit');
  }

  /** @param kind throttled separately per reporter */
  #warn(kind: string, fields: object, message: string): void {
    const { log, throttled } = this.#options;
    const { reporter } = this;
    const key = reporter === undefined ? '' : reporterKey(reporter);
    throttled(`${kind} ${key}`, (more) => log.warn({ reporter, ...fields, ...more }, message));
  }

  #warnDenied(rejection: string): void {
    const { log, throttledDenials } = this.#options;
    const { reporter } = this;
    throttledDenials(rejection, (more) =>
      log.warn({ reporter, error: rejection, ...more }, 'stream denied by policy'),
    );
  }

  #finish(reason: CloseReason): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#heartbeatTimer.stop();
    this.#cancelThrottle?.();
    this.#options.metrics.streamsClosed.inc({ reason });
    this.#options.onClosed(this, reason);
    if (reason === 'client_closed') this.#call.end();
  }
}

function nonceViolation(nonce: bigint): Violation | undefined {
  return nonce < 0n
    ? { field: 'nonce', reason: 'negative', message: `nonce: ${nonce} must not be negative` }
    : undefined;
}

function reportKind(decoded: DecodedReport): 'full' | 'delta' | 'heartbeat' {
  if (decoded.fullPush) return 'full';
  return decoded.added.length + decoded.removedNames.length > 0 ? 'delta' : 'heartbeat';
}

function limitExceededMessage({ id }: ReporterId, { limit, count, max }: LimitExceeded): string {
  switch (limit) {
    case 'reportersPerPeer':
      return `reporter ${quote(id)}: peer would report as ${count} reporters, limit is ${max}`;
    case 'tunnels':
      return `all reporters: would hold ${count} tunnels, limit is ${max}`;
    case 'tunnelsPerReporter':
      return `reporter ${quote(id)}: would hold ${count} tunnels, limit is ${max}`;
  }
}
