import { Client, Metadata, connectivityState, credentials, status } from '@grpc/grpc-js';
import type { ChannelOptions, ClientDuplexStream } from '@grpc/grpc-js';
import { errorMessage } from '../error-message.ts';
import { encodeReport } from './encode.ts';
import type { ReportResponse } from './messages.ts';
import type { ReportMessage, ReportStream, ResponseMessage, StreamHandlers } from './report-message.ts';
import type { ReporterIdentity } from './reporter-identity.ts';
import { REPORTING_SERVICE } from './reporting-service.ts';

/**
 * The client of the service: streams over one HTTP/2 connection, like those of one Envoy. It connects when a stream is
 * opened and never on its own: when to retry is up to the caller.
 */
export interface ReportingConnection {
  /** Opens a stream, and connects first if there is no connection. Failures are reported by `onEnd`, never thrown. */
  openStream(handlers: StreamHandlers): ReportStream;
  /** Closes the connection: each stream ends with UNAVAILABLE. The next stream connects again. */
  reset(): void;
  /** Resets the streams without calling `onEnd`, and closes the connection. The next stream connects again. */
  close(): void;
}

/** The HTTP/2 keepalive of a connection: Envoy's `connection_keepalive`, without its jitter. */
export interface Keepalive {
  /** A PING is sent this often, also while there is no stream. */
  readonly intervalMs: number;
  /** The connection is closed if a PING is not acknowledged within this time. */
  readonly timeoutMs: number;
}

/** The keepalive in the bootstrap of examples/envoy-responder.yaml. */
export const ENVOY_KEEPALIVE: Keepalive = { intervalMs: 30_000, timeoutMs: 5_000 };

/** The address of the reporting service, the identity to use, and the keepalive. */
export interface ReportingConnectionOptions {
  /** host:port; an IPv6 host in brackets. */
  readonly address: string;
  /** Default: plaintext without credentials. */
  readonly identity?: ReporterIdentity;
  /** Default: `ENVOY_KEEPALIVE`. */
  readonly keepalive?: Keepalive;
}

const CHANNEL_OPTIONS: ChannelOptions = {
  // Otherwise all channels to one address would share one connection; each Envoy has its own.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.max_receive_message_length': -1,
  // Retries would keep a copy of each report, and Envoy does not retry.
  'grpc.enable_retries': 0,
  'grpc.service_config_disable_resolution': 1,
  'grpc.enable_channelz': 0,
  // Envoy's cluster determines the endpoint; a proxy from the environment must not be used.
  'grpc.enable_http_proxy': 0,
  'grpc.keepalive_permit_without_calls': 1,
};

/** Creates a connection to the service at `address`; nothing is sent before the first stream. */
export function dialReportingService(options: ReportingConnectionOptions): ReportingConnection {
  const method = REPORTING_SERVICE.StreamReverseTunnels;
  const decode = (bytes: Buffer): ResponseMessage => toResponse(method.responseDeserialize(bytes));
  const { identity, keepalive = ENVOY_KEEPALIVE } = options;
  let client: Client | undefined;
  const calls = new Set<OpenCall>();

  function closeClient(): void {
    client?.close();
    client = undefined;
  }

  /**
   * Closes a channel that is not connected. It would reconnect in the background with its own backoff and fail new
   * streams with its last error, whereas Envoy connects for each stream and reports the result of that attempt.
   */
  function closeUnlessReady(): void {
    if (calls.size > 0) return;
    if (client?.getChannel().getConnectivityState(false) !== connectivityState.READY) closeClient();
  }

  /** @throws Error if the files of the identity cannot be used */
  function startCall(): ClientDuplexStream<ReportMessage, ResponseMessage> {
    client ??= new Client(
      options.address,
      identity?.credentials(options.address) ?? credentials.createInsecure(),
      {
        ...CHANNEL_OPTIONS,
        'grpc.keepalive_time_ms': keepalive.intervalMs,
        'grpc.keepalive_timeout_ms': keepalive.timeoutMs,
        ...identity?.channelOptions(options.address),
      },
    );
    const metadata = identity?.metadata() ?? new Metadata();
    return client.makeBidiStreamRequest<ReportMessage, ResponseMessage>(
      method.path,
      encodeReport,
      decode,
      metadata,
    );
  }

  return {
    openStream(handlers) {
      let call: ClientDuplexStream<ReportMessage, ResponseMessage>;
      try {
        call = startCall();
      } catch (error) {
        // A certificate and a key that were read while they were replaced may not match. The next stream reads them again.
        return failedStream(handlers, errorMessage(error));
      }
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
      // The status event carries the same and is also emitted for OK; an unhandled error would end the process.
      call.on('error', () => {});
      call.on('status', ({ code, details }) => openCall.end(code, details));
      return {
        // Reports are queued as objects and encoded when the previous ones have been written, so backpressure costs
        // no copies; max_retries bounds the queue.
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

/** An open call; without a code, `end` does not call `onEnd`. */
interface OpenCall {
  readonly call: ClientDuplexStream<ReportMessage, ResponseMessage>;
  end(code: number | undefined, message: string): void;
}

/** Returns a stream that ends at once, because no call could be started. */
function failedStream(handlers: StreamHandlers, message: string): ReportStream {
  const timer = setImmediate(() => handlers.onEnd({ code: status.UNAVAILABLE, message }));
  return { send() {}, reset: () => clearImmediate(timer) };
}

function toResponse(wire: Partial<ReportResponse>): ResponseMessage {
  const { report_interval: interval, error_detail: error } = wire;
  return {
    requestNonce: BigInt(wire.request_nonce ?? 0),
    reportIntervalMs: interval && Number(interval.seconds) * 1000 + Math.trunc(interval.nanos / 1e6),
    error,
  };
}
