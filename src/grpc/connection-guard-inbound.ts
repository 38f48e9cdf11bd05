import { FLAG, FRAME, FrameHeader } from './http2-frame.ts';

/** Why a connection is cut for what it sends. */
export type LimitViolation = 'header_block' | 'small_frames' | 'control_frames' | 'stream_rate';

/**
 * gRPC holds each DATA frame of a message as a slice of its own until the message is whole: 138 bytes each when measured.
 * So a frame is charged for, and a message in frames of one byte costs what it takes.
 */
const FRAME_COST_BYTES = 256;
/** And for each whole message that waits it holds some objects: an empty report is 5 bytes on the wire. */
const MESSAGE_COST_BYTES = 1024;
/** A rightful client fills its frames (16 KiB), and sends a smaller one where a flow-control window ends. */
const FREE_FRAMES = 1024;
const BYTES_PER_FRAME = 256;
/** Envoy's own limit is 60 KiB for all headers; a reporter needs less than one. */
const MAX_HEADER_BLOCK_BYTES = 16 * 1024;
/**
 * PING, SETTINGS, WINDOW_UPDATE and what else carries no report: one is enough for some frames of DATA. And streams: a
 * proxy opens its thousand at once, and each again every 5 s while they are refused. Beyond that, so many a second of
 * the connection's age: a flood costs some percent of one core at most.
 */
const FREE_CONTROL_FRAMES = 10_000;
const CONTROL_FRAMES_PER_SECOND = 1000;
const FREE_STREAMS = 1000;
const STREAMS_PER_SECOND = 100;
/** Flag and length, before each gRPC message. */
const PREFIX_BYTES = 5;
/** A new stream is some 50 µs of work, another frame about one. */
const STREAM_COST = 32;

/** A stream as its inbound half shows it. */
interface InboundStream {
  /** Bytes of the message that is not whole yet, its prefix included. */
  unfinishedBytes: number;
  /** Those of them that are still to come, once the prefix is read. */
  remainingBytes: number;
  /** DATA frames since the last whole message. */
  frames: number;
  /** All that is charged for the stream. */
  bufferedBytes: number;
  /** What each whole message that has not been dealt with is charged with, oldest first. */
  readonly completeMessageCosts: number[];
  /** gRPC drops what still comes. */
  ignored: boolean;
  peerEnded: boolean;
}

/** Who is told what the peer makes this process hold and do. A call of one of these may cut the connection. */
export interface InboundFramesOptions {
  readonly maxMessageSizeBytes: number;
  /** Told how many bytes more (or fewer) the peer makes this process hold. */
  readonly onBufferedChange: (change: number) => void;
  /** How long the connection has been open. */
  readonly ageSeconds: () => number;
  /** Told when a stream is opened (1) or gone (-1). */
  readonly onStreamCountChange: (change: number) => void;
}

/**
 * Reads a connection's frames on their way to HTTP/2, copies nothing, and knows what the peer makes this process hold:
 * for each stream its header blocks, the message that is not whole yet, and the whole ones that nobody has dealt with.
 * What is malformed is left for HTTP/2 to find; the numbers here are then of no more use.
 */
export class InboundFrames {
  readonly #options: InboundFramesOptions;
  readonly #header = new FrameHeader();
  readonly #streams = new Map<number, InboundStream>();
  #remainingPayload = 0;
  #paddingBytes = 0;
  #paddingUnread = false;
  #data: InboundStream | undefined;
  #lastStreamId = 0;
  #headerBlockBytes = 0;
  #controlFrames = 0;
  #streamsOpened = 0;

  /** Set when the connection has to be cut. */
  violation: LimitViolation | undefined;
  /** True once a whole frame has come, which HTTP/2 wants to be SETTINGS. */
  isHandshakeDone = false;
  /** Whose DATA was read last; 0 when it was another frame. */
  dataStreamId = 0;
  /** Where in the chunk the message begins that `dataOf` has not finished; -1 when before it, which is the reader's to set. */
  messageStart = -1;
  /** Work that was caused, in frames; for the reader to take down. */
  cost = 0;

  constructor(options: InboundFramesOptions) {
    this.#options = options;
  }

  /** The newest stream that the peer has opened. */
  get lastStreamId(): number {
    return this.#lastStreamId;
  }

