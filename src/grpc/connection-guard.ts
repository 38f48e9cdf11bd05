import type { Socket } from 'node:net';
import { constants, type Http2Session, type ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import type { Clock } from '../clock.ts';
import type { Credential } from './credential.ts';
import { InboundFrames, type MessageProgress } from './connection-guard-inbound.ts';
import type { FairQuota } from './fair-quota.ts';
import { GuardedTransport } from './guarded-transport.ts';
import { encodeEnhanceYourCalm, OutboundFrames } from './http2-frame.ts';
import {
  connectionRejectionMessage,
  type ConnectionRejectionReason,
  type RejectConnection,
} from './rejections.ts';

/**
 * The work for one connection per tick of the event loop: a few milliseconds, so a peer that sends frames as fast as it
 * can does not delay the reports of others. A full push of 13 MB, in frames of 16 KiB, takes a few ticks.
 */
const FRAMES_PER_TICK = 512;
/**
 * Work below this is carried over to the next tick, so its limit may be lower by this. Otherwise each heartbeat would
 * cause another iteration of the event loop, which costs as much as decoding the heartbeat.
 */
const CARRIED_FRAMES = FRAMES_PER_TICK / 8;
/** After this time, the connection to a peer that accepts no more bytes or does not close its side is destroyed. */
const LINGER_MS = 10_000;

/** The limits of a connection, and the quotas that it shares with all other connections. */
export interface ConnectionGuardOptions {
  /** The peer's certificate; undefined if it was not requested or not presented. */
  readonly certificate: Credential | undefined;
  readonly maxMessageSizeBytes: number;
  readonly bufferedBytes: FairQuota<ConnectionGuard>;
  readonly openStreams: FairQuota<ConnectionGuard>;
  readonly pendingAuthentications: FairQuota<ConnectionGuard>;
  readonly reject: RejectConnection;
  /** Called when the first frame has been received. */
  readonly handshakeDone: () => void;
  readonly clock: Clock;
}

/**
 * Forwards bytes between a socket and HTTP/2, and terminates the connection if it exceeds a limit. Bytes are unchanged,
 * but are forwarded at a limited rate, and in slices chosen such that the parts that HTTP/2 keeps do not retain other
 * data in memory.
 */
export class ConnectionGuard {
  /** The peer's IP address. */
  readonly address: string;
  /** The peer's certificate; undefined if it did not present one. */
  readonly certificate: Credential | undefined;
  readonly #transport: GuardedTransport;
  #session: Http2Session | undefined;
  readonly #socket: Socket;
  readonly #options: ConnectionGuardOptions;
  readonly #acceptedMs: number;
  readonly #inbound: InboundFrames;
  readonly #outbound: OutboundFrames;
  #isHandshakeDone = false;
  /** Read from the socket, but not forwarded yet. */
  #pendingChunk: Buffer | undefined;
  #hasSocketEnded = false;
  #wantsData = false;
  #scheduledTick: NodeJS.Immediate | undefined;
  /**
   * The peer sends nothing more. HTTP/2 may still respond in this iteration of the event loop. It is not informed of the
   * end: Node would shut down its side, and abort the process if a stream is reset before that is done
   * (nodejs/node#49400 describes such a race).
   */
  #scheduledClose: NodeJS.Immediate | undefined;
  /** The stream whose DATA the last slice ends with; 0: it ends with another frame. */
  #dataStreamId = 0;
  #cancelLinger: (() => void) | undefined;
  /** Received bytes are no longer forwarded. */
  #isClosed = false;
  #isTerminated = false;

  /** @param preface the HTTP/2 connection preface, which has already been read from the socket */
  constructor(socket: Socket, preface: Buffer, options: ConnectionGuardOptions) {
    this.#socket = socket;
    this.#options = options;
    this.address = socket.remoteAddress ?? 'unknown';
    this.certificate = options.certificate;
    this.#acceptedMs = options.clock.monotonicMs();
    this.#inbound = new InboundFrames({
      maxMessageSizeBytes: options.maxMessageSizeBytes,
      onBufferedChange: (change) => options.bufferedBytes.change(this, change),
      ageMs: () => this.ageMs,
      onStreamCountChange: (change) => options.openStreams.change(this, change),
    });
    this.#outbound = new OutboundFrames({
      onStreamEnded: (streamId) => this.#inbound.serverEnded(streamId),
      onStreamReset: (streamId) => this.#inbound.streamReset(streamId),
    });
    options.bufferedBytes.register(this);
    options.openStreams.register(this);
    options.pendingAuthentications.register(this);
    this.#transport = this.#createTransport();
    this.#transport.push(preface);
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('end', () => this.#receiveEnd());
    socket.on('close', () => this.#transport.destroy());
  }

  /** The connection for the HTTP/2 server. */
  get duplex(): Duplex {
    return this.#transport;
  }

  /** The time since the peer could start HTTP/2, and therefore since it presented its certificate, if any. */
  get ageMs(): number {
    return this.#options.clock.monotonicMs() - this.#acceptedMs;
  }

  /** Receives the bytes that were read together with the preface. */
  receiveInitial(chunk: Buffer): void {
    if (chunk.length > 0) this.#receive(chunk);
  }

  /** Records that the oldest unprocessed message of this stream has been processed. */
  messageDone(streamId: number): void {
    this.#inbound.messageDone(streamId);
  }

  /** Returns how far a stream's incomplete message has arrived, in monotonic ms; undefined if there is none. */
  messageProgress(streamId: number): MessageProgress | undefined {
    const progress = this.#inbound.messageProgress(streamId);
    if (progress === undefined) return undefined;
    return {
      firstByteMs: this.#acceptedMs + progress.firstByteMs,
      lastByteMs: this.#acceptedMs + progress.lastByteMs,
    };
  }

  /** Records that a call begins (1) or ends (-1) to wait for a token review. */
  changePendingAuthentications(change: 1 | -1): void {
    this.#options.pendingAuthentications.change(this, change);
  }

  /**
   * Makes the peer open its next stream on a new connection, on which it authenticates again. Open streams continue.
   */
  drain(): void {
    this.#session?.close();
  }

  /**
   * Watches a new stream. If the peer does not end its half of the stream after the server has ended its own, the stream
   * is closed: grpc-js would keep it as long as the connection is open.
   */
  onStreamOpened(stream: ServerHttp2Stream): void {
    this.#session = stream.session;
    stream.once('finish', () => {
      const cancel = this.#options.clock.setTimer(LINGER_MS, () => stream.close(constants.NGHTTP2_NO_ERROR));
      stream.once('close', cancel);
    });
  }

  /** Terminates the connection, with a GOAWAY that contains the reason if the peer still reads. */
  terminate(reason: ConnectionRejectionReason): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#isTerminated = true;
    this.#options.reject(reason, this.address);
    this.#lingerThenDestroy();
    if (this.#outbound.isBetweenFrames) {
      this.#socket.write(
        encodeEnhanceYourCalm(this.#inbound.lastStreamId, connectionRejectionMessage(reason)),
      );
    }
    this.#socket.destroySoon();
    this.#transport.destroy();
  }

  #createTransport(): GuardedTransport {
    const socket = this.#socket;
    return new GuardedTransport({
      onRead: () => {
        this.#wantsData = true;
        this.#forward();
      },
      onWrite: (chunk, done) => {
        this.#outbound.read(chunk);
        socket.write(chunk, done);
      },
      onEnd: () => {
        // HTTP/2 is done. Further data is discarded, in order to see the peer's end.
        this.#isClosed = true;
        this.#lingerThenDestroy();
        socket.end();
        socket.resume();
      },
      onDestroy: () => this.#onHttp2Closed(),
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

  /** Forwards pending bytes within the limit of this tick, and pauses the socket while any remain. */
  #forward(): void {
    if (this.#isClosed) return;
    if (this.#pendingChunk !== undefined && this.#inbound.cost < FRAMES_PER_TICK)
      this.#forwardSlices(this.#pendingChunk);
    if (this.#isClosed) return;
    if (this.#inbound.cost > CARRIED_FRAMES) this.#scheduledTick ??= setImmediate(() => this.#startTick());
    if (this.#pendingChunk !== undefined || !this.#wantsData) this.#socket.pause();
    else if (this.#hasSocketEnded) this.#scheduledClose ??= setImmediate(() => this.#transport.destroy());
    else this.#socket.resume();
  }

  #startTick(): void {
    this.#scheduledTick = undefined;
    this.#inbound.cost = 0;
    this.#forward();
  }

  /**
   * Splits the chunk where the DATA frames of one stream begin or end: HTTP/2 passes DATA on as views into its slice, so
   * one byte of an unfinished report would retain the whole slice.
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
    // A message that continues after the slice begins its own slice, for the same reason.
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
    if (from < to && !this.#transport.deliver(chunk.subarray(from, to))) this.#wantsData = false;
  }

  #lingerThenDestroy(): void {
    this.#cancelLinger ??= this.#options.clock.setTimer(LINGER_MS, () => this.#socket.destroy());
    this.#socket.once('close', () => this.#cancelLinger?.());
  }

  /** Releases the quotas when HTTP/2 has closed the connection. */
  #onHttp2Closed(): void {
    if (this.#scheduledTick !== undefined) clearImmediate(this.#scheduledTick);
    if (this.#scheduledClose !== undefined) clearImmediate(this.#scheduledClose);
    this.#pendingChunk = undefined;
    this.#options.bufferedBytes.release(this);
    this.#options.openStreams.release(this);
    this.#options.pendingAuthentications.release(this);
    this.#isClosed = true;
    if (this.#isTerminated) return;
    this.#lingerThenDestroy();
    // Not immediately: the last frames of HTTP/2 have not been written yet.
    this.#socket.destroySoon();
  }
}
