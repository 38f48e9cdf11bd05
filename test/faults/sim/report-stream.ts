import { EventEmitter } from 'node:events';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { encodeReport } from '../../../src/grpc/encode.ts';
import type { ReportResponse } from '../../../src/grpc/messages.ts';
import type {
  ReportMessage,
  ReportStream,
  StreamHandlers,
  StreamStatus,
} from '../../../src/grpc/report-message.ts';
import type { Prng } from './prng.ts';
import type { SimProcess } from './process.ts';
import type { SimTime } from './time.ts';

/** Maximum latency of each direction of a connection. */
const MAX_LATENCY_MS = 3;
const CONNECTION_LOST: StreamStatus = { code: 14, message: 'connection lost' };
/** Keepalive detects a dead peer after 30 s plus a timeout of 10 s. */
const KEEPALIVE_TIMEOUT_MS = { min: 30_000, max: 40_000 };
/** Keepalive closes a connection that stalls for longer. */
const MAX_STALL_MS = 25_000;

/** The server's side of a stream: the part of grpc-js's call that a session uses. */
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
    // As in grpc-js, an error that the handler emits is the status that the peer receives.
    this.on('error', ({ code, details }: { code: number; details: string }) =>
      this.#finish({ code, message: details }),
    );
  }

  /** This call as a `ServerDuplexStream`, of which it implements what a session uses. */
  get asCall(): ServerDuplexStream<Buffer, ReportResponse> {
    return this as unknown as ServerDuplexStream<Buffer, ReportResponse>;
  }

  receive(bytes: Buffer): void {
    if (this.#ended) return;
    if (this.#paused) this.#waiting.push(bytes);
    else this.emit('data', bytes);
  }

  /** Simulates that the peer has reset the stream or is gone. */
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

/** A stream between a reporter and a process, with the faults of its connection. */
export interface SimStream extends ReportStream {
  /** The server's side, for a session. */
  readonly call: SimCall;
  readonly process: SimProcess;
  /** True while the reporter considers the stream open. */
  readonly isLive: boolean;
  /** When the report was sent that the server has received last. */
  readonly deliveredSentMs: number;
  /** Breaks the connection; both sides notice. */
  disconnect(): void;
  /**
   * Drops the reporter's end without notifying the server, which notices by keepalive. Reports in flight still
   * arrive in time, unless they are `lost`.
   */
  halfOpen(inFlight: 'lost' | 'delivered'): void;
  /**
   * Delays everything that the reporter sends from now on by this time, which is capped below the keepalive
   * timeout; nothing is lost.
   */
  stall(ms: number): void;
  /**
   * Simulates the death of the server process. With `silent`, its machine fails as well, so the reporter is not
   * notified.
   */
  serverDied(how: 'reset' | 'silent'): void;
}

/** Opens a stream to a process; calls `accept` when the stream has arrived there. */
export function openSimStream(
  process: SimProcess,
  handlers: StreamHandlers,
  { time, prng, accept }: { time: SimTime; prng: Prng; accept: (stream: SimStream) => void },
): SimStream {
  let live = true;
  let deliveredSentMs = Number.NEGATIVE_INFINITY;
  /** True once the reporter no longer receives anything. */
  let downBlocked = false;
  /** True once the server no longer receives anything. */
  let upBlocked = false;
  let upMs = 0;
  let downMs = 0;
  let stalledUntilMs = 0;
  let stalledSinceMs = 0;

  function sendUp(callback: () => void): void {
    const atMs = Math.max(upMs, stalledUntilMs, time.nowMs + 0.2 + MAX_LATENCY_MS * prng.fraction());
    upMs = atMs;
    time.after(atMs - time.nowMs, () => {
      if (!upBlocked) process.receive(callback);
    });
  }
  function sendDown(callback: () => void): void {
    const atMs = Math.max(downMs, time.nowMs + 0.2 + MAX_LATENCY_MS * prng.fraction());
    downMs = atMs;
    time.after(atMs - time.nowMs, () => {
      if (!downBlocked) callback();
    });
  }
  /** Notifies the reporter that the stream has ended. */
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
    halfOpen(inFlight) {
      if (!live) return;
      live = false;
      if (inFlight === 'lost') upBlocked = true;
      time.after(1, () => handlers.onEnd(CONNECTION_LOST));
      // A stalled connection has not answered a ping since the start of the stall.
      const sinceMs = stalledUntilMs > time.nowMs ? stalledSinceMs : time.nowMs;
      const detectedAtMs = sinceMs + prng.between(KEEPALIVE_TIMEOUT_MS.min, KEEPALIVE_TIMEOUT_MS.max);
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
