/** Attacks by connections: silent, slow, in other tongues, ended in the middle. */
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { FRAME, frame, grpcMessage, openingFrame, PREFACE } from '../raw-http2.ts';
import { firstReport } from '../reporting-server.ts';
import { fullPush } from '../wire.ts';
import type { Attack } from './attack.ts';

/** As an OpenSSL client begins. */
const CLIENT_HELLO = Buffer.concat([Buffer.from('1603010200010001fc0303', 'hex'), Buffer.alloc(505, 0x5a)]);
const PUSH = grpcMessage(firstReport('cut', fullPush(2000)));

/** Connections that all say the same and wait for what the server does. */
function floodConnections(count: number, bytes: Buffer): Attack['round'] {
  return async (open) => {
    const peers = await Promise.all(Array.from({ length: count }, () => open(false)));
    for (const peer of peers) if (bytes.length > 0) peer.socket.write(bytes);
    await Promise.all(peers.map(({ closed }) => closed));
  };
}

/** Connections on which nothing, or nothing of HTTP/2, is said. */
export const CONNECTION_FLOODS: readonly Attack[] = [
  {
    name: 'opens 2,000 connections and says nothing',
    rejectedAs: 'handshake_timeout',
    round: floodConnections(2000, Buffer.alloc(0)),
  },
  {
    name: 'says half of the preface on 200 connections',
    rejectedAs: 'handshake_timeout',
    round: floodConnections(200, PREFACE.subarray(0, 12)),
  },
  {
    name: 'says the preface and nothing more on 200 connections',
    rejectedAs: 'handshake_timeout',
    round: floodConnections(200, PREFACE),
  },
  {
    name: 'says the preface byte by byte',
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
    name: 'speaks HTTP/1.1',
    rejectedAs: 'http1',
    round: floodConnections(100, Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n')),
  },
  { name: 'speaks TLS', rejectedAs: 'tls', round: floodConnections(100, CLIENT_HELLO) },
  {
    name: 'sends bytes that mean nothing',
    rejectedAs: 'not_http2',
    // The same each time, so that a failure can be had again.
    round: floodConnections(100, Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 167 + 13) % 251))),
  },
  {
    name: 'says the preface and then bytes that mean nothing',
    round: floodConnections(
      100,
      Buffer.concat([PREFACE, Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 167 + 13) % 251))]),
    ),
  },
  {
    name: 'connects and goes, 500 times',
    async round(open) {
      for (let i = 0; i < 500; i += 1) (await open(false)).destroy();
    },
  },
  {
    name: 'goes in the middle of a report: reset, half-closed, stream reset',
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
