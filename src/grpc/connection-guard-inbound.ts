import { FLAG, FRAME, FrameHead } from './http2-frame.ts';

/** Why a connection is cut for what it sends. */
export type Breach = 'header_block' | 'small_frames' | 'control_frames' | 'stream_rate';

/**
 * gRPC holds each DATA frame of a message as a slice of its own until the message is whole: 138 bytes each when measured.
 * So a frame is charged for, and a message in frames of one byte costs what it takes.
 */
const FRAME_COST_BYTES = 256;
/** And for each whole message that waits it holds some objects: an empty report is 5 bytes on the wire. */
const MESSAGE_COST_BYTES = 1024;
/** A rightful client fills its frames (16 KiB), and sends a smaller one where a flow-control window ends. */
const FREE_FRAMES = 1024;
const BYTES_A_FRAME = 256;
/** Envoy's own limit is 60 KiB for all headers; a reporter needs less than one. */
const MAX_HEADER_BLOCK_BYTES = 16 * 1024;
/**
 * PING, SETTINGS, WINDOW_UPDATE and what else carries no report: one is enough for some frames of DATA. And streams: a
 * proxy opens its thousand at once, and each again every 5 s while they are refused. Beyond that, so many a second of
 * the connection's age: a flood costs some percent of one core at most.
 */
const FREE_CONTROL_FRAMES = 10_000;
const CONTROL_FRAMES_A_SECOND = 1000;
const FREE_STREAMS = 1000;
const STREAMS_A_SECOND = 100;
/** Flag and length, before each gRPC message. */
const PREFIX_BYTES = 5;
/** A new stream is some 50 µs of work, another frame about one. */
const STREAM_COST = 32;

/** A stream as its inbound half shows it. */
interface InboundStream {
  /** Bytes of the message that is not whole yet, its prefix included. */
  unfinishedBytes: number;
  /** Those of them that are still to come, once the prefix is read. */
  leftBytes: number;
  /** DATA frames since the last whole message. */
  frames: number;
  /** All that is charged for the stream. */
  heldBytes: number;
  /** What each whole message that has not been dealt with is charged with, oldest first. */
  readonly whole: number[];
  /** gRPC drops what still comes. */
  ignored: boolean;
  peerEnded: boolean;
}

/** Who is told what the peer makes this process hold and do. A call of one of these may cut the connection. */
export interface InboundParts {
  readonly maxMessageSizeBytes: number;
  /** Told how many bytes more (or fewer) the peer makes this process hold. */
  readonly held: (change: number) => void;
  /** How long the connection has been open. */
  readonly ageSeconds: () => number;
  /** Told when a stream is opened (1) or gone (-1). */
  readonly streams: (change: number) => void;
}

/**
 * Reads a connection's frames on their way to HTTP/2, copies nothing, and knows what the peer makes this process hold:
 * for each stream its header blocks, the message that is not whole yet, and the whole ones that nobody has dealt with.
 * What is malformed is left for HTTP/2 to find; the numbers here are then of no more use.
 */
export class InboundFrames {
  readonly #parts: InboundParts;
  readonly #head = new FrameHead();
  readonly #streams = new Map<number, InboundStream>();
  #payloadLeft = 0;
  #paddingBytes = 0;
  #paddingUnread = false;
  #data: InboundStream | undefined;
  #lastStreamId = 0;
  #blockBytes = 0;
  #controlFrames = 0;
  #streamsOpened = 0;

  /** Set when the connection has to be cut. */
  breach: Breach | undefined;
  /** True once a whole frame has come, which HTTP/2 wants to be SETTINGS. */
  hasGreeted = false;
  /** Whose DATA was read last; 0 when it was another frame. */
  dataOf = 0;
  /** Where in the chunk the message begins that `dataOf` has not finished; -1 when before it, which is the reader's to set. */
  messageStart = -1;
  /** Work that was caused, in frames; for the reader to take down. */
  cost = 0;

  constructor(parts: InboundParts) {
    this.#parts = parts;
  }

  /** The newest stream that the peer has opened. */
  get lastStreamId(): number {
    return this.#lastStreamId;
  }

