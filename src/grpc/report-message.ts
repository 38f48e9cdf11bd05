import type { ReporterId } from '../core/tunnel.ts';

/**
 * The two messages of the service as a *reporter* sees them: the report it sends and the answer it gets.
 * (What the server makes of incoming bytes is another shape, with what may be wrong in it: see `decode.ts`.)
 */

/** A tunnel as a reporter announces it. Never changed in place, so reports may share it. */
export interface ReportedTunnel {
  readonly name: string;
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /** Envoy's clock has microseconds: `nanos` is a multiple of 1000, 0 to 999,999,000. */
  readonly createdAt: { readonly seconds: number; readonly nanos: number };
}

/** StreamReverseTunnelsRequest. With nothing added and nothing removed it is a heartbeat. */
export interface ReportMessage {
  /** Envoy fills `id` and `cluster` only. Undefined: left out, as xDS allows after a stream's first message. */
  readonly node: ReporterId | undefined;
  /** Since the last report in the order of time, so one name may stand twice; on a full push everything. */
  readonly added: readonly ReportedTunnel[];
  readonly removedNames: readonly string[];
  readonly fullPush: boolean;
  /** 1 on a new stream, then one more with each report. */
  readonly nonce: bigint;
}

/** StreamReverseTunnelsResponse: an ACK, or a NACK when `error` is set. */
export interface ResponseMessage {
  readonly requestNonce: bigint;
  /** Whole milliseconds, cut as Envoy does; undefined when the server left it out. */
  readonly reportIntervalMs: number | undefined;
  readonly error: { readonly code: number; readonly message: string } | undefined;
}

/** How a stream ended: a gRPC status. */
export interface StreamStatus {
  readonly code: number;
  readonly message: string;
}

/** What a stream tells its user. Nothing is called before `openStream` has returned, nor after `onEnd` or `reset`. */
export interface StreamHandlers {
  onResponse(response: ResponseMessage): void;
  /** Once, when the other side or the network ended the stream. */
  onEnd(status: StreamStatus): void;
}

/** An open stream to the service. */
export interface ReportStream {
  /** Takes the report in any case; reports wait here, in order, while the connection is not writable. */
  send(report: ReportMessage): void;
  /** Ends the stream at once (RST_STREAM), without a call of `onEnd`. Harmless on a stream that has ended. */
  reset(): void;
}
