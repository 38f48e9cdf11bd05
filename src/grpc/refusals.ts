import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { sparingly } from './sparing-log.ts';

/** Why a connection is refused or cut, and how that is said to people. The keys are the metric's only labels. */
const WORDS = {
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
export type RefusalReason = keyof typeof WORDS;

/** Counts a connection that was refused or cut, and logs it. @param detail a code from a closed set */
export type Refuse = (reason: RefusalReason, address: string, detail?: string) => void;

/** Refusals that share one count of lines a minute. */
export function createRefusals(parts: {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}): Refuse {
  const { clock, log, metrics } = parts;
  const say = sparingly(clock);
  return (reason, address, detail) => {
    metrics.connectionsRefused.inc({ reason });
    const about = { address, reason, error: WORDS[reason], ...(detail === undefined ? {} : { detail }) };
    say(reason, (more) => log.warn({ ...about, ...more }, 'connection rejected'));
  };
}

/** As the log says it, for the peer's log. */
export function refusalWords(reason: RefusalReason): string {
  return WORDS[reason];
}
