/** Streams that begin wrongly, each in its own way (CVE-2026-48068, CVE-2026-33186). */
import {
  END_HEADERS,
  END_STREAM,
  FRAME,
  frame,
  grpcMessage,
  headerBlock,
  opening,
  PADDED,
  requestFields,
} from '../raw-http2.ts';

const PRIORITY = 0x20;
const CANCEL = Buffer.from([0, 0, 0, 8]);

/** What is sent on stream 1, right behind the preface. */
export interface MalformedStart {
  readonly what: string;
  readonly bytes: Buffer;
}

function start(fields: readonly (readonly [string, string])[], flags = END_HEADERS): Buffer {
  return frame(FRAME.headers, flags, 1, headerBlock(fields));
}

function without(name: string): [string, string][] {
  return requestFields().filter(([other]) => other !== name);
}

function withField(name: string, value: string): Buffer {
  return start(requestFields({ [name]: value }));
}

const DATA = frame(FRAME.data, END_STREAM, 1, grpcMessage(Buffer.alloc(3)));
const RESET = frame(FRAME.rstStream, 0, 1, CANCEL);

/** Streams whose first frames are no call of the service. */
export const MALFORMED_STARTS: readonly MalformedStart[] = [
  ...[':method', ':path', ':scheme', ':authority', 'content-type', 'te'].map((name) => ({
    what: `no ${name}`,
    bytes: start(without(name)),
  })),
  { what: 'no headers at all', bytes: frame(FRAME.headers, END_HEADERS, 1) },
  { what: 'no headers at all, and its end', bytes: frame(FRAME.headers, END_HEADERS | END_STREAM, 1) },
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
    what: `the path ${JSON.stringify(path.slice(0, 20))}`,
    bytes: withField(':path', path),
  })),
  ...['GET', 'HEAD', 'OPTIONS', 'CONNECT', '', 'post'].map((method) => ({
    what: `the method ${JSON.stringify(method)}`,
    bytes: withField(':method', method),
  })),
  {
    what: 'a HEAD that has ended',
    bytes: start(requestFields({ ':method': 'HEAD' }), END_HEADERS | END_STREAM),
  },
  ...['', 'text/html', 'application/grpc-web', 'application/grpcx', 'Application/gRPC'].map((type) => ({
    what: `the content-type ${JSON.stringify(type)}`,
    bytes: withField('content-type', type),
  })),
  ...['', '1', '1x', '-1S', '99999999999H', '00000000n', '1S, 2S'].map((timeout) => ({
    what: `the grpc-timeout ${JSON.stringify(timeout)}`,
    bytes: withField('grpc-timeout', timeout),
  })),
  ...['', 'identity,gzip', 'gzip,identity', '%', '\u00ff', 'gzip;q=1'].map((encoding) => ({
    what: `the grpc-encoding ${JSON.stringify(encoding)}`,
    bytes: Buffer.concat([
      withField('grpc-encoding', encoding),
      frame(FRAME.data, 0, 1, grpcMessage(Buffer.from('no gzip'), 7, 1)),
    ]),
  })),
  { what: 'a header whose name is upper case', bytes: withField('X-Upper', 'a') },
  { what: 'a header with a line break', bytes: withField('a', 'b\r\nc: d') },
  { what: 'a header with a NUL', bytes: withField('a', 'b\0c') },
  { what: 'a binary header that is no base64', bytes: withField('a-bin', '***') },
  { what: 'a header named __proto__', bytes: withField('__proto__', 'a') },
  { what: 'the header that the server uses itself', bytes: withField('reverse-tunnel-stream-id', '-1, x') },
  { what: 'a status', bytes: withField(':status', '200') },
  { what: 'a pseudo-header that there is not', bytes: withField(':what', '1') },
  { what: 'a pseudo-header behind others', bytes: start([...without(':path'), [':path', '/a/b']]) },
  { what: 'each header twice', bytes: start([...requestFields(), ...requestFields()]) },
  { what: '200 headers', bytes: start([...requestFields(), ...manyFields(200)]) },
  { what: 'connection and transfer-encoding', bytes: withField('transfer-encoding', 'chunked') },
  {
    what: 'a content-length that does not fit',
    bytes: Buffer.concat([withField('content-length', '3'), DATA]),
  },
  { what: 'its reset in the same packet', bytes: Buffer.concat([opening(1), RESET]) },
  { what: 'its end in the same frame', bytes: start(requestFields(), END_HEADERS | END_STREAM) },
  {
    what: 'its end in the same frame, and its reset behind it',
    bytes: Buffer.concat([start(requestFields(), END_HEADERS | END_STREAM), RESET]),
  },
  {
    what: 'an unknown path, its end and its reset',
    bytes: Buffer.concat([start(requestFields({ ':path': '/x' }), END_HEADERS | END_STREAM), RESET]),
  },
  {
    what: 'another content-type, and its reset',
    bytes: Buffer.concat([withField('content-type', 'text/html'), RESET]),
  },
  { what: 'its headers again', bytes: Buffer.concat([opening(1), opening(1)]) },
  { what: 'trailers', bytes: Buffer.concat([opening(1), start([['a', 'b']], END_HEADERS | END_STREAM)]) },
  { what: 'DATA first', bytes: DATA },
  { what: 'DATA behind its end', bytes: Buffer.concat([opening(1), DATA, DATA]) },
  { what: 'an even number', bytes: frame(FRAME.headers, END_HEADERS, 2, headerBlock(requestFields())) },
  { what: 'the number 0', bytes: frame(FRAME.headers, END_HEADERS, 0, headerBlock(requestFields())) },
  {
    what: 'the greatest number',
    bytes: frame(FRAME.headers, END_HEADERS, 0x7fff_ffff, headerBlock(requestFields())),
  },
  { what: 'a lower number after a higher one', bytes: Buffer.concat([opening(5), opening(3)]) },
  {
    what: 'more padding than there are bytes',
    bytes: frame(FRAME.headers, END_HEADERS | PADDED, 1, Buffer.from([255, 1])),
  },
  {
    what: 'a priority that depends on itself',
    bytes: frame(
      FRAME.headers,
      END_HEADERS | PRIORITY,
      1,
      Buffer.concat([Buffer.from([0, 0, 0, 1, 0]), headerBlock(requestFields())]),
    ),
  },
  {
    what: 'header bytes that mean nothing',
    bytes: frame(FRAME.headers, END_HEADERS, 1, Buffer.alloc(50, 0xff)),
  },
  {
    what: 'a header length beyond its frame',
    bytes: frame(FRAME.headers, END_HEADERS, 1, Buffer.from([0, 0x7f, 0xff])),
  },
  { what: 'PUSH_PROMISE', bytes: frame(FRAME.pushPromise, END_HEADERS, 1, Buffer.from([0, 0, 0, 2])) },
  { what: 'a frame that is too long', bytes: frame(FRAME.data, 0, 1, Buffer.alloc(20_000)) },
  { what: 'a frame whose length is a lie', bytes: frame(FRAME.ping, 0, 0, Buffer.alloc(8), 0xff_ffff) },
  {
    what: 'GOAWAY, then a stream',
    bytes: Buffer.concat([frame(FRAME.goaway, 0, 0, Buffer.alloc(8)), opening(1), DATA]),
  },
];

function manyFields(count: number): [string, string][] {
  return Array.from({ length: count }, (_, i) => [`x-${i}`, 'a']);
}
