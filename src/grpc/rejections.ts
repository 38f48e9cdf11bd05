import { status } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { createLogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { PeerDescription } from './protocol-detection.ts';

/**
 * Messages for the rejection of a connection, for the log and for the peer. The keys are the only values of the
 * metric's label.
 */
const CONNECTION_MESSAGES = {
  connections: 'connection limit reached',
  address_connections: 'connection limit per address reached',
  http1: 'client sent HTTP/1; this port serves gRPC (HTTP/2)',
  tls: 'client sent TLS; this port serves plaintext',
  plaintext: 'client sent plaintext; this port requires TLS',
  proxy_protocol:
    'client sent a PROXY protocol header, which is not supported; disable it at the load balancer',
  tls_handshake: 'TLS handshake failed',
  no_certificate: 'client certificate required',
  certificate_expired: 'client certificate has expired',
  certificate_not_yet_valid: 'client certificate is not yet valid',
  certificate_untrusted: 'client certificate is signed by an unknown authority',
  certificate_invalid: 'client certificate is unreadable or not valid for client authentication',
  not_http2: 'client does not speak HTTP/2',
  handshake_timeout: 'HTTP/2 handshake timed out',
  header_block: 'header block too large',
  small_frames: 'report split into too many small frames',
  control_frames: 'too many control frames',
  stream_rate: 'streams opened too fast',
  buffered_bytes: 'too many buffered report bytes',
  open_streams: 'too many open streams',
  pending_authentication: 'too many calls with a pending token review',
} as const;

/** What an operator can do about a rejection, for the log. */
const CONNECTION_HINTS: Partial<Record<ConnectionRejectionReason, string>> = {
  address_connections: 'many reporters behind one NAT or proxy? raise --max-connections-per-address',
};

/** Why a connection is rejected or terminated. */
export type ConnectionRejectionReason = keyof typeof CONNECTION_MESSAGES;

/**
 * Counts and logs a connection that was rejected or terminated.
 *
 * @param detail a code from a closed set, such as an OpenSSL error code, or what the peer sent instead of HTTP/2
 */
export type RejectConnection = (
  reason: ConnectionRejectionReason,
  address: string,
  detail?: string | PeerDescription,
) => void;

/**
 * gRPC statuses for the rejection of a stream before any of its messages is read. The keys are the only values of
 * the metric's label.
 *
 * `UNAUTHENTICATED` means that the stream will be rejected until its credential changes; `UNAVAILABLE` means that a
 * retry may succeed. Envoy reconnects in both cases; the status is for people who read its log.
 */
const STREAM_REJECTIONS = {
  no_credential: {
    code: status.UNAUTHENTICATED,
    message: 'missing credential: send `authorization: Bearer TOKEN`',
  },
  malformed_token: { code: status.UNAUTHENTICATED, message: 'not a ServiceAccount token' },
  token_expired: { code: status.UNAUTHENTICATED, message: 'token has expired' },
  token_audience: { code: status.UNAUTHENTICATED, message: 'token is for another audience' },
  token_rejected: {
    code: status.UNAUTHENTICATED,
    message: 'token rejected by the API server for this audience',
  },
  certificate_expired: { code: status.UNAUTHENTICATED, message: 'client certificate has expired' },
  connection_max_age: {
    code: status.UNAVAILABLE,
    message: 'connection exceeded its maximum age; reconnect',
  },
  review_error: { code: status.UNAVAILABLE, message: 'token review failed' },
  review_timeout: { code: status.UNAVAILABLE, message: 'token review timed out' },
  shutdown: { code: status.UNAVAILABLE, message: 'the operator is shutting down' },
} as const;

/** Why a stream is rejected. */
export type StreamRejectionReason = keyof typeof STREAM_REJECTIONS;

/** Counts and logs a rejected stream, and returns the status for its peer. */
export type RejectStream = (
  reason: StreamRejectionReason,
  address: string,
) => { readonly code: status; readonly details: string };

/** Where rejections are counted and logged. */
export interface RejectorOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** Creates a `RejectConnection` that logs at most one line per reason, recognized protocol and minute. */
export function createConnectionRejector({ clock, log, metrics }: RejectorOptions): RejectConnection {
  const throttled = createLogThrottle(clock);
  return (reason, address, detail) => {
    metrics.connectionsRejected.inc({ reason });
    const error = CONNECTION_MESSAGES[reason];
    const details = typeof detail === 'object' ? detail : detail === undefined ? {} : { detail };
    const hint = CONNECTION_HINTS[reason];
    const fields = { address, reason, error, ...details, ...(hint === undefined ? {} : { hint }) };
    // Names of protocols are a closed set, unlike bytes.
    const key = 'protocol' in details ? `${reason} ${details.protocol}` : reason;
    throttled(key, (more) => log.warn({ ...fields, ...more }, 'connection rejected'));
  };
}

/** Returns the message of the log for the peer. */
export function connectionRejectionMessage(reason: ConnectionRejectionReason): string {
  return CONNECTION_MESSAGES[reason];
}

/** Creates a `RejectStream` that logs at most one line per reason and minute. */
export function createStreamRejector({ clock, log, metrics }: RejectorOptions): RejectStream {
  const throttled = createLogThrottle(clock);
  return (reason, address) => {
    const { code, message } = STREAM_REJECTIONS[reason];
    metrics.streamsRejected.inc({ reason });
    throttled(reason, (more) => log.warn({ address, reason, error: message, ...more }, 'stream rejected'));
    return { code, details: message };
  };
}
