import type { Socket } from 'node:net';
import { PREFACE } from './http2-frame.ts';

/** The protocol that a peer speaks, by its first bytes; `undecided` while they are too few. */
export type Protocol = 'http2' | 'http1' | 'tls' | 'proxy_protocol' | 'not_http2' | 'undecided';

/**
 * What a peer sent instead of HTTP/2: a name from a closed set, or the first bytes, escaped, if they are not recognized.
 * Nothing is guessed.
 */
export type PeerDescription = { readonly protocol: string } | { readonly firstBytes: string };

/** Maximum number of bytes that a description contains. */
const MAX_DESCRIBED_BYTES = 32;
/** A request line that is longer is taken for HTTP/1 by its method alone. */
const MAX_REQUEST_LINE_BYTES = 1024;

/** A TLS record of type handshake with the major version that all TLS versions share. */
const TLS_HANDSHAKE = '\u0016\u0003';
/** The signature of the PROXY protocol, version 2 (section 2.2 of its specification). */
const PROXY_V2 = '\r\n\r\n\0\r\nQUIT\n';
const PROXY_V1 = 'PROXY ';
const HTTP1_METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH'];
/** Texts by which a protocol is recognized, and of which a shorter prefix decides nothing. */
const LITERALS: readonly string[] = [
  PREFACE.toString('latin1'),
  TLS_HANDSHAKE,
  PROXY_V1,
  PROXY_V2,
  ...HTTP1_METHODS.map((method) => `${method} `),
  'SSH-',
  'EHLO ',
  'HELO ',
  'AMQP',
];

// oxlint-disable no-control-regex -- binary protocols begin with control characters.
/**
 * Other protocols by their first bytes, as Latin-1. Each pattern is specific enough that meaningless bytes rarely match.
 */
const OTHER_PROTOCOLS: readonly (readonly [name: string, pattern: RegExp])[] = [
  ['SSH', /^SSH-/],
  ['SOCKS 5', /^\u0005([\u0001-\u0008])[^]{1,8}$/],
  ['SOCKS 4', /^\u0004[\u0001\u0002][^]{6}/],
  ['Redis', /^(?:\*\d+\r\n\$|(?:PING|INFO|AUTH [^\r\n]*)\r\n)/i],
  ['memcached', /^(?:stats|version|gets? [^\r\n]*)\r\n/],
  ['SMTP', /^(?:EHLO|HELO) /i],
  ['SIP', /^[A-Z]+ sips?:/],
  ['RTSP', /^[A-Z]+ rtsp:/],
  ['HTTP/0.9', /^GET \S+\r?\n/],
  ['AMQP', /^AMQP/],
  ['MQTT', /^\u0010[^]{1,4}\0(?:\u0004MQTT|\u0006MQIsdp)/],
  ['PostgreSQL', /^\0\0[^]{2}(?:\0\u0003\0[\0-\u0002]|\u0004\u00d2\u0016[\u002e-\u0030])/],
  ['LDAP', /^0[^]{1,5}\u0002\u0001[^][\u0060\u0063\u0077]/],
  ['Kafka', /^\0\0[^]{2}\0[\0-\u0060]\0[\0-\u0020][^]{4}\0[^]/],
  ['RDP', /^\u0003\0\0[^][^]\u00e0/],
  ['SMB', /^\0[^]{3}[\u00fe\u00ff]SMB/],
  ['Telnet', /^\u00ff[\u00fb-\u00fe]/],
  ['SSL 2.0', /^[\u0080-\u00ff][^]\u0001(?:\0\u0002|\u0003[\0-\u0003])/],
  // A SETTINGS frame on stream 0, whose length is a multiple of 6.
  [
    'HTTP/2 without the connection preface',
    /^\0\0[\0\u0006\u000c\u0012\u0018\u001e\u0024]\u0004[\0\u0001]\0{4}/,
  ],
];
// oxlint-enable no-control-regex

/** Detects the protocol of a connection that begins with these bytes. */
export function detectProtocol(bytes: Buffer): Protocol {
  const preface = bytes.subarray(0, PREFACE.length);
  if (preface.equals(PREFACE.subarray(0, preface.length))) {
    return preface.length === PREFACE.length ? 'http2' : 'undecided';
  }
  const text = bytes.toString('latin1', 0, MAX_REQUEST_LINE_BYTES);
  if (text.startsWith(TLS_HANDSHAKE)) return 'tls';
  if (text.startsWith(PROXY_V1) || text.startsWith(PROXY_V2)) return 'proxy_protocol';
  if (LITERALS.some((literal) => literal.startsWith(text))) return 'undecided';
  return detectHttp1(text);
}

/** HTTP/1 is recognized by its whole request line: RTSP and SIP have some of its methods. */
function detectHttp1(text: string): Protocol {
  const [method = ''] = text.split(' ', 1);
  if (!HTTP1_METHODS.includes(method)) return 'not_http2';
  const [line = '', rest] = text.split('\n', 2);
  if (rest === undefined) return text.length < MAX_REQUEST_LINE_BYTES ? 'undecided' : 'http1';
  return / HTTP\/1\.\d\r?$/.test(line) ? 'http1' : 'not_http2';
}

/** Describes what a peer sent that does not speak HTTP/2. */
export function describePeer(first: Buffer): PeerDescription {
  const text = first.toString('latin1', 0, MAX_REQUEST_LINE_BYTES);
  if (text.startsWith(PROXY_V1)) return { protocol: 'PROXY protocol version 1' };
  if (text.startsWith(PROXY_V2)) return { protocol: 'PROXY protocol version 2' };
  const protocol = detectProtocol(first);
  if (protocol === 'tls') return { protocol: 'TLS' };
  if (protocol === 'http1') return { protocol: 'HTTP/1' };
  if (protocol === 'http2') return { protocol: 'HTTP/2' };
  const [name] = OTHER_PROTOCOLS.find(([, pattern]) => pattern.test(text)) ?? [];
  return name === undefined ? { firstBytes: escapeBytes(first) } : { protocol: name };
}

/** Escapes the first bytes: printable ASCII as it is, others as `\r`, `\n` or `\xNN`. */
function escapeBytes(bytes: Buffer): string {
  const escaped = Array.from(bytes.subarray(0, MAX_DESCRIBED_BYTES), (byte) => {
    if (byte === 0x0d) return String.raw`\r`;
    if (byte === 0x0a) return String.raw`\n`;
    if (byte === 0x5c) return String.raw`\\`;
    return byte >= 0x20 && byte < 0x7f
      ? String.fromCodePoint(byte)
      : String.raw`\x${byte.toString(16).padStart(2, '0')}`;
  }).join('');
  return bytes.length > MAX_DESCRIBED_BYTES ? `${escaped}…` : escaped;
}

/**
 * Reads from the socket until the protocol is known; `first` is everything that was read.
 *
 * @param onUndecided called with everything that was read so far, while the protocol is unknown
 */
export function readPreface(
  socket: Socket,
  onDetected: (protocol: Exclude<Protocol, 'undecided'>, first: Buffer) => void,
  onUndecided?: (first: Buffer) => void,
): void {
  let first = Buffer.alloc(0);
  const read = (chunk: Buffer): void => {
    first = Buffer.concat([first, chunk]);
    const protocol = detectProtocol(first);
    if (protocol === 'undecided') {
      onUndecided?.(first);
      return;
    }
    socket.removeListener('data', read);
    onDetected(protocol, first);
  };
  socket.on('data', read);
}
