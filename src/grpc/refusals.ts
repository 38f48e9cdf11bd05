import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { sparingly } from './sparing-log.ts';

/** Why a connection is refused or cut, and how that is said to people. The keys are the metric's only labels. */
const WORDS = {
  connections: 'as many connections are open as may be',
  address_connections: 'this address has as many connections open as it may have',
  http1: 'it speaks HTTP/1, this port speaks gRPC (HTTP/2)',
  tls: 'it speaks TLS, this port is plaintext',
  plaintext: 'it speaks plaintext, this port wants TLS',
  tls_handshake: 'the TLS handshake failed',
  no_certificate: 'it shows no client certificate',
  certificate_expired: 'its certificate has expired',
  certificate_not_yet_valid: 'its certificate is not valid yet',
  certificate_untrusted: 'its certificate is not of an authority that is believed here',
  certificate_invalid: 'its certificate is not one for a client, or cannot be read',
  not_http2: 'it does not speak HTTP/2',
  silent: 'it did not begin to speak HTTP/2 in time',
  header_block: 'it sends headers that are too long',
  tiny_frames: 'it sends a report in too many, too small frames',
  control_frames: 'it sends too many frames that carry no report',
  new_streams: 'it opens too many streams',
  held_bytes: 'it makes the operator hold too many bytes of reports',
  held_streams: 'it holds too many streams open',
  unproven_calls: 'it has too many calls whose token is still to be reviewed',
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
    const about = { address, reason, ...(detail === undefined ? {} : { detail }) };
    say(reason, (more) => log.warn({ ...about, ...more }, `connection refused: ${WORDS[reason]}`));
  };
}

/** As the log says it, for the peer's log. */
export function refusalWords(reason: RefusalReason): string {
  return WORDS[reason];
}
