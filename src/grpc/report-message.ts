import type { ReporterId } from '../core/tunnel.ts';

/**
 * The two messages of the service from a *reporter's* point of view: the report that it sends and the response that it
 * receives. The server uses another representation of reports, which includes violations: see `decode.ts`.
 */

/** A tunnel as a reporter reports it. Immutable, so reports may share it. */
export interface ReportedTunnel {
  readonly name: string;
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /** Envoy's clock has microsecond resolution: `nanos` is a multiple of 1000, 0 to 999,999,000. Undefined: not reported. */
  readonly createdAt: { readonly seconds: number; readonly nanos: number } | undefined;
}

/** StreamReverseTunnelsRequest. If it adds and removes nothing, it is a heartbeat (unless it is a full push). */
export interface ReportMessage {
  /** Envoy sets only `id` and `cluster`. Undefined: omitted, as xDS allows after a stream's first message. */
  readonly node: ReporterId | undefined;
  /** Tunnels added since the last report, in order, so a name may occur twice; in a full push, all tunnels. */
  readonly added: readonly ReportedTunnel[];
  readonly removedNames: readonly string[];
  readonly fullPush: boolean;
  /** 1 on a new stream, increasing by 1 with each report. */
  readonly nonce: bigint;
}

/** StreamReverseTunnelsResponse: an ACK, or a NACK if `error` is set. */
export interface ResponseMessage {
  readonly requestNonce: bigint;
  /** In whole milliseconds, truncated as by Envoy; undefined if the server omitted it. */
  readonly reportIntervalMs: number | undefined;
  readonly error: { readonly code: number; readonly message: string } | undefined;
}

/** The gRPC status with which a stream ended. */
export interface StreamStatus {
  readonly code: number;
  readonly message: string;
}

/** The callbacks of a stream, none of which is called before `openStream` returns, or after `onEnd` or `reset`. */
export interface StreamHandlers {
  onResponse(response: ResponseMessage): void;
  /** Called once, when the server or the network ended the stream. */
  onEnd(status: StreamStatus): void;
}

/** An open stream to the service. */
export interface ReportStream {
  /** Never fails; reports are queued, in order, while the connection is not writable. */
  send(report: ReportMessage): void;
  /** Ends the stream immediately (RST_STREAM) without calling `onEnd`. Has no effect on a stream that has ended. */
  reset(): void;
}
