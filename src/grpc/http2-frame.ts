/** The parts of HTTP/2 framing (RFC 9113, sections 4 and 6) that the connection guard needs. */

/** The connection preface, which a client sends before its first frame (RFC 9113, section 3.4). */
export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

/** Frame types (RFC 9113, section 6). */
export const FRAME = {
  data: 0x0,
  headers: 0x1,
  rstStream: 0x3,
  settings: 0x4,
  goaway: 0x7,
  continuation: 0x9,
} as const;
/** Flags of DATA and HEADERS that affect what follows. */
export const FLAG = { endStream: 0x1, padded: 0x8 } as const;

const HEADER_BYTES = 9;
const ENHANCE_YOUR_CALM = 0xb;
const INADEQUATE_SECURITY = 0xc;

/** Parses the header of a frame, which may arrive in several chunks. */
export class FrameHeader {
  /** The length of the payload, in bytes. */
  length = 0;
  type = 0;
  flags = 0;
  streamId = 0;
  readonly #bytes = Buffer.alloc(HEADER_BYTES);
  #bytesRead = 0;

  /** True between two frames. */
  get isEmpty(): boolean {
    return this.#bytesRead === 0;
  }

  /** True once the fields above describe the current frame. */
  get isComplete(): boolean {
    return this.#bytesRead === HEADER_BYTES;
  }

  /** Reads the remaining bytes of the header and returns the index after them. */
  read(chunk: Buffer, at: number): number {
    const take = Math.min(HEADER_BYTES - this.#bytesRead, chunk.length - at);
    if (take === HEADER_BYTES) {
      this.#parse(chunk, at);
    } else {
      chunk.copy(this.#bytes, this.#bytesRead, at, at + take);
      if (this.#bytesRead + take === HEADER_BYTES) this.#parse(this.#bytes, 0);
    }
    this.#bytesRead += take;
    return at + take;
  }

  /** Prepares for the next frame. */
  clear(): void {
    this.#bytesRead = 0;
  }

  #parse(bytes: Buffer, at: number): void {
    this.length = bytes.readUIntBE(at, 3);
    this.type = bytes.readUInt8(at + 3);
    this.flags = bytes.readUInt8(at + 4);
    this.streamId = bytes.readUInt32BE(at + 5) & 0x7fff_ffff;
  }
}

/** The callbacks for the streams that the server ends. */
export interface OutboundFramesOptions {
  /** The server has ended its half of this stream. */
  readonly onStreamEnded: (streamId: number) => void;
  /** The server has reset this stream. */
  readonly onStreamReset: (streamId: number) => void;
}

/** Scans the frames that the server sends for the streams that it ends and for frame boundaries. */
export class OutboundFrames {
  readonly #options: OutboundFramesOptions;
  readonly #header = new FrameHeader();
  #remainingPayload = 0;

  constructor(options: OutboundFramesOptions) {
    this.#options = options;
  }

  /** True if another frame may be inserted here. */
  get isBetweenFrames(): boolean {
    return this.#header.isEmpty;
  }

  read(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) {
      if (!this.#header.isComplete) {
        at = this.#header.read(chunk, at);
        if (!this.#header.isComplete) return;
        this.#remainingPayload = this.#header.length;
      }
      const take = Math.min(this.#remainingPayload, chunk.length - at);
      at += take;
      this.#remainingPayload -= take;
      if (this.#remainingPayload === 0) this.#endFrame();
    }
  }

  #endFrame(): void {
    const { type, flags, streamId } = this.#header;
    this.#header.clear();
    if (type === FRAME.rstStream) this.#options.onStreamReset(streamId);
    else if ((type === FRAME.data || type === FRAME.headers) && (flags & FLAG.endStream) !== 0) {
      this.#options.onStreamEnded(streamId);
    }
  }
}

/** Encodes a GOAWAY with ENHANCE_YOUR_CALM; the message is for the peer's log. */
export function encodeEnhanceYourCalm(lastStreamId: number, message: string): Buffer {
  return encodeGoAway(lastStreamId, ENHANCE_YOUR_CALM, message);
}

/**
 * Encodes the whole response to a rejected peer: SETTINGS, with which HTTP/2 must begin, and a GOAWAY with
 * INADEQUATE_SECURITY.
 */
export function encodeInadequateSecurity(message: string): Buffer {
  return Buffer.concat([EMPTY_SETTINGS, encodeGoAway(0, INADEQUATE_SECURITY, message)]);
}

/** Encodes the whole response to a peer that has too many connections; as above, with ENHANCE_YOUR_CALM. */
export function encodeTooManyConnections(message: string): Buffer {
  return Buffer.concat([EMPTY_SETTINGS, encodeEnhanceYourCalm(0, message)]);
}

/** A SETTINGS frame without settings. */
const EMPTY_SETTINGS = Buffer.from([0, 0, 0, FRAME.settings, 0, 0, 0, 0, 0]);

function encodeGoAway(lastStreamId: number, code: number, message: string): Buffer {
  const text = Buffer.from(message);
  const bytes = Buffer.alloc(HEADER_BYTES + 8 + text.length);
  bytes.writeUIntBE(8 + text.length, 0, 3);
  bytes.writeUInt8(FRAME.goaway, 3);
  bytes.writeUInt32BE(lastStreamId, HEADER_BYTES);
  bytes.writeUInt32BE(code, HEADER_BYTES + 4);
  text.copy(bytes, HEADER_BYTES + 8);
  return bytes;
}
