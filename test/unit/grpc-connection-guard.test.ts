import { createServer, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { expect } from 'chai';
import { systemClock } from '../../src/clock.ts';
import { ConnectionGuard } from '../../src/grpc/connection-guard.ts';
import { FairQuota } from '../../src/grpc/fair-quota.ts';
import {
  END_HEADERS,
  END_STREAM,
  frame,
  FRAME,
  headerBlock,
  PREFACE,
  requestFields,
} from '../support/raw-http2.ts';

/** Iterations of the event loop between two events. */
const DELAYS = [0, 1, 2];
/** Iterations that a write takes. */
const WRITE_DELAYS = [0, 2];
/** More iterations than a connection needs to close. */
const CLOSE_ITERATIONS = 20;
const NO_ERROR = Buffer.alloc(8);
const INTERNAL_ERROR = Buffer.from([0, 0, 0, 0, 0, 0, 0, 2]);
const CANCEL = Buffer.from([0, 0, 0, 8]);

function request(streamId: number): Buffer {
  return frame(FRAME.headers, END_HEADERS | END_STREAM, streamId, headerBlock(requestFields()));
}

/** What the server does with the stream of a request. */
const SERVER_ACTIONS: Readonly<Record<string, (stream: ServerHttp2Stream, guard: ConnectionGuard) => void>> =
  {
    'responds without reading': (stream) => stream.respond({ ':status': 200 }, { endStream: true }),
    'responds with trailers': (stream) => {
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      stream.respond({ ':status': 200 }, { waitForTrailers: true });
      stream.end('data');
    },
    'resets the stream': (stream) => stream.close(7),
    'closes the session': (stream) => stream.session?.close(),
    'destroys the session': (stream) => stream.session?.destroy(),
    'destroys the session with an error': (stream) => stream.session?.destroy(new Error('failed')),
    'drains the connection, and responds': (stream, guard) => {
      guard.drain();
      stream.respond({ ':status': 200 }, { endStream: true });
    },
    'terminates the connection': (_stream, guard) => guard.terminate('buffered_bytes'),
    'responds, and terminates the connection': (stream, guard) => {
      stream.respond({ ':status': 200 });
      stream.write('data');
      guard.terminate('buffered_bytes');
    },
  };

/** The first of two things that a peer does meanwhile. The second is that it disconnects. */
const PEER_ACTIONS: Readonly<Record<string, (socket: ScriptedSocket) => void>> = {
  'ends its connection': (socket) => void socket.push(null),
  'ends its connection in the same packet as another request': (socket) => {
    socket.push(request(3));
    socket.push(null);
  },
  'does not read': (socket) => socket.stall(),
  'resets its connection while the server writes': (socket) => socket.failWrites(),
  'cancels the stream': (socket) => void socket.push(frame(FRAME.rstStream, 0, 1, CANCEL)),
  'goes away': (socket) => void socket.push(frame(FRAME.goaway, 0, 0, NO_ERROR)),
  'goes away with an error': (socket) => void socket.push(frame(FRAME.goaway, 0, 0, INTERNAL_ERROR)),
  'sends a frame that is not HTTP/2': (socket) =>
    void socket.push(frame(FRAME.rstStream, 0, 0, Buffer.alloc(5))),
};

/** The socket of a connection whose peer does what a test decides. */
class ScriptedSocket extends Duplex {
  readonly remoteAddress = '192.0.2.1';
  readonly #writeDelay: number;
  #isStalled = false;
  #failure: Error | undefined;

  constructor(writeDelay: number) {
    super();
    this.#writeDelay = writeDelay;
    // As the listener does.
    this.on('error', () => {});
  }

  /** No write completes from now on. */
  stall(): void {
    this.#isStalled = true;
  }

  /** Every write fails from now on, which closes a socket. */
  failWrites(): void {
    this.#failure = Object.assign(new Error('write ECONNRESET'), { code: 'ECONNRESET' });
  }

  override _read(): void {}

  override _write(_chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    const complete = (delay: number): void => {
      if (this.#isStalled) this.once('close', () => done(new Error('closed')));
      else if (delay === 0) done(this.#failure);
      else globalThis.setImmediate(complete, delay - 1);
    };
    complete(this.#writeDelay);
  }

  destroySoon(): void {
    this.end(() => this.destroy());
  }
}

async function iterations(count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) await setImmediate();
}

describe('A guarded connection', () => {
  const quota = new FairQuota<ConnectionGuard>({ limit: 1000, onExceeded() {} });
  const options = {
    certificate: undefined,
    maxMessageSizeBytes: 1024,
    bufferedBytes: quota,
    openStreams: quota,
    pendingAuthentications: quota,
    reject() {},
    handshakeDone() {},
    clock: systemClock,
  };
  /** What a server does with the streams of a session. */
  const onStream = new WeakMap<ServerHttp2Session, (stream: ServerHttp2Stream) => void>();
  const server = createServer();
  server.on('stream', (stream) => {
    stream.on('error', () => {});
    const { session } = stream;
    if (session !== undefined) onStream.get(session as ServerHttp2Session)?.(stream);
  });

  /** Opens a connection, and returns whether it is closed once its peer has disconnected. */
  async function connect(
    serverAction: (stream: ServerHttp2Stream, guard: ConnectionGuard) => void,
    peerAction: (socket: ScriptedSocket) => void,
    [serverDelay, peerDelay, closeDelay, writeDelay]: readonly [number, number, number, number],
  ): Promise<boolean> {
    const socket = new ScriptedSocket(writeDelay);
    const guard = new ConnectionGuard(socket as unknown as Socket, PREFACE, options);
    let closed = false;
    server.once('session', (session) => {
      onStream.set(session, (stream) => {
        void iterations(serverDelay).then(() => {
          if (!stream.destroyed) serverAction(stream, guard);
        });
      });
      session.on('close', () => {
        closed = true;
      });
    });
    server.emit('connection', guard.duplex);
    socket.push(Buffer.concat([frame(FRAME.settings, 0, 0), request(1)]));
    await iterations(peerDelay);
    peerAction(socket);
    await iterations(closeDelay);
    socket.destroy();
    await iterations(CLOSE_ITERATIONS);
    return closed;
  }

  for (const [serverDoes, serverAction] of Object.entries(SERVER_ACTIONS)) {
    for (const [peerDoes, peerAction] of Object.entries(PEER_ACTIONS)) {
      it(`closes, and does not end the process, whenever its peer ${peerDoes} and disconnects while the server ${serverDoes}`, async () => {
        const schedules = DELAYS.flatMap((serverDelay) =>
          DELAYS.flatMap((peerDelay) =>
            DELAYS.flatMap((closeDelay) =>
              WRITE_DELAYS.map((writeDelay) => [serverDelay, peerDelay, closeDelay, writeDelay] as const),
            ),
          ),
        );
        const closed = await Promise.all(
          schedules.map((schedule) => connect(serverAction, peerAction, schedule)),
        );
        expect(schedules.filter((_, i) => closed[i] === false)).to.deep.equal([]);
      });
    }
  }
});
