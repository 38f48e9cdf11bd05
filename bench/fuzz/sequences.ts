/** Mutated byte sequences of a connection: changed HTTP/2 frames of gRPC calls. Deterministic per seed. */
import type { Random } from '../../src/simulate/random.ts';
import { MALFORMED_STREAMS } from '../../test/integration/attacks/malformed-streams.ts';
import {
  END_HEADERS,
  END_STREAM,
  FRAME,
  frame,
  grpcMessage,
  headerBlock,
  PADDED,
  PREFACE,
  requestFields,
} from '../../test/support/raw-http2.ts';
import { caseRandom, mutateOnce, mutatedReport, pickOne, type Corpus } from './mutations.ts';

/** The actions on one connection. */
export interface Sequence {
  /** Written one after another, with an iteration of the event loop in between. */
  readonly writes: readonly Buffer[];
  /** How the client ends the connection: with FIN, with RST, or with FIN after a response. */
  readonly end: 'fin' | 'rst' | 'linger';
}

const MAX_CHANGES = 4;
const MAX_COPIES = 40;
/** Below the initial window of a server. */
const MAX_REPORT_BYTES = 16_000;
/** The maximum of the length field of a frame. */
const MAX_FRAME_LENGTH = 2 ** 24 - 1;
/** Offsets in the header of a frame. */
const OFFSET = { length: 0, type: 3, flags: 4, streamId: 5, payload: 9 } as const;

const HEADERS: readonly Readonly<Record<string, string>>[] = [
  { ':path': '/grpc.health.v1.Health/Check' },
  { ':path': '/grpc.health.v1.Health/Watch' },
  { ':path': '/grpc.health.v1.Health/List' },
  { ':path': '/no.such.Service/Method' },
  { 'content-type': 'text/html' },
  { 'grpc-encoding': 'gzip' },
  { 'grpc-timeout': '1n' },
  { 'grpc-timeout': '1m' },
  { 'x-large': 'x'.repeat(12_000) },
];
const STREAM_IDS = [0, 1, 2, 3, 5, 7, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1];
const RESET_CODES = [0, 1, 2, 7, 8, 11, 99];

/** Returns case `index` of a seed. */
export function createSequence(corpus: Corpus, seed: number, index: number): Sequence {
  const random = caseRandom(seed, index);
  let frames = conversation(corpus, random);
  for (let remaining = random.below(1 + random.below(1 + MAX_CHANGES)); remaining > 0; remaining -= 1) {
    frames = mutateFrame(frames, random, corpus);
  }
  let bytes = Buffer.concat([PREFACE, ...frames]);
  if (random.below(10) === 0) bytes = Buffer.from(mutateOnce(bytes, random, corpus));
  return {
    writes: splitIntoWrites(bytes, random),
    end: pickOne(['fin', 'rst', 'linger', 'linger', 'linger'], random),
  };
}

/** Returns the frames of a valid client: one or two calls, with other frames between their messages. */
function conversation(corpus: Corpus, random: Random): Buffer[] {
  const frames = [frame(FRAME.settings, 0, 0)];
  const calls = random.below(4) === 0 ? 3 : 1;
  for (let id = 1; id < 2 * calls; id += 2) {
    frames.push(...openStreamFrames(id, random));
    for (let remaining = random.below(4); remaining > 0; remaining -= 1) {
      frames.push(...messageFrames(corpus, random, id));
      if (random.below(3) === 0) frames.push(randomFrame(random, id));
    }
    if (random.below(3) === 0) frames.push(frame(FRAME.data, END_STREAM, id));
    if (random.below(4) === 0) frames.push(resetFrame(id, random));
  }
  return frames;
}

function openStreamFrames(id: number, random: Random): Buffer[] {
  // Malformed streams use stream ID 1.
  if (id === 1 && random.below(8) === 0) return [pickOne(MALFORMED_STREAMS, random).bytes];
  const block = headerBlock(requestFields(random.below(4) === 0 ? pickOne(HEADERS, random) : {}));
  const flags = random.below(8) === 0 ? END_STREAM : 0;
  if (random.below(8) > 0) return [frame(FRAME.headers, END_HEADERS | flags, id, block)];
  const cut = random.below(block.length + 1);
  return [
    frame(FRAME.headers, flags, id, block.subarray(0, cut)),
    frame(FRAME.continuation, END_HEADERS, id, block.subarray(cut)),
  ];
}

