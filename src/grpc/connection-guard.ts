import type { Socket } from 'node:net';
import { constants, type Http2Session, type ServerHttp2Stream } from 'node:http2';
import { Duplex } from 'node:stream';
import type { Clock } from '../clock.ts';
import type { Credential } from './credential.ts';
import { InboundFrames } from './connection-guard-inbound.ts';
import { OutboundFrames } from './connection-guard-outbound.ts';
import type { FairQuota } from './fair-quota.ts';
import { encodeEnhanceYourCalm } from './http2-frame.ts';
import { rejectionMessage, type RejectionReason, type RejectConnection } from './connection-rejections.ts';

/**
 * Work of one connection in one turn of the event loop: some milliseconds, so that others' reports are not kept
 * waiting by a peer that sends frames as fast as it can. A full push of 13 MB, in frames of 16 KiB, takes a few turns.
 */
const FRAMES_PER_TICK = 512;
/** A peer that takes no more bytes, or does not close its side, is cut by then. */
const LINGER_MS = 10_000;

/** What one connection is held to, and the budgets that it shares with all others. */
export interface ConnectionGuardOptions {
  /** Of the peer, where it was asked for one and has shown it. */
  readonly certificate: Credential | undefined;
  readonly maxMessageSizeBytes: number;
  readonly bufferedBytes: FairQuota<ConnectionGuard>;
  readonly openStreams: FairQuota<ConnectionGuard>;
  readonly pendingAuthentications: FairQuota<ConnectionGuard>;
  readonly reject: RejectConnection;
  /** Told when the first frame is there. */
  readonly handshakeDone: () => void;
  readonly clock: Clock;
}

/**
 * Stands between a socket and HTTP/2. Bytes pass as they are, in slices that are chosen so that what HTTP/2 keeps of
 * them keeps nothing else in memory, and at a pace; a connection that holds or sends too much is cut.
 */
export class ConnectionGuard {
  /** The peer's. */
  readonly address: string;
  /** The peer's; undefined where it has shown none. */
  readonly certificate: Credential | undefined;
  /** The connection as HTTP/2 is to see it. */
  readonly duplex: Duplex;
  #session: Http2Session | undefined;
  readonly #socket: Socket;
  readonly #options: ConnectionGuardOptions;
  readonly #acceptedMs: number;
  readonly #inbound: InboundFrames;
  readonly #outbound: OutboundFrames;
  #isHandshakeDone = false;
  /** Read from the socket, not passed on yet. */
  #pendingChunk: Buffer | undefined;
  #hasSocketEnded = false;
  #wantsData = false;
  #scheduledTick: NodeJS.Immediate | undefined;
  /** Whose DATA the last slice ends with. */
  #dataStreamId = 0;
  #cancelLinger: (() => void) | undefined;
  /** Nothing that comes is passed on any more. */
  #isClosed = false;
  #isTerminated = false;

