import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe } from 'node:diagnostics_channel';
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { ServerInterceptingCall, type Metadata, type ServerInterceptor } from '@grpc/grpc-js';
import type { ConnectionGuard } from './connection-guard.ts';
import { widenWindows } from './flow-control.ts';

/**
 * Which connection a call came on: gRPC hides it. Weak, as Node holds what is in here for as long as it waits for the ACK
 * of its SETTINGS: of a peer that breaks the protocol and goes without one, so for ever, and the connection with it.
 */
const connections = new AsyncLocalStorage<WeakRef<ConnectionGuard>>();
/** As which of its streams, in a header that is taken out again. */
const STREAM_ID = 'reverse-tunnel-stream-id';

/**
 * Before gRPC sees a stream: its headers are this very object, and it looks at them a tick later.
 *
 * gRPC inflates what comes as gzip or deflate, up to the greatest message: 255 kB on the wire can be 64 MB here.
 * There is no way to turn that off, so it is given the name of an encoding that it does not know; a message with the
 * compressed flag then gets UNIMPLEMENTED, as gRPC's specification has it.
 */
subscribe('http2.server.stream.created', (message) => {
  const connection = connections.getStore()?.deref();
  if (connection === undefined) return;
  const { stream, headers } = message as { stream: ServerHttp2Stream; headers: IncomingHttpHeaders };
  if (stream.session !== undefined) widenWindows(stream.session);
  connection.onStreamOpened(stream);
  ignoreLateResponse(stream);
  headers[STREAM_ID] = String(stream.id);
  const encoding = headers['grpc-encoding'];
  if (encoding !== undefined && encoding !== 'identity')
    headers['grpc-encoding'] = 'any; only identity is read';
});

/**
 * A stream can be over when gRPC answers it: its end and its reset came in one packet. Node throws then, where nobody
 * catches it: an unknown path, or another content-type, sent so would end the process.
 */
function ignoreLateResponse(stream: ServerHttp2Stream): void {
  const respond = stream.respond.bind(stream);
  stream.respond = (...response) => {
    if (!stream.destroyed && !stream.closed) respond(...response);
  };
}

/** Runs what hands a connection to gRPC, so that its calls know where they come from. */
export function runInConnection(guard: ConnectionGuard, inject: () => void): void {
  connections.run(new WeakRef(guard), inject);
}

/** The connection of the call whose handler is being started; undefined where there is no guard. */
export function currentConnection(): ConnectionGuard | undefined {
  return connections.getStore()?.deref();
}

/** The inbound half of a call: it hands over one message at a time. */
interface MessageGate {
  /** The message that was handed over has been dealt with: the next one may come. */
  open(): void;
}

const gates = new WeakMap<Metadata, MessageGate>();

/**
 * Hands a stream its messages one at a time. By itself gRPC reads up to 16 messages ahead of a stream that is paused,
 * each as large as a message may be; held back here, they stay with the peer but for a flow-control window.
 */
export const guardCalls: ServerInterceptor = (method, call) => {
  const connection = connections.getStore()?.deref();
  if (connection === undefined) return new ServerInterceptingCall(call);
  let streamId = 0;
  let busy = false;
  let pending: (() => void) | undefined;
  const gate: MessageGate = {
    open() {
      if (!busy) return;
      busy = false;
      connection.messageDone(streamId);
      const next = pending;
      pending = undefined;
      next?.();
    },
  };
  return new ServerInterceptingCall(call, {
    start(next) {
      next({
        onReceiveMetadata(metadata, next) {
          streamId = Number(metadata.get(STREAM_ID)[0]);
          metadata.remove(STREAM_ID);
          gates.set(metadata, gate);
          next(metadata);
        },
        onReceiveMessage(message, next) {
          const deliver = (): void => {
            busy = method.requestStream;
            next(message);
          };
          if (busy) pending = deliver;
          else deliver();
        },
        onReceiveHalfClose: (next) => next(),
        onCancel() {
          pending = undefined;
        },
      });
    },
    sendMetadata(metadata, next) {
      metadata.set('grpc-accept-encoding', 'identity');
      next(metadata);
    },
  });
};

/** Lets the call's next message come whenever the call is resumed. */
export function deliverOneByOne(call: NodeJS.EventEmitter & { readonly metadata: Metadata }): void {
  const gate = gates.get(call.metadata);
  if (gate !== undefined) call.on('resume', () => gate.open());
}