/** Returns a report in one or two DATA frames; sometimes the report or its gRPC header is changed. */
function messageFrames(corpus: Corpus, random: Random, id: number): Buffer[] {
  const whole = random.below(3) === 0 ? mutatedReport(corpus, random) : pickOne(corpus, random);
  const report = whole.subarray(0, MAX_REPORT_BYTES);
  const wrongLengths = [0, Math.max(0, report.length - 1), report.length + 1, 2 ** 31, 2 ** 32 - 1];
  const declared = random.below(8) === 0 ? pickOne(wrongLengths, random) : report.length;
  const bytes = grpcMessage(report, declared, random.below(12) === 0 ? random.below(256) : 0);
  const cut = random.below(4) === 0 ? random.below(bytes.length) : 0;
  const parts = cut > 0 ? [bytes.subarray(0, cut), bytes.subarray(cut)] : [bytes];
  return parts.map((part) => {
    if (random.below(10) > 0) return frame(FRAME.data, 0, id, part);
    // Sometimes there is less padding than declared, or none.
    const padding = Buffer.alloc(random.below(200));
    const actualPadding = padding.subarray(0, random.below(2) === 0 ? padding.length : random.below(200));
    return frame(FRAME.data, PADDED, id, Buffer.concat([Buffer.from([padding.length]), part, actualPadding]));
  });
}

function resetFrame(id: number, random: Random): Buffer {
  return frame(FRAME.rstStream, 0, id, uint32(pickOne(RESET_CODES, random)));
}

/** Returns a frame that may occur between messages. */
function randomFrame(random: Random, id: number): Buffer {
  switch (random.below(8)) {
    case 0:
      return frame(FRAME.ping, random.below(2), 0, Buffer.alloc(8));
    case 1:
      return frame(
        FRAME.windowUpdate,
        0,
        pickOne([0, id], random),
        uint32(pickOne([0, 1, 2 ** 31 - 1], random)),
      );
    case 2:
      return frame(
        FRAME.priority,
        0,
        id,
        Buffer.concat([uint32(pickOne([0, id], random)), Buffer.from([16])]),
      );
    case 3: {
      const value = uint32(pickOne([0, 1, 16_384, 65_536, 2 ** 31, random.below(2 ** 32)], random));
      return frame(FRAME.settings, 0, 0, Buffer.concat([Buffer.from([0, random.below(10)]), value]));
    }
    case 4:
      return frame(FRAME.goaway, 0, 0, Buffer.concat([uint32(0), uint32(0), Buffer.from('bye')]));
    case 5:
      return frame(FRAME.pushPromise, END_HEADERS, id, Buffer.concat([uint32(2), headerBlock([])]));
    case 6:
      return frame(FRAME.headers, END_HEADERS | END_STREAM, id, headerBlock([['a', 'b']]));
    default:
      return frame(10 + random.below(246), random.below(256), id, Buffer.alloc(random.below(64)));
  }
}

function mutateFrame(frames: readonly Buffer[], random: Random, corpus: Corpus): Buffer[] {
  const at = random.below(frames.length);
  const target = Buffer.from(frames[at] ?? []);
  const [before, after] = [frames.slice(0, at), frames.slice(at + 1)];
  // A malformed start of a stream may be shorter than the header of a frame.
  if (target.length < OFFSET.payload) return [...before, ...after];
  const id = target.readUInt32BE(OFFSET.streamId);
  switch (random.below(10)) {
    case 0:
      return [...before, ...after];
    case 1:
      return [...before, ...Array.from({ length: 2 + random.below(MAX_COPIES) }, () => target), ...after];
    case 2:
      return [...after, target, ...before];
    case 3:
      target.writeUInt8(random.below(12), OFFSET.type);
      break;
    case 4:
      target[OFFSET.flags] = (target[OFFSET.flags] ?? 0) ^ (1 << random.below(8));
      break;
    case 5:
      target.writeUInt32BE(pickOne(STREAM_IDS, random), OFFSET.streamId);
      break;
    case 6: {
      const length = target.readUIntBE(OFFSET.length, 3);
      const wrongLengths = [0, Math.max(0, length - 1), length + 1, 16_385, MAX_FRAME_LENGTH];
      target.writeUIntBE(Math.min(MAX_FRAME_LENGTH, pickOne(wrongLengths, random)), OFFSET.length, 3);
      break;
    }
    case 7:
      return [...before, target, randomFrame(random, pickOne(STREAM_IDS, random)), ...after];
    case 8:
      return [...before, target, resetFrame(id, random), ...after];
    default: {
      const payload = mutateOnce(target.subarray(OFFSET.payload), random, corpus);
      return [...before, frame(target[OFFSET.type] ?? 0, target[OFFSET.flags] ?? 0, id, payload), ...after];
    }
  }
  return [...before, target, ...after];
}

/** Returns the bytes in one write, or sometimes split in two, or partly byte by byte. */
function splitIntoWrites(bytes: Buffer, random: Random): Buffer[] {
  if (random.below(6) > 0) return [bytes];
  const cut = random.below(bytes.length + 1);
  const single = random.below(8) === 0 ? bytes.subarray(cut, cut + 100) : Buffer.alloc(0);
  return [
    bytes.subarray(0, cut),
    ...Array.from(single, (byte) => Buffer.from([byte])),
    bytes.subarray(cut + single.length),
  ].filter(({ length }) => length > 0);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
