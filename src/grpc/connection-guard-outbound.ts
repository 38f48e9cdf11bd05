import { FLAG, FRAME, FrameHead } from './http2-frame.ts';

/** Who is told what the server has done with a stream. */
export interface OutboundParts {
  /** The server has sent the last it has to say on this stream. */
  readonly ended: (streamId: number) => void;
  /** The server has reset this stream. */
  readonly reset: (streamId: number) => void;
}

/** Reads the frames that the server sends: which streams it is done with, and where a frame ends. */
export class OutboundFrames {
  readonly #parts: OutboundParts;
  readonly #head = new FrameHead();
  #payloadLeft = 0;

  constructor(parts: OutboundParts) {
    this.#parts = parts;
  }

  /** True when another frame may be written. */
  get isBetweenFrames(): boolean {
    return this.#head.isEmpty;
  }

  read(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) {
      if (!this.#head.isComplete) {
        at = this.#head.read(chunk, at);
        if (!this.#head.isComplete) return;
        this.#payloadLeft = this.#head.length;
      }
      const take = Math.min(this.#payloadLeft, chunk.length - at);
      at += take;
      this.#payloadLeft -= take;
      if (this.#payloadLeft === 0) this.#end();
    }
  }

  #end(): void {
    const { type, flags, streamId } = this.#head;
    this.#head.clear();
    if (type === FRAME.rstStream) this.#parts.reset(streamId);
    else if ((type === FRAME.data || type === FRAME.headers) && (flags & FLAG.endStream) !== 0) {
      this.#parts.ended(streamId);
    }
  }
}
