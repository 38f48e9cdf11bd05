import { Duplex } from 'node:stream';

/** Up to this size, the parts of a write are sent as one: a copy costs less than a vectored write. */
const MAX_JOINED_BYTES = 16 * 1024;

type WriteCallback = (error?: Error | null) => void;

/** What happens at the other end of the transport. */
export interface GuardedTransportOptions {
  /** HTTP/2 accepts more data. */
  readonly onRead: () => void;
  /** HTTP/2 sends data; must call `done` once it may send more. */
  readonly onWrite: (chunk: Buffer, done: WriteCallback) => void;
  /** HTTP/2 sends nothing more. */
  readonly onEnd: () => void;
  readonly onDestroy: () => void;
}

/**
 * The connection that HTTP/2 sees. Node's HTTP/2 waits for each write before it starts the next one, and reads as fast
 * as it can; so the queues of a stream are bypassed wherever they are empty. They cost more than everything else that a
 * heartbeat causes in this process outside of Node.
 */
export class GuardedTransport extends Duplex {
  readonly #options: GuardedTransportOptions;
  #parts: Buffer[] = [];
  #callbacks: WriteCallback[] = [];
  #isCorked = false;

  constructor(options: GuardedTransportOptions) {
    super();
    this.#options = options;
  }

  /** Passes received data on; false: no more until `onRead`. */
  deliver(chunk: Buffer): boolean {
    if (this.readableFlowing !== true || this.readableLength > 0) return this.push(chunk);
    this.emit('data', chunk);
    return true;
  }

  override _read(): void {
    this.#options.onRead();
  }

  override _final(done: WriteCallback): void {
    this.#options.onEnd();
    done();
  }

  override _destroy(error: Error | null, done: WriteCallback): void {
    this.#options.onDestroy();
    done(error);
  }

  override cork(): void {
    this.#isCorked = true;
  }

  override uncork(): void {
    this.#isCorked = false;
    const parts = this.#parts;
    const callbacks = this.#callbacks;
    this.#parts = [];
    this.#callbacks = [];
    const [first] = parts;
    if (first === undefined) return;
    const done: WriteCallback = (error) => {
      for (const callback of callbacks) callback(error);
    };
    const size = parts.reduce((sum, part) => sum + part.length, 0);
    if (parts.length === 1 || size <= MAX_JOINED_BYTES) {
      this.#options.onWrite(parts.length === 1 ? first : Buffer.concat(parts, size), done);
      return;
    }
    for (const [i, part] of parts.entries())
      this.#options.onWrite(part, i === parts.length - 1 ? done : () => {});
  }

  override write(chunk: Buffer, encodingOrCallback?: unknown, callback?: WriteCallback): boolean {
    const done = (typeof encodingOrCallback === 'function' ? encodingOrCallback : callback) as
      WriteCallback | undefined;
    this.#parts.push(chunk);
    if (done !== undefined) this.#callbacks.push(done);
    if (!this.#isCorked) this.uncork();
    return true;
  }
}
