import { createServer, type ServerHttp2Stream } from 'node:http2';
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
const DELAYS = [0, 1, 2, 3, 4];
const REQUEST = Buffer.concat([
  frame(FRAME.settings, 0, 0),
  frame(FRAME.headers, END_HEADERS | END_STREAM, 1, headerBlock(requestFields())),
]);

/** How a server ends a stream. */
const ENDINGS: Readonly<Record<string, (stream: ServerHttp2Stream) => void>> = {
  'responds without reading': (stream) => stream.respond({ ':status': 200 }, { endStream: true }),
  'responds with trailers': (stream) => {
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.respond({ ':status': 200 }, { waitForTrailers: true });
    stream.end('data');
  },
  'resets the stream': (stream) => stream.close(7),
  'closes the session': (stream) => stream.session?.close(),
  'destroys the session': (stream) => stream.session?.destroy(),
};

/** The socket of a connection whose peer ends and disconnects when a test decides. */
class ScriptedSocket extends Duplex {
  readonly remoteAddress = '192.0.2.1';
  readonly #writeDelay: number;

  constructor(writeDelay: number) {
    super();
    this.#writeDelay = writeDelay;
  }

  override _read(): void {}

  override _write(_chunk: Buffer, _encoding: string, done: () => void): void {
    const complete = (delay: number): void => {
      if (delay === 0) done();
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

  for (const [ending, endStream] of Object.entries(ENDINGS)) {
    it(`closes, and does not end the process, whenever its peer ends and disconnects while the server ${ending}`, async () => {
      let endDelay = 0;
      let opened = 0;
      let closed = 0;
      const server = createServer();
      server.on('session', (session) => session.on('close', () => (closed += 1)));
      server.on('stream', (stream) => {
        stream.on('error', () => {});
        void iterations(endDelay).then(() => {
          if (!stream.destroyed) endStream(stream);
        });
      });
      const connect = async (writeDelay: number, finDelay: number, closeDelay: number): Promise<void> => {
        const socket = new ScriptedSocket(writeDelay);
        server.emit('connection', new ConnectionGuard(socket as unknown as Socket, PREFACE, options).duplex);
        opened += 1;
        socket.push(REQUEST);
        await iterations(finDelay);
        socket.push(null);
        await iterations(closeDelay);
        socket.destroy();
        await iterations(12);
      };
      for (endDelay of DELAYS)
        for (const finDelay of DELAYS)
          for (const closeDelay of DELAYS)
            for (const writeDelay of [0, 2]) await connect(writeDelay, finDelay, closeDelay);
      expect(closed).to.equal(opened);
    });
  }
});
