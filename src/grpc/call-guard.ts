import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe } from 'node:diagnostics_channel';
import type { Http2Session, IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import {
  ServerInterceptingCall,
  type Metadata,
  type ServerDuplexStream,
  type ServerInterceptor,
} from '@grpc/grpc-js';
import type { ConnectionGuard } from './connection-guard.ts';
import type { MessageProgress } from './connection-guard-inbound.ts';
import type { ReportResponse } from './messages.ts';
import { ReportCall, type MessageGate, type SessionCall } from './report-call.ts';

/**
 * How much a stream, and a connection, may send ahead of what has been read. With HTTP/2's default of 64 KiB, a full
 * push takes one round trip per 64 KiB: 13 MB at 150 ms take 30 s, and Envoy gives up when its sixth report is due.
 */
const STREAM_WINDOW_BYTES = 1024 * 1024;
const CONNECTION_WINDOW_BYTES = 4 * STREAM_WINDOW_BYTES;

/**
 * The connection of the current call, which grpc-js does not expose. The reference is weak because Node keeps the
 * async context until the peer has acknowledged SETTINGS: a peer that violates the protocol and disconnects without
 * an acknowledgement would otherwise leak its connection.
 */
const connections = new AsyncLocalStorage<WeakRef<ConnectionGuard>>();
/** An internal header that carries the stream ID from HTTP/2 to the interceptor, which removes it. */
const STREAM_ID = 'reverse-tunnel-stream-id';

/**
 * The headers that grpc-js and this server use. All others are removed: grpc-js would copy them into the metadata that it
 * keeps as long as the stream is open, and 100 bytes on the wire can refer to 64 KB of headers of an earlier stream.
 */
const USED_HEADERS: ReadonlySet<string> = new Set([
  ':method',
  ':scheme',
  ':authority',
  ':path',
  'content-type',
  'grpc-timeout',
  'grpc-encoding',
  'authorization',
]);
/** No path of a service is longer. grpc-js repeats an unknown one in its response. */
const MAX_PATH_LENGTH = 256;
/** A number of 8 digits and a unit. grpc-js repeats an invalid one in its response, where a byte becomes up to 6. */
const MAX_TIMEOUT_LENGTH = 16;

/**
 * Prepares each stream before grpc-js sees it: the event's `headers` is the object that grpc-js reads a tick later.
 *
 * grpc-js decompresses gzip and deflate up to the maximum message size, so 255 kB on the wire can become 64 MB in
 * memory, and it has no option to disable that. The encoding is therefore replaced by an unknown name; a message with
 * the compressed flag is then answered with UNIMPLEMENTED, as the gRPC specification requires.
 */
subscribe('http2.server.stream.created', (message) => {
  const connection = connections.getStore()?.deref();
  if (connection === undefined) return;
  const { stream, headers } = message as { stream: ServerHttp2Stream; headers: IncomingHttpHeaders };
  if (stream.session !== undefined) widenWindows(stream.session);
  connection.onStreamOpened(stream);
  guardResponse(stream);
  limitHeaders(headers);
  headers[STREAM_ID] = String(stream.id);
  const encoding = headers['grpc-encoding'];
  if (encoding !== undefined && encoding !== 'identity')
    headers['grpc-encoding'] = 'any; only identity is supported';
});

/** Removes what is not used, and shortens what a response would repeat. */
function limitHeaders(headers: IncomingHttpHeaders): void {
  for (const name of Object.keys(headers)) if (!USED_HEADERS.has(name)) delete headers[name];
  const { ':path': path, 'grpc-timeout': timeout } = headers;
  if (path !== undefined && path.length > MAX_PATH_LENGTH) headers[':path'] = path.slice(0, MAX_PATH_LENGTH);
  if (timeout !== undefined && timeout.length > MAX_TIMEOUT_LENGTH) headers['grpc-timeout'] = 'too long';
}

/**
 * Widens the flow-control windows of a connection when its first stream is opened: grpc-js, which owns the HTTP/2
 * server, has no option for them. The stream that is already open gains the difference.
 */
function widenWindows(session: Http2Session): void {
  if (session.destroyed || session.state.effectiveLocalWindowSize === CONNECTION_WINDOW_BYTES) return;
  session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
  session.settings({ initialWindowSize: STREAM_WINDOW_BYTES });
}

/** The name and the only value of the header that states which encodings the server accepts. */
const ACCEPT_ENCODING = 'grpc-accept-encoding';

/**
 * Adds to every response, also to one that consists of trailers only, which encodings the server accepts: a client that
 * sent a compressed message learns from it that it must not. grpc-js adds it only to responses with a message, and names
 * encodings that this server rejects.
 *
 * Also ignores a response to a stream that is already closed, because its end and its reset arrived in one packet. Node
 * would throw where nothing catches it, so an unknown path or content-type sent that way would end the process.
 */
function guardResponse(stream: ServerHttp2Stream): void {
  const respond = stream.respond.bind(stream);
  stream.respond = (headers, options) => {
    if (stream.destroyed || stream.closed) return;
    respond(Object.assign({}, headers, { [ACCEPT_ENCODING]: 'identity' }), options);
  };
}

/** Runs `inject`, which passes a connection to grpc-js, so that the connection's calls can find their guard. */
export function runInConnection(guard: ConnectionGuard, inject: () => void): void {
  connections.run(new WeakRef(guard), inject);
}

/** Returns the connection of the call whose handler is being started; undefined if it has no guard. */
export function currentConnection(): ConnectionGuard | undefined {
  return connections.getStore()?.deref();
}

/** The inbound half of a call. */
interface CallGate extends MessageGate {
  /** Returns how far the next message has arrived; undefined if none has begun. */
  progress(): MessageProgress | undefined;
}

const gates = new WeakMap<Metadata, CallGate>();

/**
 * Delivers a stream's messages one at a time. grpc-js itself reads up to 16 messages ahead of a paused stream, each up
 * to the maximum message size. With this interceptor, all but one flow-control window of them stay with the peer.
 */
export const guardCalls: ServerInterceptor = (method, call) => {
  const connection = connections.getStore()?.deref();
  if (connection === undefined) return new ServerInterceptingCall(call);
  let streamId = 0;
  let isBusy = false;
  const readNext = (): void => call.startRead();
  const gate: CallGate = {
    call,
    reader: undefined,
    open() {
      if (isBusy) connection.messageDone(streamId);
      isBusy = false;
      // Not at once: one packet may contain thousands of reports, each of which would be read within the previous one.
      queueMicrotask(readNext);
    },
    progress: () => connection.messageProgress(streamId),
  };
  return new ServerInterceptingCall(call, {
    start(startCall) {
      startCall({
        onReceiveMetadata(metadata, next) {
          streamId = Number(metadata.get(STREAM_ID)[0]);
          metadata.remove(STREAM_ID);
          if (method.requestStream) gates.set(metadata, gate);
          next(metadata);
        },
        onReceiveMessage(message: Buffer, next) {
          isBusy = method.requestStream;
          if (gate.reader === undefined) next(message);
          else gate.reader.onMessage(message);
        },
        onReceiveHalfClose(next) {
          if (gate.reader === undefined) next();
          else gate.reader.onEnd();
        },
      });
    },
  });
};

/** Returns the call of a stream of reports, of which nothing has been read. */
export function openReportCall(stream: ServerDuplexStream<Buffer, ReportResponse>): SessionCall {
  const gate = gates.get(stream.metadata);
  return gate === undefined ? stream : new ReportCall(stream, gate).asCall;
}

/** Returns how far the call's next message has arrived; undefined if none has begun. */
export function messageProgress(metadata: Metadata): MessageProgress | undefined {
  return gates.get(metadata)?.progress();
}
