import { FLAG, FRAME, FrameHeader } from './http2-frame.ts';

/** A limit on what a connection sends; exceeding it terminates the connection. */
export type LimitViolation = 'header_block' | 'small_frames' | 'control_frames' | 'stream_rate';

/**
 * grpc-js keeps each DATA frame of a message as a separate slice until the message is complete: 138 bytes per frame when
 * measured. Charging per frame accounts for a message that is split into frames of one byte.
 */
const FRAME_COST_BYTES = 256;
/** grpc-js also keeps some objects per complete message: an empty report has only 5 bytes on the wire. */
const MESSAGE_COST_BYTES = 1024;
/** A well-behaved client fills its frames (16 KiB) and sends a smaller one only where a flow-control window ends. */
const FREE_FRAMES = 1024;
const BYTES_PER_FRAME = 256;
/** Envoy's own limit is 60 KiB for all headers; a reporter needs less than 1 KiB. */
const MAX_HEADER_BLOCK_BYTES = 16 * 1024;
/**
 * Limits for PING, SETTINGS, WINDOW_UPDATE and all other frames that carry no report, of which a client needs one per
 * several DATA frames, and for streams, of which a proxy opens its thousand at once, and each again every 5 s while they
 * are rejected. Further ones are limited per second of the connection's age, so a flood costs at most a few percent of
 * one core.
 */
const FREE_CONTROL_FRAMES = 10_000;
const CONTROL_FRAMES_PER_SECOND = 1000;
const FREE_STREAMS = 1000;
const STREAMS_PER_SECOND = 100;
/** The flag and the length before each gRPC message. */
const PREFIX_BYTES = 5;
/** In frames: a new stream is some 50 µs of work, any other frame about 1 µs. */
const STREAM_COST = 32;

/** The arrival of an incomplete message, in ms of the age of its connection. */
export interface MessageProgress {
  readonly firstByteMs: number;
  readonly lastByteMs: number;
}

/** The inbound half of a stream. */
interface InboundStream {
  /** Bytes received of the incomplete message, including its prefix. */
  unfinishedBytes: number;
  /** Bytes of the message that have not been received yet, once the prefix has been read. */
  remainingBytes: number;
  /** When the first and the last byte of the incomplete message were received, by the age of the connection. */
  firstByteMs: number;
  lastByteMs: number;
  /** DATA frames since the last complete message. */
  frames: number;
  /** The total charge for the stream. */
  bufferedBytes: number;
  /** The charge for each complete message that has not been processed yet, oldest first. */
  readonly completeMessageCosts: number[];
  /** grpc-js discards further data of this stream. */
  ignored: boolean;
  peerEnded: boolean;
}

/** The limits of a connection and the callbacks for its accounting. Each callback may terminate the connection. */
export interface InboundFramesOptions {
  readonly maxMessageSizeBytes: number;
  /** Called with the change of the number of buffered bytes. */
  readonly onBufferedChange: (change: number) => void;
  /** The age of the connection. */
  readonly ageMs: () => number;
  /** Called when a stream is opened (1) or closed (-1). */
  readonly onStreamCountChange: (change: number) => void;
}

/**
 * Accounts for the memory and work that a peer causes, by scanning a connection's frames on their way to HTTP/2 without
 * copying them. Each stream is charged for its header blocks, its incomplete message, and its complete messages that
 * have not been processed. Malformed frames are left to HTTP/2, which closes the connection; the accounting is
 * meaningless from then on.
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

  /** Set when the connection must be terminated. */
  violation: LimitViolation | undefined;
  /** True once a complete frame has been received, which HTTP/2 requires to be SETTINGS. */
  isHandshakeDone = false;
  /** The stream of the last frame if that was DATA, otherwise 0. */
  dataStreamId = 0;
  /**
   * The index in the chunk at which the incomplete message of `dataStreamId` begins; -1 if it began before the chunk,
   * which the caller sets for each chunk.
   */
  messageStart = -1;
  /** The work caused so far, in frames; the caller resets it. */
  cost = 0;

  constructor(options: InboundFramesOptions) {
    this.#options = options;
  }

  /** The newest stream that the peer opened. */
  get lastStreamId(): number {
    return this.#lastStreamId;
  }

  /** Reads one frame, or the part of it that is in the chunk, and returns the index after it. */
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

  /** Returns how far a stream's incomplete message has arrived; undefined if there is none. */
  messageProgress(streamId: number): MessageProgress | undefined {
    const stream = this.#streams.get(streamId);
    if (stream === undefined || stream.unfinishedBytes === 0) return undefined;
    const { firstByteMs, lastByteMs } = stream;
    return { firstByteMs, lastByteMs };
  }

  /** Releases the charge for the stream's oldest complete message, which has been processed. */
  messageDone(streamId: number): void {
    const stream = this.#streams.get(streamId);
    const cost = stream?.completeMessageCosts.shift();
    if (stream !== undefined && cost !== undefined) this.#addBuffered(stream, -cost);
  }

  /**
   * Records that the server has ended its half of the stream. grpc-js keeps the data of the stream until the peer has
   * ended its half too.
   */
  serverEnded(streamId: number): void {
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    stream.ignored = true;
    if (stream.peerEnded) this.streamReset(streamId);
  }

  /** Removes a stream that is closed for both sides. */
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
      // HEADERS on an open stream are trailers.
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
    if (count > free && count > free + (perSecond * this.#options.ageMs()) / 1000) this.violation = violation;
  }

  #openStream(streamId: number): void {
    this.#lastStreamId = streamId;
    this.cost += STREAM_COST;
    this.#streamsOpened += 1;
    this.#checkRate('stream_rate', this.#streamsOpened, FREE_STREAMS, STREAMS_PER_SECOND);
    this.#streams.set(streamId, {
      unfinishedBytes: 0,
      remainingBytes: 0,
      firstByteMs: 0,
      lastByteMs: 0,
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
    // The padding is at the end of the payload; it may begin in this chunk.
    const remainingAfter = this.#remainingPayload - (to - from);
    const end = to - Math.max(0, Math.min(this.#paddingBytes - remainingAfter, to - at));
    const before = stream.unfinishedBytes;
    let messages = 0;
    for (; at < end && !stream.ignored; messages += 1) at = this.#readMessage(stream, chunk, at, end);
    if (stream.unfinishedBytes === 0) return;
    stream.lastByteMs = this.#options.ageMs();
    if (before === 0 || messages > 1) stream.firstByteMs = stream.lastByteMs;
  }

  /** Reads one message, or the part of it that is in the chunk, and returns the index after it. */
  #readMessage(stream: InboundStream, chunk: Buffer, from: number, end: number): number {
    let at = from;
    const before = stream.unfinishedBytes;
    if (before === 0) this.messageStart = at;
    while (stream.unfinishedBytes < PREFIX_BYTES) {
      if (at === end) {
        this.#addBuffered(stream, stream.unfinishedBytes - before);
        return at;
      }
      // The flag comes first; the last shift moves it out of the 32 bits.
      stream.remainingBytes = (stream.remainingBytes << 8) | (chunk[at] ?? 0);
      stream.unfinishedBytes += 1;
      at += 1;
      if (stream.unfinishedBytes === PREFIX_BYTES) {
        stream.remainingBytes >>>= 0;
        if (stream.remainingBytes > this.#options.maxMessageSizeBytes) {
          // grpc-js ends the stream with RESOURCE_EXHAUSTED at this byte.
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
