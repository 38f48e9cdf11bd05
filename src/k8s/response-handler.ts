import type { Clock } from '../clock.ts';
import { ApiError, ResponseTooLargeError } from './api-error.ts';
import type { HttpHandler, RequestController } from './http-connection.ts';
import type { ResponseHeaders } from './http-response-parser.ts';

/** An HTTP request. */
export interface HttpRequest {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Path and query as sent. */
  readonly path: string;
  /** Names and values, alternating. */
  readonly headers: string[];
  readonly body?: string | undefined;
  /** Limit until the complete response; for a stream, until its headers. */
  readonly timeoutMs: number;
  /** Aborting it ends the request with kind `cancelled`. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Makes the response a stream: receives each chunk of a 200 response as it arrives. An error that it throws ends
   * the stream.
   */
  readonly onChunk?: ((chunk: Buffer) => void) | undefined;
  /** Called when a stream's 200 response begins. */
  readonly onOpen?: (() => void) | undefined;
  /** Called with the Date header of a 2xx response as soon as it is received. */
  readonly onDate?: ((date: string) => void) | undefined;
}

/** A complete response. */
export interface HttpResponse {
  readonly status: number;
  /** The Retry-After header as received. */
  readonly retryAfter: string | undefined;
  /** The body; empty for a stream. */
  readonly text: string;
}

/** Fits a page of 32,000 large objects. An endless response would otherwise fill the memory until its deadline. */
const MAX_RESPONSE_BYTES = 128 * 1024 * 1024;
/** Maximum bytes read of an error response: a `Status`, which may repeat the object, or a proxy's error page. */
const MAX_ERROR_RESPONSE_BYTES = 1024 * 1024;

/**
 * Wraps, as `cause`, what a stream's reader (`onChunk`, `onOpen`) threw, to distinguish it from a failed connection.
 */
export class StreamReaderError extends Error {
  override readonly name = 'StreamReaderError';
}

/** Handles one request and its response. It is created per call, so it allocates little and parses nothing. */
export class ResponseHandler implements HttpHandler {
  readonly response: Promise<HttpResponse>;
  readonly #request: HttpRequest;
  readonly #cancelDeadline: () => void;
  #resolve!: (answer: HttpResponse) => void;
  #reject!: (error: unknown) => void;
  #controller: RequestController | undefined;
  /** Set once the result is decided; later callbacks change nothing. */
  #settled: { failure?: Error } | undefined;
  #status = 0;
  #retryAfter: string | undefined;
  #streaming = false;
  #chunks: Buffer[] = [];
  #bytes = 0;

  /** @param onTimeout called if the deadline expires after the request was sent and before its response */
  constructor(request: HttpRequest, clock: Clock, onTimeout: () => void) {
    this.#request = request;
    this.response = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    const { timeoutMs, signal } = request;
    // Starts now instead of when the request is sent: waiting for a free connection is part of the caller's wait.
    this.#cancelDeadline = clock.setTimer(timeoutMs, () => {
      // A request that never got a connection cannot indicate a broken one.
      if (this.#controller !== undefined) onTimeout();
      this.#fail(new ApiError('unavailable', `no response within ${Math.round(timeoutMs / 100) / 10} s`));
    });
    if (signal?.aborted === true) this.#onAbort();
    else signal?.addEventListener('abort', this.#onAbort);
  }

  get isSettled(): boolean {
    return this.#settled !== undefined;
  }

  onRequestStart(controller: RequestController): void {
    this.#controller = controller;
    // It failed while it waited for a connection and must not be sent anymore.
    if (this.#settled !== undefined) controller.abort(this.#settled.failure ?? new Error('request aborted'));
  }

  onResponseStart(_controller: RequestController, status: number, headers: ResponseHeaders): void {
    this.#status = status;
    const retryAfter = headers['retry-after'];
    this.#retryAfter = typeof retryAfter === 'string' ? retryAfter : undefined;
    const { date } = headers;
    // An error may come from a load balancer, which has a clock of its own.
    if (typeof date === 'string' && status >= 200 && status <= 299) this.#request.onDate?.(date);
    if (this.#request.onChunk === undefined || status !== 200) return;
    this.#streaming = true;
    // From now on, silence is normal; the reader of the stream limits it.
    this.#cancelDeadline();
    this.#runGuarded(() => this.#request.onOpen?.());
  }

  onResponseData(_controller: RequestController, chunk: Buffer): void {
    if (this.#settled !== undefined) return;
    const { onChunk } = this.#request;
    if (this.#streaming) this.#runGuarded(() => onChunk?.(chunk));
    else {
      this.#bytes += chunk.length;
      this.#chunks.push(chunk);
      this.#enforceSizeLimit();
    }
  }

  /**
   * Limits the memory of a response: the beginning of an error response suffices, but a truncated success is useless.
   */
  #enforceSizeLimit(): void {
    const isSuccess = this.#status >= 200 && this.#status <= 299;
    if (this.#bytes <= (isSuccess ? MAX_RESPONSE_BYTES : MAX_ERROR_RESPONSE_BYTES)) return;
    if (isSuccess) {
      this.#fail(new ResponseTooLargeError(`response exceeds ${MAX_RESPONSE_BYTES / 1024 / 1024} MiB`));
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
    // Most responses are a single chunk, which needs no copy.
    const [first, second] = this.#chunks;
    const body = second === undefined ? first : Buffer.concat(this.#chunks, this.#bytes);
    this.#resolve({
      status: this.#status,
      retryAfter: this.#retryAfter,
      text: body === undefined ? '' : body.toString('utf8'),
    });
  }

  onResponseError(_controller: RequestController | null, error: Error): void {
    this.#fail(error);
  }

  /** A field instead of a method, so that the same function can be removed from the signal. */
  readonly #onAbort = (): void => {
    this.#fail(new ApiError('cancelled', 'cancelled'));
  };

  /** Runs a callback of the stream's reader. Its error ends the stream and rejects the response. */
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
    // In HTTP/1.1, cancelling one request closes its connection.
    this.#controller?.abort(failure);
  }

  /** Removes the timer and the listener of this request. */
  #settle(settled: { failure?: Error }): void {
    this.#settled = settled;
    this.#cancelDeadline();
    this.#request.signal?.removeEventListener('abort', this.#onAbort);
  }
}