  /** Reads one frame, or as much of it as is there; the answer is where that ends in the chunk. */
  readFrame(chunk: Buffer, from: number): number {
    let at = from;
    if (!this.#header.isComplete) {
      at = this.#header.read(chunk, at);
      if (!this.#header.isComplete) return at;
      this.#beginFrame();
    }
    const take = Math.min(this.#remainingPayload, chunk.length - at);
    if (this.#data !== undefined && take > 0) this.#readData(this.#data, chunk, at, at + take);
    this.#remainingPayload -= take;
    if (this.#remainingPayload === 0) this.#endFrame();
    return at + take;
  }

  /** The oldest whole message of the stream has been dealt with. */
  messageDone(streamId: number): void {
    const stream = this.#streams.get(streamId);
    const cost = stream?.completeMessageCosts.shift();
    if (stream !== undefined && cost !== undefined) this.#addBuffered(stream, -cost);
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
    this.#options.onBufferedChange(-stream.bufferedBytes);
    this.#options.onStreamCountChange(-1);
  }

  #beginFrame(): void {
    const { type, length, flags, streamId } = this.#header;
    this.cost += 1;
    this.#remainingPayload = length;
    this.#data = undefined;
    this.dataStreamId = 0;
    if (type === FRAME.data) {
      this.#beginData(this.#streams.get(streamId), flags, streamId);
    } else if (type === FRAME.headers) {
      // Of a stream that is there already they are trailers.
      if (streamId > this.#lastStreamId) this.#openStream(streamId);
      this.#headerBlockBytes = 0;
      this.#readHeaderBlock(streamId, length);
    } else if (type === FRAME.continuation) {
      this.#readHeaderBlock(streamId, length);
    } else {
      this.#controlFrames += 1;
      this.#checkRate('control_frames', this.#controlFrames, FREE_CONTROL_FRAMES, CONTROL_FRAMES_PER_SECOND);
    }
  }

  #checkRate(violation: LimitViolation, count: number, free: number, perSecond: number): void {
    if (count > free && count > free + perSecond * this.#options.ageSeconds()) this.violation = violation;
  }

  #openStream(streamId: number): void {
    this.#lastStreamId = streamId;
    this.cost += STREAM_COST;
    this.#streamsOpened += 1;
    this.#checkRate('stream_rate', this.#streamsOpened, FREE_STREAMS, STREAMS_PER_SECOND);
    this.#streams.set(streamId, {
      unfinishedBytes: 0,
      remainingBytes: 0,
      frames: 0,
      bufferedBytes: 0,
      completeMessageCosts: [],
      ignored: false,
      peerEnded: false,
    });
    this.#options.onStreamCountChange(1);
  }

  #readHeaderBlock(streamId: number, length: number): void {
    this.#headerBlockBytes += length;
    if (this.#headerBlockBytes > MAX_HEADER_BLOCK_BYTES) this.violation = 'header_block';
    const stream = this.#streams.get(streamId);
    if (stream !== undefined) this.#addBuffered(stream, length);
  }

  #beginData(stream: InboundStream | undefined, flags: number, streamId: number): void {
    if (stream === undefined || stream.ignored) return;
    this.#data = stream;
    this.dataStreamId = streamId;
    this.#paddingUnread = (flags & FLAG.padded) !== 0;
    this.#paddingBytes = 0;
    stream.frames += 1;
    this.#addBuffered(stream, FRAME_COST_BYTES);
    if (stream.frames > FREE_FRAMES + stream.unfinishedBytes / BYTES_PER_FRAME)
      this.violation = 'small_frames';
  }

  #endFrame(): void {
    const { type, flags, streamId } = this.#header;
    this.#header.clear();
    this.isHandshakeDone = true;
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
    const remainingAfter = this.#remainingPayload - (to - from);
    const end = to - Math.max(0, Math.min(this.#paddingBytes - remainingAfter, to - at));
    while (at < end && !stream.ignored) at = this.#readMessage(stream, chunk, at, end);
  }

  /** Reads of one message what is there. */
  #readMessage(stream: InboundStream, chunk: Buffer, from: number, end: number): number {
    let at = from;
    const before = stream.unfinishedBytes;
    if (before === 0) this.messageStart = at;
    while (stream.unfinishedBytes < PREFIX_BYTES) {
      if (at === end) {
        this.#addBuffered(stream, stream.unfinishedBytes - before);
        return at;
      }
      // The flag comes first and falls out of 32 bits by the last shift.
      stream.remainingBytes = (stream.remainingBytes << 8) | (chunk[at] ?? 0);
      stream.unfinishedBytes += 1;
      at += 1;
      if (stream.unfinishedBytes === PREFIX_BYTES) {
        stream.remainingBytes >>>= 0;
        if (stream.remainingBytes > this.#options.maxMessageSizeBytes) {
          // gRPC ends the stream with RESOURCE_EXHAUSTED at this very byte.
          stream.ignored = true;
          return at;
        }
      }
    }
    const take = Math.min(stream.remainingBytes, end - at);
    stream.remainingBytes -= take;
    stream.unfinishedBytes += take;
    this.#addBuffered(stream, stream.unfinishedBytes - before);
    if (stream.remainingBytes === 0) {
      this.#addBuffered(stream, MESSAGE_COST_BYTES);
      stream.completeMessageCosts.push(
        stream.unfinishedBytes + stream.frames * FRAME_COST_BYTES + MESSAGE_COST_BYTES,
      );
      this.cost += 1;
      stream.unfinishedBytes = 0;
      stream.frames = 0;
      this.messageStart = -1;
    }
    return at + take;
  }

  #addBuffered(stream: InboundStream, bytes: number): void {
    stream.bufferedBytes += bytes;
    this.#options.onBufferedChange(bytes);
  }
}
