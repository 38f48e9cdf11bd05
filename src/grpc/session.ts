import { status, type ServerDuplexStream } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import type { LimitExceeded } from '../core/apply-report.ts';
import type { Peer } from '../core/peer.ts';
import { reporterViolation } from '../core/report.ts';
import type { EnvoyMetadata } from '../core/reporter-status.ts';
import { reporterKey, type ReporterId } from '../core/tunnel.ts';
import { quote, type Violation } from '../core/violation.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import {
  decodeHead,
  decodeReport,
  MalformedReportError,
  TooManyEntriesError,
  type DecodedReport,
  type RejectedTunnels,
} from './decode.ts';
import { runCooperatively } from './decode-scheduler.ts';
import type { DenialLog } from './denial-log.ts';
import { envoyMetadata } from './node-metadata.ts';
import { recordedStatus } from './status-interceptor.ts';
import type { DurationMessage, NodeMessage, ReportResponse } from './proto.ts';
import type { ReportPolicy } from './report-policy.ts';
import { HeartbeatTimer } from './heartbeat-timer.ts';
import type { LogThrottle } from '../log-throttle.ts';

/** What becomes of a report that is in order. Declared here, given by the composition root. */
export interface ReportSink {
  /**
   * The reporter has a new stream, also in place of an older one; called before its first report is folded.
   *
   * @param isReconnect its last stream here was ended for it to come back, and its end was not told
   */
  reporterConnected(reporter: ReporterId, envoy: EnvoyMetadata, peer: Peer, isReconnect: boolean): void;
  /** The reporter has none any more: it ended, nothing came on it, policies end it, or this server is shutting down. */
  reporterDisconnected(
    reporter: ReporterId,
    why: 'StreamEnded' | 'HeartbeatTimeout' | 'PolicyDenied' | 'shutdown',
  ): void;
  /**
   * Takes a report into memory, synchronously; it is ACKed when this returns.
   *
   * @param receivedMs when it was read whole, monotonic
   * @returns why it is not taken: there would be more than may be
   */
  apply(reporter: ReporterId, report: DecodedReport, receivedMs: number): LimitExceeded | undefined;
}

/** How a stream's end is counted. */
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
  /** By `--max-stream-age`, and by the end of its peer's credential: the reporter is to come back. */
  | 'max_age'
  | 'credential_expired';

/** A node that Envoy sends has its id and cluster, some 100 bytes; one of more is read anew each time. */
const MAX_CACHED_NODE_BYTES = 1024;
/** Some hundred tunnels, a fraction of a millisecond: decoded at once. */
const SMALL_REPORT_BYTES = 16 * 1024;
/** Streams of one reporter that wait for its rate together look again so seldom, as each look costs microseconds. */
const RATE_RETRY_MS = 1000;

/** What all sessions share: where reports go, what they are held to, and who is told of a stream. */
export interface SessionOptions {
  readonly sink: ReportSink;
  readonly decodeNode: (bytes: Uint8Array) => NodeMessage;
  /**
   * Told before the first report is folded, when it is known whose stream this is and that the report is in order. Of
   * the streams of a reporter it ends all but the newest, this one included.
   */
  readonly onIdentified: (session: Session) => void;
  readonly onClosed: (session: Session, reason: CloseReason) => void;
  /** Resolves when this stream may work on a large report: never in the same turn of the event loop. */
  readonly yieldTurn: () => Promise<void>;
  /** 25 ms to 3600 s as it is now; told with a stream's first ACK, and with the next one when it has changed. */
  readonly reportIntervalMs: () => number;
  /** What the sink holds a reporter to; a report may list twice as many, as a flap stands in both lists. */
  readonly maxTunnelsPerReporter: number;
  readonly policy: ReportPolicy;
  readonly denials: DenialLog;
  /** Lets of each reporter one line a minute through that says the same: its streams and reports are as many as it likes. */
  readonly throttled: LogThrottle;
  /** What a report with parts that break the rules gets: an ACK for the rest, or a NACK. */
  readonly onInvalid: 'skip' | 'nack';
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

type Call = ServerDuplexStream<Buffer, ReportResponse>;

/**
 * One stream of one reporter. States:
 *
 * - *unnamed*: no report has been read. The first must carry `node`; it makes the stream *named*, or ends it.
 * - *named*: reports are read one at a time, in order: decoded, checked, folded, ACKed, and only then is the next one
 *   read, so that gRPC's flow control holds back a reporter that is faster than this.
 * - *ended*: by the peer, by a NACK, by a newer stream, by silence, by policies, by the shutdown. Nothing is read or answered any
 *   more.
 *
 * An ACK carries the nonce of its report, as it came: Envoy takes a nonce that it did not send for a fault. A NACK is
 * sent, then the stream ends, as the service's text asks; everything folded before stays.
 */
export class Session {
  /** Grows with each stream that is opened: of two the greater is the newer. */
  readonly number: number;
  /** Who opened it. */
  readonly peer: Peer;
  readonly #call: Call;
  readonly #options: SessionOptions;
  #reporter: ReporterId | undefined;
  /** Envoy says with each report who it is, in the same bytes. */
  #nodeBytes: Buffer | undefined;
  #envoy: EnvoyMetadata = { version: undefined, locality: undefined };
  #identified = false;
  /** Undefined before the first report. */
  #lastNonce: bigint | undefined;
  #sentIntervalMs: number | undefined;
  #closed = false;
  readonly #heartbeatTimer: HeartbeatTimer;
  #cancelThrottle: (() => void) | undefined;