  /** @param preface what HTTP/2 wants first; it has been read from the socket */
  constructor(socket: Socket, preface: Buffer, options: ConnectionGuardOptions) {
    this.#socket = socket;
    this.#options = options;
    this.address = socket.remoteAddress ?? 'unknown';
    this.certificate = options.certificate;
    this.#acceptedMs = options.clock.monotonicMs();
    this.#inbound = new InboundFrames({
      maxMessageSizeBytes: options.maxMessageSizeBytes,
      onBufferedChange: (change) => options.bufferedBytes.change(this, change),
      ageSeconds: () => this.ageMs / 1000,
      onStreamCountChange: (change) => options.openStreams.change(this, change),
    });
    this.#outbound = new OutboundFrames({
      onStreamEnded: (streamId) => this.#inbound.serverEnded(streamId),
      onStreamReset: (streamId) => this.#inbound.streamReset(streamId),
    });
    options.bufferedBytes.register(this);
    options.openStreams.register(this);
    options.pendingAuthentications.register(this);
    this.duplex = this.#createDuplex();
    this.duplex.push(preface);
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('end', () => this.#receiveEnd());
    socket.on('close', () => this.duplex.destroy());
  }

  /** Since its peer could speak HTTP/2, and had shown its certificate where it has one. */
  get ageMs(): number {
    return this.#options.clock.monotonicMs() - this.#acceptedMs;
  }

  /** Takes bytes that came with the preface. */
  receiveInitial(chunk: Buffer): void {
    if (chunk.length > 0) this.#receive(chunk);
  }

  /** The oldest message that was read on this stream has been dealt with. */
  messageDone(streamId: number): void {
    this.#inbound.messageDone(streamId);
  }

  /** A call waits for its token's review (1), or does so no more (-1). */
  changePendingAuthentications(change: 1 | -1): void {
    this.#options.pendingAuthentications.change(this, change);
  }

  /** Has the peer open its next stream on a new connection, where it proves anew who it is. What is open goes on. */
  drain(): void {
    this.#session?.close();
  }

  /**
   * A stream was opened on it. One whose peer has had the last answer and does not end its own half is closed: gRPC would
   * keep it for as long as the connection lives.
   */
  onStreamOpened(stream: ServerHttp2Stream): void {
    this.#session = stream.session;
    stream.once('finish', () => {
      const cancel = this.#options.clock.setTimer(LINGER_MS, () => stream.close(constants.NGHTTP2_NO_ERROR));
      stream.once('close', cancel);
    });
  }

  /** Ends the connection, telling the peer why as far as it still listens. */
  terminate(reason: RejectionReason): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#isTerminated = true;
    this.#options.reject(reason, this.address);
    this.#lingerThenDestroy();
    if (this.#outbound.isBetweenFrames) {
      this.#socket.write(encodeEnhanceYourCalm(this.#inbound.lastStreamId, rejectionMessage(reason)));
    }
    this.#socket.destroySoon();
    this.duplex.destroy();
  }

  #createDuplex(): Duplex {
    const socket = this.#socket;
    return new Duplex({
      read: () => {
        this.#wantsData = true;
        this.#forward();
      },
      write: (chunk: Buffer, _encoding, done) => {
        this.#outbound.read(chunk);
        socket.write(chunk, done);
      },
      writev: (chunks, done) => {
        socket.cork();
        for (const [i, { chunk }] of chunks.entries()) {
          this.#outbound.read(chunk as Buffer);
          socket.write(chunk as Buffer, i === chunks.length - 1 ? done : undefined);
        }
        socket.uncork();
      },
      final: (done) => {
        // HTTP/2 is through. What still comes is dropped, to see the peer's end.
        this.#isClosed = true;
        this.#lingerThenDestroy();
        socket.end();
        socket.resume();
        done();
      },
      destroy: (error, done) => {
        this.#onHttp2Closed();
        done(error);
      },
    });
  }

  #receive(chunk: Buffer): void {
    if (this.#isClosed) return;
    this.#pendingChunk =
      this.#pendingChunk === undefined ? chunk : Buffer.concat([this.#pendingChunk, chunk]);
    this.#forward();
  }

  #receiveEnd(): void {
    this.#hasSocketEnded = true;
    this.#forward();
  }

  /** Passes on what was read, as far as this turn allows, and sees to it that no more is read than is passed on. */
  #forward(): void {
    if (this.#isClosed) return;
    if (this.#pendingChunk !== undefined && this.#inbound.cost < FRAMES_PER_TICK)
      this.#forwardSlices(this.#pendingChunk);
    if (this.#isClosed) return;
    if (this.#inbound.cost > 0) this.#scheduledTick ??= setImmediate(() => this.#startTick());
    if (this.#pendingChunk !== undefined || !this.#wantsData) this.#socket.pause();
    else if (this.#hasSocketEnded) this.duplex.push(null);
    else this.#socket.resume();
  }

  #startTick(): void {
    this.#scheduledTick = undefined;
    this.#inbound.cost = 0;
    this.#forward();
  }

  /**
   * Cuts the chunk where frames of one stream's DATA begin or end: HTTP/2 hands the DATA on as views into the slice
   * it came in, and one byte of a report that is never finished would keep all of the slice.
   */
  #forwardSlices(chunk: Buffer): void {
    const inbound = this.#inbound;
    inbound.messageStart = -1;
    let from = 0;
    let at = 0;
    while (at < chunk.length && inbound.cost < FRAMES_PER_TICK) {
      const start = at;
      at = inbound.readFrame(chunk, start);
      if (this.#isClosed) return;
      if (inbound.violation !== undefined) {
        this.terminate(inbound.violation);
        return;
      }
      if (inbound.dataStreamId !== this.#dataStreamId) {
        this.#dataStreamId = inbound.dataStreamId;
        this.#push(chunk, from, start);
        from = start;
      }
    }
    this.#pendingChunk = at < chunk.length ? chunk.subarray(at) : undefined;
    // A message that goes on beyond the slice begins a slice of its own, for the same reason.
    const { messageStart } = inbound;
    if (inbound.dataStreamId !== 0 && messageStart > from) {
      this.#push(chunk, from, messageStart);
      from = messageStart;
    }
    this.#push(chunk, from, at);
    if (inbound.isHandshakeDone && !this.#isHandshakeDone) {
      this.#isHandshakeDone = true;
      this.#options.handshakeDone();
    }
  }

  #push(chunk: Buffer, from: number, to: number): void {
    if (from < to && !this.duplex.push(chunk.subarray(from, to))) this.#wantsData = false;
  }

  #lingerThenDestroy(): void {
    this.#cancelLinger ??= this.#options.clock.setTimer(LINGER_MS, () => this.#socket.destroy());
    this.#socket.once('close', () => this.#cancelLinger?.());
  }

  /** The end of the connection, as far as HTTP/2 goes. */
  #onHttp2Closed(): void {
    if (this.#scheduledTick !== undefined) clearImmediate(this.#scheduledTick);
    this.#pendingChunk = undefined;
    this.#options.bufferedBytes.release(this);
    this.#options.openStreams.release(this);
    this.#options.pendingAuthentications.release(this);
    this.#isClosed = true;
    if (this.#isTerminated) return;
    this.#lingerThenDestroy();
    // Not at once: HTTP/2's last words are still to be written.
    this.#socket.destroySoon();
  }
}
