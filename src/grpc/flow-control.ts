import type { Http2Session } from 'node:http2';

/**
 * How much a stream, and a connection, may send ahead of what has been read. HTTP/2's own 64 KiB let a full push take
 * as many round trips as it has 64 KiB: 13 MB at 150 ms are 30 s, and Envoy gives up when its sixth report is due.
 */
const STREAM_WINDOW_BYTES = 1024 * 1024;
const CONNECTION_WINDOW_BYTES = 4 * STREAM_WINDOW_BYTES;

/**
 * Widens the windows of a connection that has its first stream: grpc-js, which owns the HTTP/2 server, has no option for
 * a server's windows. The stream that is open already gains the difference.
 */
export function widenWindows(session: Http2Session): void {
  if (session.destroyed || session.state.effectiveLocalWindowSize === CONNECTION_WINDOW_BYTES) return;
  session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
  session.settings({ initialWindowSize: STREAM_WINDOW_BYTES });
}
