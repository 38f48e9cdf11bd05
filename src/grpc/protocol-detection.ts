import type { Socket } from 'node:net';
import { PREFACE } from './http2-frame.ts';

/** The protocol that a peer speaks, by its first bytes; `undecided` while they are too few. */
export type Protocol = 'http2' | 'http1' | 'tls' | 'not_http2' | 'undecided';

/** A TLS record of type handshake with the major version that all TLS versions share. */
const TLS_HANDSHAKE = Buffer.from([0x16, 0x03]);
/** Longer than any HTTP method; in a request line, a space follows the method. */
const HTTP1_METHOD = /^[A-Z]{1,16}( |$)/;

/** Detects the protocol of a connection that begins with these bytes. */
export function detectProtocol(bytes: Buffer): Protocol {
  const preface = bytes.subarray(0, PREFACE.length);
  if (preface.equals(PREFACE.subarray(0, preface.length))) {
    return preface.length === PREFACE.length ? 'http2' : 'undecided';
  }
  if (bytes.length < TLS_HANDSHAKE.length) return 'undecided';
  if (bytes.subarray(0, TLS_HANDSHAKE.length).equals(TLS_HANDSHAKE)) return 'tls';
  return HTTP1_METHOD.test(bytes.toString('latin1', 0, 17)) ? 'http1' : 'not_http2';
}

/** Reads from the socket until the protocol is known; `first` is everything that was read. */
export function readPreface(
  socket: Socket,
  onDetected: (protocol: Exclude<Protocol, 'undecided'>, first: Buffer) => void,
): void {
  let first = Buffer.alloc(0);
  const read = (chunk: Buffer): void => {
    first = Buffer.concat([first, chunk]);
    const protocol = detectProtocol(first);
    if (protocol === 'undecided') return;
    socket.removeListener('data', read);
    onDetected(protocol, first);
  };
  socket.on('data', read);
}
