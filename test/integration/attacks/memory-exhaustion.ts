/** Attacks that make the server buffer what they send. */
import { gzipSync } from 'node:zlib';
import { dataFrames, FRAME, frame, grpcMessage, openingFrame } from '../../support/raw-http2.ts';
import { firstReport } from '../../support/reporting-server.ts';
import { fullPush, requestBytes } from '../../support/wire.ts';
import { repeat, type Attack } from '../../support/attack.ts';

const MB = 1_000_000;
const GZIP = { 'grpc-encoding': 'gzip' };

/** Zeros are protobuf field number 0: invalid, but this is detected only once the report is complete. */
const UNFINISHED_MESSAGE = grpcMessage(Buffer.alloc(4 * MB), 8 * MB);
/** 255 kB on the wire. */
const GZIP_BOMB = gzipSync(Buffer.alloc(250 * MB));
const LARGE_REPORTS = Array.from({ length: 200 }, (_, i) =>
  grpcMessage(firstReport(`large-${i}`, fullPush(1500, `large-${i}`))),
);

/** Reports that are started, buffered, and never completed. */
export const MEMORY_EXHAUSTION: readonly Attack[] = [
  {
    name: 'leaves reports incomplete on 1,000 streams of one connection',
    rejectedAs: 'buffered_bytes',
    async round(open) {
      const peer = await open();
      for (let id = 1; id < 2000; id += 2) {
        await peer.write(openingFrame(id));
        if (!(await peer.sendData(id, UNFINISHED_MESSAGE))) return;
      }
    },
  },
  {
    name: 'leaves a report incomplete on each of 100 connections',
    rejectedAs: 'buffered_bytes',
    async round(open) {
      const peers = await Promise.all(Array.from({ length: 100 }, () => open()));
      await Promise.all(
        peers.map(async (peer) => {
          await peer.write(openingFrame(1));
          await peer.sendData(1, UNFINISHED_MESSAGE);
        }),
      );
    },
  },
  {
    name: 'hides single bytes of incomplete reports among 64 kB of other frames each',
    async round(open) {
      const peer = await open();
      const other = repeat(1500, frame(0xbe, 0, 0, Buffer.alloc(32)));
      for (let id = 1; id < 2000; id += 2) {
        await peer.write(openingFrame(id));
        await peer.sendData(id, grpcMessage(Buffer.alloc(0), MB));
        if (!(await peer.write(other)) || !(await peer.sendData(id, Buffer.alloc(1)))) return;
      }
    },
  },
  {
    name: 'sends a report that inflates to 250 MB',
    async round(open) {
      const peer = await open();
      for (let id = 1; id < 20; id += 2) {
        await peer.write(openingFrame(id, GZIP));
        await peer.sendData(id, grpcMessage(GZIP_BOMB, GZIP_BOMB.length, 1));
      }
    },
  },
  {
    name: 'sends malformed gzip (CVE-2026-48069)',
    async round(open) {
      const peer = await open();
      for (let id = 1; id < 200; id += 2) {
        await peer.write(openingFrame(id, GZIP));
        const broken = id % 4 === 1 ? Buffer.from('not gzip') : Buffer.from(GZIP_BOMB.subarray(0, 1000));
        await peer.sendData(id, grpcMessage(broken, broken.length, 1));
      }
    },
  },
  {
    name: 'announces reports of 4 GiB',
    async round(open) {
      const peer = await open();
      for (let id = 1; id < 2000; id += 2) {
        await peer.write(openingFrame(id));
        await peer.sendData(id, grpcMessage(Buffer.alloc(10_000), 0xffff_ffff));
      }
    },
  },
  {
    name: 'completes 200 reports of 140 kB at the same moment',
    async round(open) {
      const peer = await open();
      for (const [i, report] of LARGE_REPORTS.entries()) {
        await peer.write(openingFrame(2 * i + 1));
        if (!(await peer.sendData(2 * i + 1, report.subarray(0, -1)))) return;
      }
      await peer.write(
        Buffer.concat(LARGE_REPORTS.map((report, i) => dataFrames(2 * i + 1, report.subarray(-1), 1))),
      );
      // One ACK per report.
      await peer.waitUntil(() => peer.received(FRAME.data) >= LARGE_REPORTS.length);
    },
  },
  {
    name: 'sends 300,000 empty reports as fast as it can',
    async round(open) {
      const peer = await open();
      await peer.write(openingFrame(1));
      await peer.sendData(1, grpcMessage(firstReport('empty')));
      await peer.sendData(1, repeat(300_000, grpcMessage(Buffer.alloc(0))));
    },
  },
  {
    name: 'sends reports endlessly without accepting ACKs',
    async round(open) {
      const peer = await open();
      // A window of 0 for what the server sends on a stream.
      await peer.write(frame(FRAME.settings, 0, 0, Buffer.from([0, 4, 0, 0, 0, 0])));
      const report = repeat(4000, grpcMessage(requestBytes({ node: { id: 'deaf' }, nonce: 1 })));
      for (let id = 1; id < 200; id += 2) {
        await peer.write(openingFrame(id));
        // As much as the connection accepts before the server stops reading.
        if (!(await peer.sendData(id, report.subarray(0, peer.window(id))))) return;
      }
      await peer.closed;
    },
  },
];
