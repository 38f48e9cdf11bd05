import { EventEmitter } from 'node:events';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { encodeReport } from '../../../src/grpc/encode.ts';
import type { ReportResponse } from '../../../src/grpc/proto.ts';
import type {
  ReportMessage,
  ReportStream,
  StreamHandlers,
  StreamStatus,
} from '../../../src/grpc/report-message.ts';
import type { Prng } from './prng.ts';
import type { SimProcess } from './process.ts';
import type { SimTime } from './time.ts';

/** Each direction of a connection takes at most this. */
const MAX_LATENCY_MS = 3;
const CONNECTION_LOST: StreamStatus = { code: 14, message: 'connection lost' };
/** Keepalive finds a peer that is gone: 30 s and 10 s. */
const KEEPALIVE_TIMEOUT_MS = { min: 30_000, max: 40_000 };
/** A connection that stalls for longer is cut by keepalive. */
const MAX_STALL_MS = 25_000;

/** The server's side of a stream, with as much of grpc-js's call as a session uses. */
export class SimCall extends EventEmitter {
  readonly metadata = {};
  readonly writableNeedDrain = false;
  #paused = false;
  #ended = false;
  #waiting: Buffer[] = [];
  readonly #onResponse: (response: ReportResponse) => void;
  readonly #onEnd: (status: StreamStatus) => void;

  constructor(answer: (response: ReportResponse) => void, end: (status: StreamStatus) => void) {
    super();
    this.#onResponse = answer;
    this.#onEnd = end;
    // As grpc-js does: an error that the handler emits is the status that the peer gets.
    this.on('error', ({ code, details }: { code: number; details: string }) =>
      this.#finish({ code, message: details }),
    );
  }

  /** As `ServerDuplexStream`, of which it is the part that a session sees. */
  get asCall(): ServerDuplexStream<Buffer, ReportResponse> {
    return this as unknown as ServerDuplexStream<Buffer, ReportResponse>;
  }

  receive(bytes: Buffer): void {
    if (this.#ended) return;
    if (this.#paused) this.#waiting.push(bytes);
    else this.emit('data', bytes);
  }

  /** The peer has reset the stream, or is gone. */
  cancel(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.emit('cancelled');
  }

  pause(): this {
    this.#paused = true;
    return this;
  }

  resume(): this {
    this.#paused = false;
    while (!this.#isPaused() && !this.#ended) {
      const next = this.#waiting.shift();
      if (next === undefined) break;
      this.emit('data', next);
    }
    return this;
  }

  write(response: ReportResponse): boolean {
    if (!this.#ended) this.#onResponse(response);
    return true;
  }

  end(): this {
    this.#finish({ code: 0, message: '' });
    return this;
  }

  #isPaused(): boolean {
    return this.#paused;
  }

  #finish(status: StreamStatus): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onEnd(status);
  }
}

/** A stream between a reporter and a process, and what can become of its connection. */
export interface SimStream extends ReportStream {
  /** What a session has on the server's side. */
  readonly call: SimCall;
  readonly process: SimProcess;
  /** True while the reporter takes it for its stream. */
  readonly isLive: boolean;
  /** When the last report was sent that has come to the server. */
  readonly deliveredSentMs: number;
  /** The connection breaks, and both sides learn it. */
  disconnect(): void;
  /**
   * The reporter's end is gone and the server is not told, until its keepalive finds out. What is under way still comes, in
   * its time, unless it is `lost`.
   */
  halfOpen(underWay: 'lost' | 'comes'): void;
  /** What the reporter sends from now on comes no sooner than after this; nothing is lost. Less than keepalive allows. */
  stall(ms: number): void;
  /** The process at the other end is gone; its machine tells the reporter, or is gone, too. */
  serverDied(how: 'reset' | 'silent'): void;
}

/** Opens a stream to a process; `accept` is called there when it has come. */
export function openSimStream(
  process: SimProcess,
  handlers: StreamHandlers,
  { time, dice, accept }: { time: SimTime; dice: Prng; accept: (stream: SimStream) => void },
): SimStream {
  let live = true;
  let deliveredSentMs = Number.NEGATIVE_INFINITY;
  /** Nothing goes from the server to the reporter any more. */
  let downBlocked = false;
  /** Nothing goes from the reporter to the server any more. */
  let upBlocked = false;
  let upMs = 0;
  let downMs = 0;
  let stalledUntilMs = 0;
  let stalledSinceMs = 0;

  function sendUp(callback: () => void): void {
    const atMs = Math.max(upMs, stalledUntilMs, time.nowMs + 0.2 + MAX_LATENCY_MS * dice.fraction());
    upMs = atMs;
    time.after(atMs - time.nowMs, () => {
      if (!upBlocked) process.receive(callback);
    });
  }
  function sendDown(callback: () => void): void {
    const atMs = Math.max(downMs, time.nowMs + 0.2 + MAX_LATENCY_MS * dice.fraction());
    downMs = atMs;
    time.after(atMs - time.nowMs, () => {
      if (!downBlocked) callback();
    });
  }
  /** The reporter learns that the stream is over. */
  function endLocally(status: StreamStatus): void {
    if (!live) return;
    live = false;
    handlers.onEnd(status);
  }

  const call = new SimCall(
    ({ request_nonce, report_interval, error_detail }) =>
      sendDown(() => {
        if (!live) return;
        handlers.onResponse({
          requestNonce: BigInt(request_nonce),
          reportIntervalMs:
            report_interval === undefined || report_interval === null
              ? undefined
              : Number(report_interval.seconds) * 1000 + Math.floor(report_interval.nanos / 1e6),
          error: error_detail ?? undefined,
        });
      }),
    (status) => sendDown(() => endLocally(status)),
  );
  const stream: SimStream = {
    call,
    process,
    get isLive() {
      return live;
    },
    get deliveredSentMs() {
      return deliveredSentMs;
    },
    send(report: ReportMessage) {
      const bytes = encodeReport(report);
      const sentMs = time.nowMs;
      sendUp(() => {
        deliveredSentMs = sentMs;
        call.receive(bytes);
      });
    },
    reset() {
      if (!live) return;
      live = false;
      sendUp(() => call.cancel());
    },
    disconnect() {
      const wasLive = live;
      live = false;
      upBlocked = true;
      time.after(1, () => process.receive(() => call.cancel()));
      if (wasLive) time.after(1, () => handlers.onEnd(CONNECTION_LOST));
    },
    halfOpen(underWay) {
      if (!live) return;
      live = false;
      if (underWay === 'lost') upBlocked = true;
      time.after(1, () => handlers.onEnd(CONNECTION_LOST));
      // A stalled connection has not answered a ping since it stalls.
      const sinceMs = stalledUntilMs > time.nowMs ? stalledSinceMs : time.nowMs;
      const detectedAtMs = sinceMs + dice.between(KEEPALIVE_TIMEOUT_MS.min, KEEPALIVE_TIMEOUT_MS.max);
      time.after(detectedAtMs - time.nowMs, () => process.receive(() => call.cancel()));
    },
    stall(ms) {
      if (stalledUntilMs < time.nowMs) stalledSinceMs = time.nowMs;
      stalledUntilMs = Math.max(stalledUntilMs, Math.min(stalledSinceMs + MAX_STALL_MS, time.nowMs + ms));
    },
    serverDied(how) {
      upBlocked = true;
      downBlocked = true;
      if (how === 'reset') time.after(1, () => endLocally(CONNECTION_LOST));
    },
  };
  sendUp(() => {
    if (process.isDead) return;
    accept(stream);
  });
  return stream;
}