  /** Reads one frame, or as much of it as is there; the answer is where that ends in the chunk. */
  step(chunk: Buffer, from: number): number {
    let at = from;
    if (!this.#head.isComplete) {
      at = this.#head.read(chunk, at);
      if (!this.#head.isComplete) return at;
      this.#begin();
    }
    const take = Math.min(this.#payloadLeft, chunk.length - at);
    if (this.#data !== undefined && take > 0) this.#readData(this.#data, chunk, at, at + take);
    this.#payloadLeft -= take;
    if (this.#payloadLeft === 0) this.#end();
    return at + take;
  }

  /** The oldest whole message of the stream has been dealt with. */
  messageDone(streamId: number): void {
    const stream = this.#streams.get(streamId);
    const cost = stream?.whole.shift();
    if (stream !== undefined && cost !== undefined) this.#hold(stream, -cost);
  }

  /** The server has sent the last it has to say. What gRPC holds of the stream it holds until the peer is done too. */
  serverEnded(streamId: number): void {
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    stream.ignored = true;
    if (stream.peerEnded) this.streamReset(streamId);
  }

  /** The stream is gone for both sides. */
  streamReset(streamId: number): void {
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    this.#streams.delete(streamId);
    this.#parts.held(-stream.heldBytes);
    this.#parts.streams(-1);
  }

  #begin(): void {
    const { type, length, flags, streamId } = this.#head;
    this.cost += 1;
    this.#payloadLeft = length;
    this.#data = undefined;
    this.dataOf = 0;
    if (type === FRAME.data) {
      this.#beginData(this.#streams.get(streamId), flags, streamId);
    } else if (type === FRAME.headers) {
      // Of a stream that is there already they are trailers.
      if (streamId > this.#lastStreamId) this.#open(streamId);
      this.#blockBytes = 0;
      this.#readBlock(streamId, length);
    } else if (type === FRAME.continuation) {
      this.#readBlock(streamId, length);
    } else {
      this.#controlFrames += 1;
      this.#atMost('control_frames', this.#controlFrames, FREE_CONTROL_FRAMES, CONTROL_FRAMES_A_SECOND);
    }
  }

  #atMost(breach: Breach, count: number, free: number, perSecond: number): void {
    if (count > free && count > free + perSecond * this.#parts.ageSeconds()) this.breach = breach;
  }

  #open(streamId: number): void {
    this.#lastStreamId = streamId;
    this.cost += STREAM_COST;
    this.#streamsOpened += 1;
    this.#atMost('stream_rate', this.#streamsOpened, FREE_STREAMS, STREAMS_A_SECOND);
    this.#streams.set(streamId, {
      unfinishedBytes: 0,
      leftBytes: 0,
      frames: 0,
      heldBytes: 0,
      whole: [],
      ignored: false,
      peerEnded: false,
    });
    this.#parts.streams(1);
  }

  #readBlock(streamId: number, length: number): void {
    this.#blockBytes += length;
    if (this.#blockBytes > MAX_HEADER_BLOCK_BYTES) this.breach = 'header_block';
    const stream = this.#streams.get(streamId);
    if (stream !== undefined) this.#hold(stream, length);
  }

  #beginData(stream: InboundStream | undefined, flags: number, streamId: number): void {
    if (stream === undefined || stream.ignored) return;
    this.#data = stream;
    this.dataOf = streamId;
    this.#paddingUnread = (flags & FLAG.padded) !== 0;
    this.#paddingBytes = 0;
    stream.frames += 1;
    this.#hold(stream, FRAME_COST_BYTES);
    if (stream.frames > FREE_FRAMES + stream.unfinishedBytes / BYTES_A_FRAME) this.breach = 'small_frames';
  }

  #end(): void {
    const { type, flags, streamId } = this.#head;
    this.#head.clear();
    this.hasGreeted = true;
    if (type === FRAME.rstStream) {
      this.streamReset(streamId);
    } else if ((type === FRAME.data || type === FRAME.headers) && (flags & FLAG.endStream) !== 0) {
      const stream = this.#streams.get(streamId);
      if (stream !== undefined) stream.peerEnded = true;
      if (stream?.ignored === true) this.streamReset(streamId);
    }
  }

  #readData(stream: InboundStream, chunk: Buffer, from: number, to: number): void {
    let at = from;
    if (this.#paddingUnread) {
      this.#paddingUnread = false;
      this.#paddingBytes = chunk[at] ?? 0;
      at += 1;
    }
    // The padding is the last of the payload; it may begin in this chunk.
    const after = this.#payloadLeft - (to - from);
    const end = to - Math.max(0, Math.min(this.#paddingBytes - after, to - at));
    while (at < end && !stream.ignored) at = this.#readMessage(stream, chunk, at, end);
  }

  /** Reads of one message what is there. */
  #readMessage(stream: InboundStream, chunk: Buffer, from: number, end: number): number {
    let at = from;
    const before = stream.unfinishedBytes;
    if (before === 0) this.messageStart = at;
    while (stream.unfinishedBytes < PREFIX_BYTES) {
      if (at === end) {
        this.#hold(stream, stream.unfinishedBytes - before);
        return at;
      }
      // The flag comes first and falls out of 32 bits by the last shift.
      stream.leftBytes = (stream.leftBytes << 8) | (chunk[at] ?? 0);
      stream.unfinishedBytes += 1;
      at += 1;
      if (stream.unfinishedBytes === PREFIX_BYTES) {
        stream.leftBytes >>>= 0;
        if (stream.leftBytes > this.#parts.maxMessageSizeBytes) {
          // gRPC ends the stream with RESOURCE_EXHAUSTED at this very byte.
          stream.ignored = true;
          return at;
        }
      }
    }
    const take = Math.min(stream.leftBytes, end - at);
    stream.leftBytes -= take;
    stream.unfinishedBytes += take;
    this.#hold(stream, stream.unfinishedBytes - before);
    if (stream.leftBytes === 0) {
      this.#hold(stream, MESSAGE_COST_BYTES);
      stream.whole.push(stream.unfinishedBytes + stream.frames * FRAME_COST_BYTES + MESSAGE_COST_BYTES);
      this.cost += 1;
      stream.unfinishedBytes = 0;
      stream.frames = 0;
      this.messageStart = -1;
    }
    return at + take;
  }

  #hold(stream: InboundStream, bytes: number): void {
    stream.heldBytes += bytes;
    this.#parts.held(bytes);
  }
}
