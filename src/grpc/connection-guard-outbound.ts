import { FLAG, FRAME, FrameHeader } from './http2-frame.ts';

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
