/** Attacks with frames that are valid individually. */
import {
  ACK,
  END_HEADERS,
  FRAME,
  frame,
  grpcMessage,
  headerBlock,
  openingFrame,
  PADDED,
  requestFields,
} from '../../support/raw-http2.ts';
import { repeat, writeRepeatedly, type Attack } from '../../support/attack.ts';

const MB = 1_000_000;
const ONE_BYTE = Buffer.from([0, 0, 0, 1]);

/** Frames that cost more to read than to send. */
export const FRAME_FLOODS: readonly Attack[] = [
  {
    name: 'sends a report of 13 MB in DATA frames of one byte',
    rejectedAs: 'small_frames',
    async round(open) {
      const peer = await open();
      await peer.write(openingFrame(1));
      await peer.sendData(1, grpcMessage(Buffer.alloc(13 * MB)), 1);
    },
  },
  {
    name: 'sends a report of 13 MB in frames of one byte and 200 bytes of padding',
    rejectedAs: 'small_frames',
    async round(open) {
      const peer = await open();
      await peer.write(openingFrame(1));
      const padded = Buffer.alloc(202);
      padded.writeUInt8(200, 0);
      await peer.write(frame(FRAME.data, 0, 1, grpcMessage(Buffer.alloc(0), 13 * MB)));
      for (let sent = 0; sent < 20_000; sent += 1) {
        await peer.waitUntil(() => peer.window(1) >= padded.length);
        peer.consumeWindow(1, padded.length);
        if (!(await peer.write(frame(FRAME.data, PADDED, 1, padded)))) return;
      }
    },
  },
  {
    name: 'sends empty DATA frames',
    async round(open) {
      const peer = await open();
      await peer.write(openingFrame(1));
      await writeRepeatedly(peer, repeat(1000, frame(FRAME.data, 0, 1)), 3000);
    },
  },
  {
    name: 'floods PING',
    rejectedAs: 'control_frames',
    async round(open) {
      const peer = await open();
      await writeRepeatedly(peer, repeat(1000, frame(FRAME.ping, 0, 0, Buffer.alloc(8))), 1000);
    },
  },
  {
    name: 'floods PING without reading the answers',
    async round(open) {
      const peer = await open();
      peer.socket.pause();
      await writeRepeatedly(peer, repeat(1000, frame(FRAME.ping, 0, 0, Buffer.alloc(8))), 1000);
    },
  },
  {
    name: 'floods SETTINGS',
    rejectedAs: 'control_frames',
    async round(open) {
      const peer = await open();
      const settings = frame(FRAME.settings, 0, 0, Buffer.from([0, 4, 0, 1, 0, 0]));
      await writeRepeatedly(peer, repeat(1000, settings), 1000);
    },
  },
  {
    name: 'floods SETTINGS acknowledgements',
    async round(open) {
      const peer = await open();
      await writeRepeatedly(peer, repeat(1000, frame(FRAME.settings, ACK, 0)), 1000);
    },
  },
  {
    name: 'floods WINDOW_UPDATE',
    rejectedAs: 'control_frames',
    async round(open) {
      const peer = await open();
      await peer.write(openingFrame(1));
      // The initial window is reduced first, otherwise the updates would overflow it.
      await peer.write(frame(FRAME.settings, 0, 0, Buffer.from([0, 4, 0, 0, 0, 0])));
      await writeRepeatedly(peer, repeat(1000, frame(FRAME.windowUpdate, 0, 1, ONE_BYTE)), 1000);
    },
  },
  {
    name: 'floods PRIORITY',
    rejectedAs: 'control_frames',
    async round(open) {
      const peer = await open();
      const priorities = Array.from({ length: 1000 }, (_, i) =>
        frame(FRAME.priority, 0, 2 * i + 1, Buffer.from([0, 0, 0, 0, 16])),
      );
      await writeRepeatedly(peer, Buffer.concat(priorities), 1000);
    },
  },
  {
    name: 'floods frames of an unknown type',
    rejectedAs: 'control_frames',
    async round(open) {
      const peer = await open();
      await writeRepeatedly(peer, repeat(1000, frame(0xbe, 0, 1, ONE_BYTE)), 1000);
    },
  },
  {
    name: 'sends an endless header block (CONTINUATION)',
    rejectedAs: 'header_block',
    async round(open) {
      const peer = await open();
      await peer.write(frame(FRAME.headers, 0, 1, headerBlock(requestFields())));
      await writeRepeatedly(
        peer,
        frame(FRAME.continuation, 0, 1, headerBlock([['a', 'b'.repeat(8000)]])),
        5000,
      );
    },
  },
  {
    name: 'floods empty CONTINUATION frames',
    async round(open) {
      const peer = await open();
      await peer.write(frame(FRAME.headers, 0, 1, headerBlock(requestFields())));
      await writeRepeatedly(peer, repeat(1000, frame(FRAME.continuation, 0, 1)), 1000);
    },
  },
  {
    name: 'adds a header of 4 kB to the HPACK table and references it 16,000 times per header block',
    async round(open) {
      const peer = await open();
      // A literal with indexing (0x40) and literal name and value, then the first entry of the dynamic table (62).
      const entry = Buffer.from(headerBlock([['a', 'b'.repeat(4000)]]));
      entry.writeUInt8(0x40, 0);
      const fields = headerBlock(requestFields());
      await peer.write(frame(FRAME.headers, END_HEADERS, 1, Buffer.concat([fields, entry])));
      const bomb = Buffer.concat([fields, Buffer.alloc(16_000, 0x80 | 62)]);
      for (let id = 3; id < 2000 && (await peer.write(frame(FRAME.headers, END_HEADERS, id, bomb))); id += 2);
    },
  },
];
