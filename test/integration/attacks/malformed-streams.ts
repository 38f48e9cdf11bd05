/** Malformed starts of streams (CVE-2026-48068, CVE-2026-33186). */
import {
  END_HEADERS,
  END_STREAM,
  FRAME,
  frame,
  grpcMessage,
  headerBlock,
  openingFrame,
  PADDED,
  requestFields,
} from '../../support/raw-http2.ts';

const PRIORITY = 0x20;
const CANCEL = Buffer.from([0, 0, 0, 8]);

/** Bytes sent on stream 1, directly after the preface. */
export interface MalformedStream {
  readonly description: string;
  readonly bytes: Buffer;
}

function headersFrame(fields: readonly (readonly [string, string])[], flags = END_HEADERS): Buffer {
  return frame(FRAME.headers, flags, 1, headerBlock(fields));
}

function fieldsWithout(name: string): [string, string][] {
  return requestFields().filter(([fieldName]) => fieldName !== name);
}

function withField(name: string, value: string): Buffer {
  return headersFrame(requestFields({ [name]: value }));
}

const DATA_FRAME = frame(FRAME.data, END_STREAM, 1, grpcMessage(Buffer.alloc(3)));
const RESET_FRAME = frame(FRAME.rstStream, 0, 1, CANCEL);

