import { PREFACE } from './http2-frame.ts';

/** What a peer speaks, judged by the first bytes it sends; `undecided` while they are too few. */
export type Protocol = 'http2' | 'http1' | 'tls' | 'not_http2' | 'undecided';

/** A TLS record of the type handshake, of a major version that TLS has had. */
const TLS_HANDSHAKE = Buffer.from([0x16, 0x03]);
/** The longest of HTTP's methods and more; a request line has a space behind it. */
const HTTP1_METHOD = /^[A-Z]{1,16}( |$)/;

/** What a connection that begins with these bytes speaks; `undecided` while they are too few to tell. */
export function detectProtocol(bytes: Buffer): Protocol {
  const preface = bytes.subarray(0, PREFACE.length);
  if (preface.equals(PREFACE.subarray(0, preface.length))) {
    return preface.length === PREFACE.length ? 'http2' : 'undecided';
  }
  if (bytes.length < TLS_HANDSHAKE.length) return 'undecided';
  if (bytes.subarray(0, TLS_HANDSHAKE.length).equals(TLS_HANDSHAKE)) return 'tls';
  return HTTP1_METHOD.test(bytes.toString('latin1', 0, 17)) ? 'http1' : 'not_http2';
}
