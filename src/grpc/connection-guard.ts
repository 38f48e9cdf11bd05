import type { Socket } from 'node:net';
import { constants, type Http2Session, type ServerHttp2Stream } from 'node:http2';
import { Duplex } from 'node:stream';
import type { Clock } from '../clock.ts';
import type { Credential } from './credential.ts';
import { InboundFrames } from './connection-guard-inbound.ts';
import { OutboundFrames } from './connection-guard-outbound.ts';
import type { FairBudget } from './fair-budget.ts';
import { calmDown } from './http2-frame.ts';
import { refusalWords, type RefusalReason, type Refuse } from './refusals.ts';

/**
 * Work of one connection in one turn of the event loop: some milliseconds, so that others' reports are not kept
 * waiting by a peer that sends frames as fast as it can. A full push of 13 MB, in frames of 16 KiB, takes a few turns.
 */
const FRAMES_A_TURN = 512;
/** A peer that takes no more bytes, or does not close its side, is cut by then. */
const LINGER_MS = 10_000;

/** What one connection is held to, and the budgets that it shares with all others. */
export interface GuardParts {
  /** Of the peer, where it was asked for one and has shown it. */
  readonly certificate: Credential | undefined;
  readonly maxMessageSizeBytes: number;
  readonly heldBytes: FairBudget<ConnectionGuard>;
  readonly heldStreams: FairBudget<ConnectionGuard>;
  readonly unprovenCalls: FairBudget<ConnectionGuard>;
  readonly refuse: Refuse;
  /** Told when the first frame is there. */
  readonly greeted: () => void;
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
  readonly #parts: GuardParts;
  readonly #acceptedMs: number;
  readonly #inbound: InboundFrames;
  readonly #outbound: OutboundFrames;
  #hasGreeted = false;
  /** Read from the socket, not passed on yet. */
  #rest: Buffer | undefined;
  #restEnds = false;
  #isWanted = false;
  #turn: NodeJS.Immediate | undefined;
  /** Whose DATA the last slice ends with. */
  #dataOf = 0;
  #cancelLinger: (() => void) | undefined;
  /** Nothing that comes is passed on any more. */
  #isOver = false;
  #isCut = false;