/** Streams whose first frames are not a call of the service. */
export const MALFORMED_STREAMS: readonly MalformedStream[] = [
  ...[':method', ':path', ':scheme', ':authority', 'content-type', 'te'].map((name) => ({
    description: `no ${name}`,
    bytes: headersFrame(fieldsWithout(name)),
  })),
  { description: 'no headers', bytes: frame(FRAME.headers, END_HEADERS, 1) },
  { description: 'no headers, with END_STREAM', bytes: frame(FRAME.headers, END_HEADERS | END_STREAM, 1) },
  ...[
    '',
    'no-slash',
    '/',
    '//',
    '*',
    '/%',
    '/a/b/c',
    `/${'x'.repeat(8000)}`,
    '/\u00e9',
    '/a b',
    '/a?b#c',
  ].map((path) => ({
    description: `the path ${JSON.stringify(path.slice(0, 20))}`,
    bytes: withField(':path', path),
  })),
  ...['GET', 'HEAD', 'OPTIONS', 'CONNECT', '', 'post'].map((method) => ({
    description: `the method ${JSON.stringify(method)}`,
    bytes: withField(':method', method),
  })),
  {
    description: 'a HEAD with END_STREAM',
    bytes: headersFrame(requestFields({ ':method': 'HEAD' }), END_HEADERS | END_STREAM),
  },
  ...['', 'text/html', 'application/grpc-web', 'application/grpcx', 'Application/gRPC'].map((type) => ({
    description: `the content-type ${JSON.stringify(type)}`,
    bytes: withField('content-type', type),
  })),
  ...['', '1', '1x', '-1S', '99999999999H', '00000000n', '1S, 2S'].map((timeout) => ({
    description: `the grpc-timeout ${JSON.stringify(timeout)}`,
    bytes: withField('grpc-timeout', timeout),
  })),
  ...['', 'identity,gzip', 'gzip,identity', '%', '\u00ff', 'gzip;q=1'].map((encoding) => ({
    description: `the grpc-encoding ${JSON.stringify(encoding)}`,
    bytes: Buffer.concat([
      withField('grpc-encoding', encoding),
      frame(FRAME.data, 0, 1, grpcMessage(Buffer.from('not gzip'), 7, 1)),
    ]),
  })),
  { description: 'a header name in upper case', bytes: withField('X-Upper', 'a') },
  { description: 'a header with a line break', bytes: withField('a', 'b\r\nc: d') },
  { description: 'a header with a NUL', bytes: withField('a', 'b\0c') },
  { description: 'a binary header that is not base64', bytes: withField('a-bin', '***') },
  { description: 'a header named __proto__', bytes: withField('__proto__', 'a') },
  {
    description: 'the header that the server uses internally',
    bytes: withField('reverse-tunnel-stream-id', '-1, x'),
  },
  { description: 'a :status header', bytes: withField(':status', '200') },
  { description: 'an unknown pseudo-header', bytes: withField(':what', '1') },
  {
    description: 'a pseudo-header after regular headers',
    bytes: headersFrame([...fieldsWithout(':path'), [':path', '/a/b']]),
  },
  { description: 'every header twice', bytes: headersFrame([...requestFields(), ...requestFields()]) },
  { description: '200 headers', bytes: headersFrame([...requestFields(), ...manyFields(200)]) },
  { description: 'connection and transfer-encoding', bytes: withField('transfer-encoding', 'chunked') },
  {
    description: 'a wrong content-length',
    bytes: Buffer.concat([withField('content-length', '3'), DATA_FRAME]),
  },
  { description: 'a reset in the same packet', bytes: Buffer.concat([openingFrame(1), RESET_FRAME]) },
  {
    description: 'END_STREAM in the same frame',
    bytes: headersFrame(requestFields(), END_HEADERS | END_STREAM),
  },
  {
    description: 'END_STREAM in the same frame, followed by a reset',
    bytes: Buffer.concat([headersFrame(requestFields(), END_HEADERS | END_STREAM), RESET_FRAME]),
  },
  {
    description: 'an unknown path with END_STREAM and a reset',
    bytes: Buffer.concat([
      headersFrame(requestFields({ ':path': '/x' }), END_HEADERS | END_STREAM),
      RESET_FRAME,
    ]),
  },
  {
    description: 'another content-type, followed by a reset',
    bytes: Buffer.concat([withField('content-type', 'text/html'), RESET_FRAME]),
  },
  { description: 'repeated headers', bytes: Buffer.concat([openingFrame(1), openingFrame(1)]) },
  {
    description: 'trailers',
    bytes: Buffer.concat([openingFrame(1), headersFrame([['a', 'b']], END_HEADERS | END_STREAM)]),
  },
  { description: 'DATA before HEADERS', bytes: DATA_FRAME },
  { description: 'DATA after END_STREAM', bytes: Buffer.concat([openingFrame(1), DATA_FRAME, DATA_FRAME]) },
  {
    description: 'an even stream ID',
    bytes: frame(FRAME.headers, END_HEADERS, 2, headerBlock(requestFields())),
  },
  { description: 'stream ID 0', bytes: frame(FRAME.headers, END_HEADERS, 0, headerBlock(requestFields())) },
  {
    description: 'the maximum stream ID',
    bytes: frame(FRAME.headers, END_HEADERS, 0x7fff_ffff, headerBlock(requestFields())),
  },
  {
    description: 'a lower stream ID after a higher one',
    bytes: Buffer.concat([openingFrame(5), openingFrame(3)]),
  },
  {
    description: 'more padding than payload',
    bytes: frame(FRAME.headers, END_HEADERS | PADDED, 1, Buffer.from([255, 1])),
  },
  {
    description: 'a stream that depends on itself',
    bytes: frame(
      FRAME.headers,
      END_HEADERS | PRIORITY,
      1,
      Buffer.concat([Buffer.from([0, 0, 0, 1, 0]), headerBlock(requestFields())]),
    ),
  },
  {
    description: 'invalid HPACK',
    bytes: frame(FRAME.headers, END_HEADERS, 1, Buffer.alloc(50, 0xff)),
  },
  {
    description: 'a header length beyond the frame',
    bytes: frame(FRAME.headers, END_HEADERS, 1, Buffer.from([0, 0x7f, 0xff])),
  },
  { description: 'PUSH_PROMISE', bytes: frame(FRAME.pushPromise, END_HEADERS, 1, Buffer.from([0, 0, 0, 2])) },
  { description: 'an oversized frame', bytes: frame(FRAME.data, 0, 1, Buffer.alloc(20_000)) },
  {
    description: 'a frame with a wrong length',
    bytes: frame(FRAME.ping, 0, 0, Buffer.alloc(8), 0xff_ffff),
  },
  {
    description: 'GOAWAY followed by a stream',
    bytes: Buffer.concat([frame(FRAME.goaway, 0, 0, Buffer.alloc(8)), openingFrame(1), DATA_FRAME]),
  },
];

function manyFields(count: number): [string, string][] {
  return Array.from({ length: count }, (_, i) => [`x-${i}`, 'a']);
}
