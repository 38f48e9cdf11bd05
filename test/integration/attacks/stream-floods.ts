/** Attacks with streams: opened, reset or left open in large numbers. */
import {
  END_HEADERS,
  END_STREAM,
  FRAME,
  frame,
  grpcMessage,
  headerBlock,
  openingFrame,
  requestFields,
} from '../../support/raw-http2.ts';
import type { Attack } from '../../support/attack.ts';

const CANCEL = Buffer.from([0, 0, 0, 8]);
const BATCH_SIZE = 100;

/** Sends the frames of `make` for many streams, in batches, until the server closes the connection. */
function floodStreams(make: (streamId: number) => Buffer, streams: number): Attack['round'] {
  return async (open) => {
    const peer = await open();
    for (let from = 0; from < streams; from += BATCH_SIZE) {
      const batch = Array.from({ length: BATCH_SIZE }, (_, i) => make(2 * (from + i) + 1));
      if (!(await peer.write(Buffer.concat(batch)))) return;
    }
  };
}

function request(streamId: number, overrides: Readonly<Record<string, string>>): Buffer {
  return frame(FRAME.headers, END_HEADERS | END_STREAM, streamId, headerBlock(requestFields(overrides)));
}

/** A HealthCheckRequest (field 1) with about 60 kB of text that differs per stream. */
function serviceName(streamId: number): Buffer {
  const name = Buffer.alloc(60_000, `${streamId} `);
  // The length as a varint of three bytes.
  return Buffer.concat([
    Buffer.from([0x0a, (name.length & 0x7f) | 0x80, ((name.length >> 7) & 0x7f) | 0x80, name.length >> 14]),
    name,
  ]);
}

/** Each is rejected as `stream_rate`, or by HTTP/2 itself when its limit on rejected streams is reached first. */
export const STREAM_FLOODS: readonly Attack[] = [
  {
    name: 'opens streams and resets them at once (rapid reset)',
    round: floodStreams(
      (id) => Buffer.concat([openingFrame(id), frame(FRAME.rstStream, 0, id, CANCEL)]),
      50_000,
    ),
  },
  {
    name: 'opens 20,000 streams on each connection and leaves them open',
    round: floodStreams((id) => openingFrame(id), 20_000),
  },
  {
    name: 'calls an unknown method 20,000 times on each connection',
    round: floodStreams((id) => request(id, { ':path': '/no/Such' }), 20_000),
  },
  {
    name: 'calls a path without a slash 20,000 times on each connection',
    round: floodStreams((id) => request(id, { ':path': 'no-slash' }), 20_000),
  },
  {
    name: 'checks the health of an unknown service 20,000 times on each connection',
    round: floodStreams((id) => request(id, { ':path': '/grpc.health.v1.Health/Check' }), 20_000),
  },
  {
    name: 'watches the health of unknown services with a new name each time, and cancels',
    async round(open) {
      const peer = await open();
      for (let id = 1; id < 2 * 2000; id += 2) {
        await peer.write(openingFrame(id, { ':path': '/grpc.health.v1.Health/Watch' }));
        if (!(await peer.sendData(id, grpcMessage(serviceName(id))))) return;
        await peer.write(frame(FRAME.data, END_STREAM, id));
        // After the response, because a stream that is reset immediately is not processed.
        const answered = (id + 1) / 2;
        await peer.waitUntil(() => peer.received(FRAME.headers) >= answered);
        if (!(await peer.write(frame(FRAME.rstStream, 0, id, CANCEL)))) return;
      }
    },
  },
  {
    name: 'sends 20,000 requests that are not gRPC on each connection',
    round: floodStreams((id) => request(id, { 'content-type': 'text/html' }), 20_000),
  },
];