  /** @param preface what HTTP/2 wants first; it has been read from the socket */
  constructor(socket: Socket, preface: Buffer, parts: GuardParts) {
    this.#socket = socket;
    this.#parts = parts;
    this.address = socket.remoteAddress ?? 'unknown';
    this.certificate = parts.certificate;
    this.#acceptedMs = parts.clock.monotonicMs();
    this.#inbound = new InboundFrames({
      maxMessageSizeBytes: parts.maxMessageSizeBytes,
      held: (change) => parts.heldBytes.change(this, change),
      ageSeconds: () => this.ageMs / 1000,
      streams: (change) => parts.heldStreams.change(this, change),
    });
    this.#outbound = new OutboundFrames({
      ended: (streamId) => this.#inbound.serverEnded(streamId),
      reset: (streamId) => this.#inbound.streamReset(streamId),
    });
    parts.heldBytes.join(this);
    parts.heldStreams.join(this);
    parts.unprovenCalls.join(this);
    this.duplex = this.#createDuplex();
    this.duplex.push(preface);
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('end', () => this.#receiveEnd());
    socket.on('close', () => this.duplex.destroy());
  }

  /** Since its peer could speak HTTP/2, and had shown its certificate where it has one. */
  get ageMs(): number {
    return this.#parts.clock.monotonicMs() - this.#acceptedMs;
  }

  /** Takes bytes that came with the preface. */
  receiveFirst(chunk: Buffer): void {
    if (chunk.length > 0) this.#receive(chunk);
  }

  /** The oldest message that was read on this stream has been dealt with. */
  messageDone(streamId: number): void {
    this.#inbound.messageDone(streamId);
  }

  /** A call waits for its token's review (1), or does so no more (-1). */
  unproven(change: 1 | -1): void {
    this.#parts.unprovenCalls.change(this, change);
  }

  /** Has the peer open its next stream on a new connection, where it proves anew who it is. What is open goes on. */
  retire(): void {
    this.#session?.close();
  }

  /**
   * A stream was opened on it. One whose peer has had the last answer and does not end its own half is closed: gRPC would
   * keep it for as long as the connection lives.
   */
  opened(stream: ServerHttp2Stream): void {
    this.#session = stream.session;
    stream.once('finish', () => {
      const cancel = this.#parts.clock.setTimer(LINGER_MS, () => stream.close(constants.NGHTTP2_NO_ERROR));
      stream.once('close', cancel);
    });
  }

  /** Ends the connection, telling the peer why as far as it still listens. */
  cut(reason: RefusalReason): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#isCut = true;
    this.#parts.refuse(reason, this.address);
    this.#linger();
    if (this.#outbound.isBetweenFrames) {
      this.#socket.write(calmDown(this.#inbound.lastStreamId, refusalWords(reason)));
    }
    this.#socket.destroySoon();
    this.duplex.destroy();
  }

  #createDuplex(): Duplex {
    const socket = this.#socket;
    return new Duplex({
      read: () => {
        this.#isWanted = true;
        this.#pass();
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
        this.#isOver = true;
        this.#linger();
        socket.end();
        socket.resume();
        done();
      },
      destroy: (error, done) => {
        this.#leave();
        done(error);
      },
    });
  }

  #receive(chunk: Buffer): void {
    if (this.#isOver) return;
    this.#rest = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#pass();
  }

  #receiveEnd(): void {
    this.#restEnds = true;
    this.#pass();
  }

  /** Passes on what was read, as far as this turn allows, and sees to it that no more is read than is passed on. */
  #pass(): void {
    if (this.#isOver) return;
    if (this.#rest !== undefined && this.#inbound.cost < FRAMES_A_TURN) this.#passSlices(this.#rest);
    if (this.#isOver) return;
    if (this.#inbound.cost > 0) this.#turn ??= setImmediate(() => this.#nextTurn());
    if (this.#rest !== undefined || !this.#isWanted) this.#socket.pause();
    else if (this.#restEnds) this.duplex.push(null);
    else this.#socket.resume();
  }

  #nextTurn(): void {
    this.#turn = undefined;
    this.#inbound.cost = 0;
    this.#pass();
  }

  /**
   * Cuts the chunk where frames of one stream's DATA begin or end: HTTP/2 hands the DATA on as views into the slice
   * it came in, and one byte of a report that is never finished would keep all of the slice.
   */
  #passSlices(chunk: Buffer): void {
    const inbound = this.#inbound;
    inbound.messageStart = -1;
    let from = 0;
    let at = 0;
    while (at < chunk.length && inbound.cost < FRAMES_A_TURN) {
      const start = at;
      at = inbound.step(chunk, start);
      if (this.#isOver) return;
      if (inbound.breach !== undefined) {
        this.cut(inbound.breach);
        return;
      }
      if (inbound.dataOf !== this.#dataOf) {
        this.#dataOf = inbound.dataOf;
        this.#push(chunk, from, start);
        from = start;
      }
    }
    this.#rest = at < chunk.length ? chunk.subarray(at) : undefined;
    // A message that goes on beyond the slice begins a slice of its own, for the same reason.
    const { messageStart } = inbound;
    if (inbound.dataOf !== 0 && messageStart > from) {
      this.#push(chunk, from, messageStart);
      from = messageStart;
    }
    this.#push(chunk, from, at);
    if (inbound.hasGreeted && !this.#hasGreeted) {
      this.#hasGreeted = true;
      this.#parts.greeted();
    }
  }

  #push(chunk: Buffer, from: number, to: number): void {
    if (from < to && !this.duplex.push(chunk.subarray(from, to))) this.#isWanted = false;
  }

  #linger(): void {
    this.#cancelLinger ??= this.#parts.clock.setTimer(LINGER_MS, () => this.#socket.destroy());
    this.#socket.once('close', () => this.#cancelLinger?.());
  }

  /** The end of the connection, as far as HTTP/2 goes. */
  #leave(): void {
    if (this.#turn !== undefined) clearImmediate(this.#turn);
    this.#rest = undefined;
    this.#parts.heldBytes.leave(this);
    this.#parts.heldStreams.leave(this);
    this.#parts.unprovenCalls.leave(this);
    this.#isOver = true;
    if (this.#isCut) return;
    this.#linger();
    // Not at once: HTTP/2's last words are still to be written.
    this.#socket.destroySoon();
  }
}
