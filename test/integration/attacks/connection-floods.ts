/** Attacks with connections that are idle, slow, aborted, or use another protocol. */
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { FRAME, frame, grpcMessage, openingFrame, PREFACE } from '../../support/raw-http2.ts';
import { firstReport } from '../../support/reporting-server.ts';
import { fullPush } from '../../support/wire.ts';
import type { Attack } from '../../support/attack.ts';

/** The start of an OpenSSL ClientHello. */
const CLIENT_HELLO = Buffer.concat([Buffer.from('1603010200010001fc0303', 'hex'), Buffer.alloc(505, 0x5a)]);
const PUSH = grpcMessage(firstReport('cut', fullPush(2000)));

/** Opens connections that all send the same bytes and wait for the server to close them. */
function floodConnections(count: number, bytes: Buffer): Attack['round'] {
  return async (open) => {
    const peers = await Promise.all(Array.from({ length: count }, () => open(false)));
    for (const peer of peers) if (bytes.length > 0) peer.socket.write(bytes);
    await Promise.all(peers.map(({ closed }) => closed));
  };
}

/** Connections without HTTP/2 traffic. */
export const CONNECTION_FLOODS: readonly Attack[] = [
  {
    name: 'opens 2,000 idle connections',
    rejectedAs: 'handshake_timeout',
    round: floodConnections(2000, Buffer.alloc(0)),
  },
  {
    name: 'sends half of the preface on 200 connections',
    rejectedAs: 'handshake_timeout',
    round: floodConnections(200, PREFACE.subarray(0, 12)),
  },
  {
    name: 'sends only the preface on 200 connections',
    rejectedAs: 'handshake_timeout',
    round: floodConnections(200, PREFACE),
  },
  {
    name: 'sends the preface byte by byte',
    rejectedAs: 'handshake_timeout',
    async round(open) {
      const peer = await open(false);
      for (let at = 0; at < PREFACE.length - 1 && !peer.isClosed; at += 1) {
        peer.socket.write(PREFACE.subarray(at, at + 1));
        await Promise.race([delay(100), peer.closed]);
      }
    },
  },
  {
    name: 'sends HTTP/1.1 requests',
    rejectedAs: 'http1',
    round: floodConnections(100, Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n')),
  },
  { name: 'sends a TLS ClientHello', rejectedAs: 'tls', round: floodConnections(100, CLIENT_HELLO) },
  {
    name: 'sends meaningless bytes',
    rejectedAs: 'not_http2',
    // The same bytes each time, so that failures are reproducible.
    round: floodConnections(100, Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 167 + 13) % 251))),
  },
  {
    name: 'sends the preface followed by meaningless bytes',
    round: floodConnections(
      100,
      Buffer.concat([PREFACE, Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 167 + 13) % 251))]),
    ),
  },
  {
    name: 'connects and disconnects 500 times',
    async round(open) {
      for (let i = 0; i < 500; i += 1) (await open(false)).destroy();
    },
  },
  {
    name: 'disconnects in the middle of a report: by reset, half-close or stream reset',
    async round(open) {
      for (let i = 0; i < 30; i += 1) {
        const peer = await open();
        await peer.write(openingFrame(1));
        await peer.sendData(1, PUSH.subarray(0, PUSH.length / 2));
        if (i % 3 === 0) {
          peer.socket.resetAndDestroy();
        } else if (i % 3 === 1) {
          peer.socket.end();
          await Promise.race([once(peer.socket, 'end').catch(() => {}), peer.closed]);
        } else {
          await peer.write(frame(FRAME.rstStream, 0, 1, Buffer.from([0, 0, 0, 8])));
        }
      }
    },
  },
];
