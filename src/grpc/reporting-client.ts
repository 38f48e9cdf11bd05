import { Client, Metadata, connectivityState, credentials, status } from '@grpc/grpc-js';
import type { ChannelOptions, ClientDuplexStream } from '@grpc/grpc-js';
import { encodeReport } from './encode-report.ts';
import { loadReportingService, type ReportResponse, type StreamReverseTunnels } from './proto.ts';
import type { ReportMessage, ReportStream, ResponseMessage, StreamHandlers } from './report-message.ts';
import type { ReporterIdentity } from './reporter-identity.ts';

/**
 * The reporter's side of the wire: streams over one HTTP/2 connection to the service, as one Envoy has it.
 * Connects when a stream is opened and never by itself in between: when to try again is the caller's rule.
 */
export interface ReportingConnection {
  /** Opens a stream, connecting first where there is no connection. Failures come as `onEnd`, never thrown. */
  openStream(handlers: StreamHandlers): ReportStream;
  /** Breaks the connection on this side: each stream ends with UNAVAILABLE. The next stream connects anew. */
  reset(): void;
  /** Resets the streams, silently, and closes the connection. No handle is left; opening again is possible. */
  close(): void;
}

/** Where the reporting service is, and as whom to report there. */
export interface ReportingConnectionOptions {
  /** host:port; an IPv6 host in brackets. */
  readonly address: string;
  /** How it proves who it is. Default: plaintext, by nothing. */
  readonly identity?: ReporterIdentity;
}

/** One definition for the process: reading the .proto files takes longer than opening a stream. */
let reportingMethod: StreamReverseTunnels | undefined;

const CHANNEL_OPTIONS: ChannelOptions = {
  // Without it all channels to one address share one connection; each Envoy has its own.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.max_receive_message_length': -1,
  // Retries would keep a copy of each report, and Envoy has none.
  'grpc.enable_retries': 0,
  'grpc.service_config_disable_resolution': 1,
  'grpc.enable_channelz': 0,
  // Envoy's cluster names the endpoint; a proxy from the environment would get between.
  'grpc.enable_http_proxy': 0,
};

/** A connection to the service at `address`; nothing is sent before the first stream. */
export function dialReportingService(options: ReportingConnectionOptions): ReportingConnection {
  reportingMethod ??= loadReportingService().service.StreamReverseTunnels;
  const method = reportingMethod;
  const decode = (bytes: Buffer): ResponseMessage => toResponse(method.responseDeserialize(bytes));
  const { identity } = options;
  let client: Client | undefined;
  const calls = new Set<OpenCall>();

  function closeClient(): void {
    client?.close();
    client = undefined;
  }

  /**
   * A channel that failed goes on connecting in the background, with a backoff of its own, and answers new
   * streams from its last failure. Envoy connects for a stream and tells that connection's fate: so drop it.
   */
  function closeUnlessReady(): void {
    if (calls.size > 0) return;
    if (client?.getChannel().getConnectivityState(false) !== connectivityState.READY) closeClient();
  }

  return {
    openStream(handlers) {
      client ??= new Client(options.address, identity?.credentials() ?? credentials.createInsecure(), {
        ...CHANNEL_OPTIONS,
        ...identity?.channelOptions,
      });
      const metadata = identity?.metadata() ?? new Metadata();
      const call = client.makeBidiStreamRequest<ReportMessage, ResponseMessage>(
        method.path,
        encodeReport,
        decode,
        metadata,
      );
      const openCall: OpenCall = {
        call,
        end(code, message) {
          if (!calls.delete(openCall)) return;
          call.cancel();
          closeUnlessReady();
          if (code !== undefined) handlers.onEnd({ code, message });
        },
      };
      calls.add(openCall);
      call.on('data', (response: ResponseMessage) => {
        if (calls.has(openCall)) handlers.onResponse(response);
      });
      // The status event carries the same, and comes for OK as well; unheard, an error would end the process.
      call.on('error', () => {});
      call.on('status', ({ code, details }) => openCall.end(code, details));
      return {
        // Reports wait as objects in the stream's queue and are encoded when the ones before are written, so
        // backpressure costs no copies; max_retries bounds the queue.
        send(report) {
          if (calls.has(openCall)) call.write(report);
        },
        reset: () => openCall.end(undefined, ''),
      };
    },
    reset() {
      const openCalls = [...calls];
      closeClient();
      for (const openCall of openCalls) openCall.end(status.UNAVAILABLE, 'connection closed by the reporter');
    },
    close() {
      for (const openCall of calls) openCall.end(undefined, '');
      closeClient();
    },
  };
}

/** An open call and its one end; without a code nobody is told. */
interface OpenCall {
  readonly call: ClientDuplexStream<ReportMessage, ResponseMessage>;
  end(code: number | undefined, message: string): void;
}

/** Fields that the server left out are missing from the decoded message, whatever their type says. */
function toResponse(wire: Partial<ReportResponse>): ResponseMessage {
  const interval = wire.report_interval ?? undefined;
  const error = wire.error_detail ?? undefined;
  return {
    requestNonce: BigInt(wire.request_nonce ?? 0),
    reportIntervalMs:
      interval && Number(interval.seconds ?? 0) * 1000 + Math.trunc((interval.nanos ?? 0) / 1e6),
    error: error && { code: error.code ?? status.OK, message: error.message ?? '' },
  };
}