  /** @param number greater than that of every stream opened before */
  constructor(call: Call, number: number, peer: Peer, options: SessionOptions) {
    this.number = number;
    this.peer = peer;
    this.#call = call;
    this.#options = options;
    this.#heartbeatTimer = new HeartbeatTimer(options.clock, (details) => this.#onHeartbeatTimeout(details));
    call.on('data', (bytes: Buffer) => void this.#read(bytes));
    call.on('end', () => this.#finish('client_closed'));
    call.on('cancelled', () => this.#onCancelled());
    // Without a listener an error of a stream that is gone would end the process.
    call.on('error', () => this.#finish('client_closed'));
  }

  /** Whose stream this is; undefined until its first report. */
  get reporter(): ReporterId | undefined {
    return this.#reporter;
  }

  /** What its Envoy tells about itself; nothing until its first report. */
  get envoy(): EnvoyMetadata {
    return this.#envoy;
  }

  /** Ends the stream with a gRPC status; what was written before goes out first. */
  close(reason: CloseReason, code: status, details: string): void {
    if (this.#closed) return;
    this.#finish(reason);
    this.#call.emit('error', { code, details });
  }

  /** Ends the stream where its peer may not report, or not as this reporter: at its start, and when policies changed. */
  reauthorize(): void {
    const { policy, denials } = this.#options;
    if (this.#closed || !policy.hasPolicies) return;
    const reporter = this.#reporter;
    const rejection =
      policy.peerRejection(this.peer) ??
      (reporter === undefined ? undefined : policy.reporterRejection(this.peer, reporter)?.message);
    if (rejection === undefined) return;
    denials.denied(reporter, rejection);
    this.close('policy', status.PERMISSION_DENIED, rejection);
  }

  async #read(bytes: Buffer): Promise<void> {
    if (this.#closed) return;
    // Nothing more is handed over, the end neither, until this report is answered.
    this.#call.pause();
    let receivedMs = this.#options.clock.monotonicMs();
    this.#heartbeatTimer.reset(receivedMs);
    try {
      if (bytes.length > SMALL_REPORT_BYTES) await this.#options.yieldTurn();
      if (!this.#identified && this.#options.policy.hasPolicies) {
        if (await this.#isDenied(bytes)) return;
        if (await this.#awaitRate()) receivedMs = this.#options.clock.monotonicMs();
        if (this.#closed) return;
      }
      const decoded = await runCooperatively(
        decodeReport(bytes, 2 * this.#options.maxTunnelsPerReporter),
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

  /** Looks whose stream this is before any tunnel of its first report is decoded; true when that is answered already. */
  async #isDenied(bytes: Buffer): Promise<boolean> {
    const head = await runCooperatively(decodeHead(bytes), this.#options.yieldTurn, () => this.#closed);
    if (head === undefined) return true;
    // What breaks the contract is said in its turn.
    return this.#identify(head) === undefined && this.#rejectIfDenied(head.nonce);
  }

  /** Leaves the first report as it is until its reporter's rate allows it: a new stream is no way round. True when it did. */
  async #awaitRate(): Promise<boolean> {
    const { policy, clock } = this.#options;
    const reporter = this.#reporter;
    if (reporter === undefined) return false;
    let hasWaited = false;
    for (let debtMs = policy.rateDebtMs(reporter); debtMs > 0; debtMs = policy.rateDebtMs(reporter)) {
      // Again only where other streams of the reporter were read meanwhile; not all of them at each token.
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

  /** True when the peer may not report as this reporter: then the stream has been told so, and has ended. */
  #rejectIfDenied(nonce: bigint): boolean {
    const { policy, denials, metrics } = this.#options;
    const reporter = this.#reporter;
    if (this.#closed || reporter === undefined) return this.#closed;
    const rejection = policy.reporterRejection(this.peer, reporter);
    if (rejection === undefined) return false;
    metrics.nacks.inc({ reason: rejection.reason });
    denials.denied(reporter, rejection.message);
    this.#respond(nonce, { code: status.PERMISSION_DENIED, message: rejection.message });
    this.close('policy', status.PERMISSION_DENIED, rejection.message);
    return true;
  }

  /** Leaves the next report with the peer, by flow control, for as long as its reporter's rate asks. */
  #throttle(): void {
    const { policy, clock } = this.#options;
    const reporter = this.#reporter;
    const isLimited = reporter !== undefined && !this.#closed && policy.hasPolicies;
    const waitMs = isLimited ? policy.throttleDelayMs(reporter) : 0;
    if (waitMs > 0) this.#cancelThrottle = clock.setTimer(waitMs, () => this.#resume());
    else this.#resume();
  }

  /** Reads the next report, but of a peer that takes no ACKs none: without a bound they would pile up here. */
  #resume(): void {
    if (this.#closed) return;
    if (this.#call.writableNeedDrain) this.#call.once('drain', () => this.#resume());
    else this.#call.resume();
  }

  #handleReport(decoded: DecodedReport, receivedMs: number): void {
    const { sink, metrics, clock, onInvalid, policy } = this.#options;
    const violation = this.#identify(decoded) ?? nonceViolation(decoded.nonce);
    if (violation !== undefined) {
      this.#nack(decoded, violation);
      return;
    }
    const reporter = this.#reporter;
    if (reporter === undefined) return;
    // Asked again: the policies may have changed while it was decoded.
    if (!this.#identified && this.#rejectIfDenied(decoded.nonce)) return;
    for (const rejected of [decoded.rejected, policy.deniedTunnels(this.peer, reporter, decoded.added)]) {
      const [first] = rejected?.first ?? [];
      if (rejected === undefined || first === undefined) continue;
      if (onInvalid === 'nack') {
        this.#nack(decoded, first);
        return;
      }
      this.#reportRejected(rejected);
    }
    this.#checkNonce(decoded.nonce);
    if (!this.#identified) {
      this.#identified = true;
      this.#options.onIdentified(this);
      // A newer stream of this reporter was quicker: what this one has to say is out of date.
      if (this.#closed) return;
    }

    const exceeded = sink.apply(reporter, decoded, receivedMs);
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

  /** Learns whose stream this is from its first report, and holds later ones to it. */
  #identify(decoded: Pick<DecodedReport, 'node'>): Violation | undefined {
    if (decoded.node === undefined) {
      return this.#reporter === undefined
        ? { field: 'node', reason: 'missing', message: 'node: required on the first report of a stream' }
        : undefined;
    }
    if (this.#nodeBytes?.equals(decoded.node) === true) return undefined;
    const node = this.#decodeNode(decoded.node);
    const { id = '', cluster = '' } = node;
    const known = this.#reporter;
    if (known === undefined) {
      const violation = reporterViolation(id, cluster);
      if (violation !== undefined) return violation;
      this.#reporter = { id, cluster };
      this.#envoy = envoyMetadata(node);
      // A copy: what was decoded is a view into the report, and a first report may be large.
      if (decoded.node.length <= MAX_CACHED_NODE_BYTES) this.#nodeBytes = Buffer.from(decoded.node);
      return undefined;
    }
    if (id === known.id && cluster === known.cluster) return undefined;
    const field = id === known.id ? 'node.cluster' : 'node.id';
    const [from, to] = id === known.id ? [known.cluster, cluster] : [known.id, id];
    return {
      field,
      reason: 'changed',
      message: `${field}: changed from ${quote(from)} to ${quote(to)} within one stream`,
    };
  }

  #decodeNode(bytes: Uint8Array): NodeMessage {
    try {
      return this.#options.decodeNode(bytes);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new MalformedReportError(`node: cannot decode Node: ${why}`, { cause: error });
    }
  }

  /** Whatever it is, it is ACKed as it came; but Envoy's grow by one, so others are worth a count. */
  #checkNonce(nonce: bigint): void {
    const last = this.#lastNonce;
    this.#lastNonce = nonce;
    if (last === undefined || nonce === last + 1n) return;
    const kind = nonce === last ? 'repeated' : nonce < last ? 'decreased' : 'skipped';
    this.#options.metrics.nonceAnomalies.inc({ kind });
  }

  #reportRejected({ count, byReason, first }: RejectedTunnels): void {
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

  #respond(nonce: bigint, error: { code: number; message: string } | undefined): void {
    const response: ReportResponse = {
      node_id: this.#reporter?.id ?? '',
      request_nonce: String(nonce),
      ...(error === undefined ? this.#intervalUpdate() : { error_detail: error }),
    };
    this.#call.write(response);
  }

  /** The wire asks not to repeat an interval that the reporter has. */
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
      { reporter: this.#reporter, err: error },
      'unexpected error while handling a report; closing the stream',
    );
    this.close('internal', status.INTERNAL, 'internal error while handling the report');
  }

  /** By the peer; or by grpc-js, which has then told the peer why. */
  #onCancelled(): void {
    const recorded = recordedStatus(this.#call.metadata);
    if (this.#closed || recorded?.code !== status.RESOURCE_EXHAUSTED) {
      this.#finish('client_closed');
      return;
    }
    this.#warn('too large', { error: recorded.details }, 'report too large; closing the stream');
    this.#finish('over_limit');
  }

  /** @param kind the same for all lines of which one a minute and reporter is enough */
  #warn(kind: string, fields: object, message: string): void {
    const { log, throttled } = this.#options;
    const reporter = this.#reporter;
    const whose = reporter === undefined ? '' : reporterKey(reporter);
    throttled(`${kind} ${whose}`, (more) => log.warn({ reporter, ...fields, ...more }, message));
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
