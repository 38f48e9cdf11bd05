import { EventEmitter } from 'node:events';
import type { Metadata, ServerDuplexStream, ServerInterceptingCallInterface } from '@grpc/grpc-js';
import type { ReportResponse } from './messages.ts';

/** The part of a call that a session uses, as declared by grpc-js. */
export type SessionCall = Pick<
  ServerDuplexStream<Buffer, ReportResponse>,
  'metadata' | 'writableNeedDrain' | 'on' | 'once' | 'emit' | 'pause' | 'resume' | 'write' | 'end'
>;

/** As many as the stream of grpc-js buffers before it wants to be drained. */
const MAX_PENDING_RESPONSES = 16;

/** Messages of one call, between grpc-js and the reader of the call. */
export interface MessageGate {
  /** The delivered message has been processed, so the next one may be delivered. */
  open(): void;
  /** Where messages, and the end of the peer's half, are delivered from now on, instead of in the stream of grpc-js. */
  reader: { readonly onMessage: (bytes: Buffer) => void; readonly onEnd: () => void } | undefined;
  /** The call below the stream of grpc-js. */
  readonly call: ServerInterceptingCallInterface;
}

/**
 * A call whose messages bypass the streams of grpc-js. Reports are read one at a time in any case, so these streams,
 * which are made for queues of objects, would only add work to each heartbeat. Delivers nothing until it is resumed, and
 * one report each time.
 */
export class ReportCall extends EventEmitter {
  readonly metadata: Metadata;
  readonly #stream: ServerDuplexStream<Buffer, ReportResponse>;
  readonly #gate: MessageGate;
  #pendingResponses = 0;

  constructor(stream: ServerDuplexStream<Buffer, ReportResponse>, gate: MessageGate) {
    super();
    this.metadata = stream.metadata;
    this.#stream = stream;
    this.#gate = gate;
    gate.reader = {
      onMessage: (bytes) => this.emit('data', bytes),
      onEnd: () => this.emit('end'),
    };
    stream.on('cancelled', () => this.emit('cancelled'));
    // The session closes itself before it emits an error, which grpc-js turns into the status of the call.
    stream.on('error', () => this.emit('end'));
    this.on('error', (error) => stream.emit('error', error));
  }

  /** This call as a session sees it. */
  get asCall(): SessionCall {
    return this as unknown as SessionCall;
  }

  get writableNeedDrain(): boolean {
    return this.#pendingResponses >= MAX_PENDING_RESPONSES;
  }

  /** Has no effect: nothing is delivered until the call is resumed. */
  pause(): this {
    return this;
  }

  resume(): this {
    this.#gate.open();
    return this;
  }

  write(response: ReportResponse): boolean {
    this.#pendingResponses += 1;
    this.#gate.call.sendMessage(response, this.#onSent);
    return !this.writableNeedDrain;
  }

  end(): this {
    this.#stream.end();
    return this;
  }

  readonly #onSent = (): void => {
    this.#pendingResponses -= 1;
    if (this.#pendingResponses === 0) this.emit('drain');
  };
}
