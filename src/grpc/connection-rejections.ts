import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { createLogThrottle } from '../log-throttle.ts';

/** Why a connection is refused or cut, and how that is said to people. The keys are the metric's only labels. */
const MESSAGES = {
  connections: 'connection limit reached',
  address_connections: 'connection limit per address reached',
  http1: 'client sent HTTP/1; this port serves gRPC (HTTP/2)',
  tls: 'client sent TLS; this port serves plaintext',
  plaintext: 'client sent plaintext; this port requires TLS',
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

/** Why a connection is refused or cut. */
export type RejectionReason = keyof typeof MESSAGES;

/** Counts a connection that was refused or cut, and logs it. @param detail a code from a closed set */
export type RejectConnection = (reason: RejectionReason, address: string, detail?: string) => void;

/** Refusals that share one count of lines a minute. */
export function createConnectionRejector(options: {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}): RejectConnection {
  const { clock, log, metrics } = options;
  const throttled = createLogThrottle(clock);
  return (reason, address, detail) => {
    metrics.connectionsRejected.inc({ reason });
    const fields = { address, reason, error: MESSAGES[reason], ...(detail === undefined ? {} : { detail }) };
    throttled(reason, (more) => log.warn({ ...fields, ...more }, 'connection rejected'));
  };
}

/** As the log says it, for the peer's log. */
export function rejectionMessage(reason: RejectionReason): string {
  return MESSAGES[reason];
}
