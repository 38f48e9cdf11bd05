import type { Dispatcher } from 'undici';
import type { Clock } from '../clock.ts';
import { ApiError } from './api-error.ts';

/** A request, ready to be sent. */
export interface HttpRequest {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Path and query, as it goes on the wire. */
  readonly path: string;
  /** Names and values in turn. */
  readonly headers: string[];
  readonly body?: string | undefined;
  /** Until the whole answer is there; for a stream, until its headers are. */
  readonly timeoutMs: number;
  /** Aborting it ends the exchange with consequence `cancelled`. */
  readonly signal?: AbortSignal | undefined;
  /** Makes it a stream: each chunk of a 200 answer as it comes, instead of one text. What it throws ends the stream. */
  readonly onChunk?: ((chunk: Buffer) => void) | undefined;
  /** For a stream: the headers of a 200 answer have come. */
  readonly onOpen?: (() => void) | undefined;
}

/** An answer that has come whole. */
export interface HttpResponse {
  readonly status: number;
  /** The Retry-After header as it came. */
  readonly retryAfter: string | undefined;
  /** The body; empty for a stream that was open. */
  readonly text: string;
}

/** A page of 32,000 large rows; an answer without end would else fill the memory until its deadline. */
const MAX_RESPONSE_BYTES = 128 * 1024 * 1024;
/** Most that is read of an answer that is no success: a `Status`, which may repeat the object, or some proxy's page. */
const MAX_ERROR_RESPONSE_BYTES = 1024 * 1024;

/** What a stream's reader (`onChunk`, `onOpen`) threw, as `cause`: it is no failure of the connection. */
export class StreamReaderError extends Error {
  override readonly name = 'StreamReaderError';
}

/** One request and its answer, as undici's handler: made for each call, so it allocates little and parses nothing. */
export class ResponseHandler implements Dispatcher.DispatchHandler {
  readonly response: Promise<HttpResponse>;
  readonly #request: HttpRequest;
  readonly #cancelDeadline: () => void;
  #resolve!: (answer: HttpResponse) => void;
  #reject!: (error: unknown) => void;
  #controller: Dispatcher.DispatchController | undefined;
  /** Set once the answer is decided; what comes later changes nothing. */
  #settled: { failure?: Error } | undefined;
  #status = 0;
  #retryAfter: string | undefined;
  #streaming = false;
  #chunks: Buffer[] = [];
  #bytes = 0;

  /** @param onTimeout told when the request was sent and its deadline came before an answer */
  constructor(request: HttpRequest, clock: Clock, onTimeout: () => void) {
    this.#request = request;
    this.response = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    const { timeoutMs, signal } = request;
    // From here and not from when it is sent: waiting for a free connection is part of what the caller waits for.
    this.#cancelDeadline = clock.setTimer(timeoutMs, () => {
      // One that has waited for a connection all the time says nothing about any.
      if (this.#controller !== undefined) onTimeout();
      this.#fail(new ApiError('unavailable', `no response within ${Math.round(timeoutMs / 100) / 10} s`));
    });
    if (signal?.aborted === true) this.#onAbort();
    else signal?.addEventListener('abort', this.#onAbort);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    // It failed while it waited for a connection: it must not be sent any more.
    if (this.#settled !== undefined) controller.abort(this.#settled.failure ?? new Error('request aborted'));
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    this.#status = status;
    const retryAfter = headers['retry-after'];
    this.#retryAfter = typeof retryAfter === 'string' ? retryAfter : undefined;
    if (this.#request.onChunk === undefined || status !== 200) return;
    this.#streaming = true;
    // From now on silence is normal; who reads the stream knows how much of it.
    this.#cancelDeadline();
    this.#runGuarded(() => this.#request.onOpen?.());
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#settled !== undefined) return;
    const { onChunk } = this.#request;
    if (this.#streaming) this.#runGuarded(() => onChunk?.(chunk));
    else {
      this.#bytes += chunk.length;
      this.#chunks.push(chunk);
      this.#enforceSizeLimit();
    }
  }

  /** Of a refusal the beginning says enough; half of an answer says nothing. */
  #enforceSizeLimit(): void {
    const isSuccess = this.#status >= 200 && this.#status <= 299;
    if (this.#bytes <= (isSuccess ? MAX_RESPONSE_BYTES : MAX_ERROR_RESPONSE_BYTES)) return;
    if (isSuccess) {
      this.#fail(
        new ApiError('unexpected_response', `response exceeds ${MAX_RESPONSE_BYTES / 1024 / 1024} MiB`),
      );
      return;
    }
    this.#finish();
    this.#controller?.abort(new Error('error response truncated'));
  }

  onResponseEnd(): void {
    if (this.#settled === undefined) this.#finish();
  }

  #finish(): void {
    this.#settle({});
    // Most answers are one chunk, which need not be copied.
    const [first, second] = this.#chunks;
    const body = second === undefined ? first : Buffer.concat(this.#chunks, this.#bytes);
    this.#resolve({
      status: this.#status,
      retryAfter: this.#retryAfter,
      text: body === undefined ? '' : body.toString('utf8'),
    });
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
    this.#fail(error);
  }

  /** A field and not a method, so that the same function can be taken off the signal again. */
  readonly #onAbort = (): void => {
    this.#fail(new ApiError('cancelled', 'cancelled'));
  };

  /** Errors of the stream's reader end the stream, and reach whoever waits for its end. */
  #runGuarded(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#fail(new StreamReaderError('failed to read the response stream', { cause: error }));
    }
  }

  #fail(failure: Error): void {
    if (this.#settled !== undefined) return;
    this.#settle({ failure });
    this.#reject(failure);
    // HTTP/1.1 has no way to give up one request but to close its connection.
    this.#controller?.abort(failure);
  }

  /** From here on nothing of this exchange is left with the clock or the signal. */
  #settle(settled: { failure?: Error }): void {
    this.#settled = settled;
    this.#cancelDeadline();
    this.#request.signal?.removeEventListener('abort', this.#onAbort);
  }
}
