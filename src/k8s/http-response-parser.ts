/** Receives a response while it is parsed. */
export interface HttpResponseSink {
  onHeaders(status: number, headers: ResponseHeaders): void;
  onData(chunk: Buffer): void;
  /** The response is complete. */
  onEnd(): void;
}

/** The header fields that the API client reads. An array, which undici passes for a repeated field, is ignored. */
export interface ResponseHeaders {
  readonly date?: string | string[] | undefined;
  readonly 'retry-after'?: string | string[] | undefined;
}

/** What the server sent is not an HTTP/1.1 response. */
export class HttpParseError extends Error {
  override readonly name = 'HttpParseError';
  readonly code = 'EPROTO';
}

/** Bytes of a status line with its header fields, or of all trailer fields: those of an API server have 300 to 600. */
const MAX_HEAD_BYTES = 64 * 1024;
/** Characters of the line in front of a chunk: a length, and extensions, which no server of this kind sends. */
const MAX_CHUNK_LINE = 1024;

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-5]\d\d)(?: .*)?$/;
/** A length below 2^53. */
const CONTENT_LENGTH = /^\d{1,15}$/;
/** A length below 2^48, and extensions. */
const CHUNK_LENGTH = /^([\da-f]{1,12})(?:;.*)?$/i;
/** A line that ends without CR or LF, or a NUL. */
const INVALID_HEAD = /\0|(?<!\r)\n|\r(?!\n)/;
const END_OF_HEAD = Buffer.from('\r\n\r\n');
const LINE_FEED = 10;

type State =
  /** Before the first byte of a response, or within its head. */
  | 'head'
  /** Within a body of known length. */
  | 'fixed-body'
  /** Within a body that ends with the connection. */
  | 'open-body'
  | 'chunk-line'
  | 'chunk-data'
  /** Between the data of a chunk and the next line. */
  | 'chunk-end'
  | 'trailers'
  /** The response is complete. */
  | 'done';

/**
 * Parses one HTTP/1.1 response (RFC 9112) from chunks of any size. It is as strict as the RFC requires where two
 * programs could otherwise disagree about where a response ends: two lengths, an unknown transfer encoding, a line that
 * ends without CR, a space before a colon, and a folded line are errors. Interim responses (1xx) are skipped. It throws
 * `HttpParseError`, after which it must not be used.
 */
export class HttpResponseParser {
  readonly #sink: HttpResponseSink;
  #state: State = 'head';
  /** The beginning of a head or line that is not complete. */
  #partial: Buffer | undefined;
  /** Bytes that are missing of the body or of the chunk. */
  #remaining = 0;
  #trailerBytes = 0;
  #keepsAlive = true;

  constructor(sink: HttpResponseSink) {
    this.#sink = sink;
  }

  /** True if another response may follow on the connection. Known once the response is complete. */
  get keepsAlive(): boolean {
    return this.#keepsAlive && this.#state === 'done';
  }

  get isDone(): boolean {
    return this.#state === 'done';
  }

  /** Parses the next bytes. Bytes after the end of the response make the connection unusable and are ignored. */
  execute(received: Buffer): void {
    let chunk = received;
    if (this.#partial !== undefined) {
      chunk = Buffer.concat([this.#partial, received]);
      this.#partial = undefined;
    }
    let position = 0;
    while (position < chunk.length) {
      const next = this.#step(chunk, position);
      if (next === undefined) {
        this.#partial = position === 0 ? chunk : chunk.subarray(position);
        return;
      }
      position = next;
    }
  }

  /**
   * Handles the end of the connection.
   *
   * @returns false if the response is incomplete
   */
  finish(): boolean {
    if (this.#state === 'open-body') this.#end();
    return this.#state === 'done';
  }

  /** Parses what begins at `position`. Returns where the next part begins; undefined if bytes are missing. */
  #step(chunk: Buffer, position: number): number | undefined {
    switch (this.#state) {
      case 'head':
        return this.#head(chunk, position);
      case 'fixed-body':
      case 'chunk-data':
        return this.#data(chunk, position);
      case 'open-body':
        this.#sink.onData(position === 0 ? chunk : chunk.subarray(position));
        return chunk.length;
      case 'chunk-line':
      case 'chunk-end':
      case 'trailers':
        return this.#line(chunk, position);
      case 'done':
        this.#keepsAlive = false;
        return chunk.length;
    }
  }

  #head(chunk: Buffer, position: number): number | undefined {
    const end = chunk.indexOf(END_OF_HEAD, position);
    if ((end === -1 ? chunk.length : end) - position > MAX_HEAD_BYTES)
      throw new HttpParseError(`the header of the response exceeds ${MAX_HEAD_BYTES / 1024} KiB`);
    if (end === -1) {
      // Whatever does not begin like HTTP is another protocol, which may wait for an answer.
      const beginning = chunk.toString('latin1', position, Math.min(chunk.length, position + 5));
      if (!'HTTP/'.startsWith(beginning)) throw notHttp(beginning);
      return undefined;
    }
    this.#parseHead(chunk.toString('latin1', position, end));
    return end + END_OF_HEAD.length;
  }

  #parseHead(head: string): void {
    if (INVALID_HEAD.test(head)) throw new HttpParseError('a line of the header ends without CR LF');
    let lineEnd = head.indexOf('\r\n');
    const statusLine = lineEnd === -1 ? head : head.slice(0, lineEnd);
    const match = STATUS_LINE.exec(statusLine);
    if (match === null) throw notHttp(statusLine);
    const status = Number(match[2]);
    let length: string | undefined;
    let encoding: string | undefined;
    let connection = '';
    let date: string | undefined;
    let retryAfter: string | undefined;
    while (lineEnd !== -1) {
      const start = lineEnd + 2;
      lineEnd = head.indexOf('\r\n', start);
      const stop = lineEnd === -1 ? head.length : lineEnd;
      const colon = head.indexOf(':', start);
      if (colon <= start || colon >= stop || isBlank(head, start) || isBlank(head, colon - 1))
        throw new HttpParseError(
          `malformed header field: ${JSON.stringify(head.slice(start, stop).slice(0, 80))}`,
        );
      // Comparing lengths first spares most fields the rest.
      switch (colon - start) {
        case 4:
          if (isField(head, start, 'date')) date = fieldValue(head, colon, stop);
          break;
        case 10:
          if (isField(head, start, 'connection')) connection += `${fieldValue(head, colon, stop)},`;
          break;
        case 11:
          if (isField(head, start, 'retry-after')) retryAfter = fieldValue(head, colon, stop);
          break;
        case 14:
          if (isField(head, start, 'content-length')) {
            const value = fieldValue(head, colon, stop);
            if (!CONTENT_LENGTH.test(value) || (length !== undefined && length !== value))
              throw new HttpParseError(`invalid Content-Length: ${JSON.stringify(value.slice(0, 40))}`);
            length = value;
          }
          break;
        case 17:
          if (isField(head, start, 'transfer-encoding'))
            encoding = encoding === undefined ? fieldValue(head, colon, stop) : `${encoding},`;
          break;
        default:
      }
    }
    if (status < 200) {
      if (status === 101) throw new HttpParseError('the server switched protocols without being asked');
      return;
    }
    const options = connection.toLowerCase();
    this.#keepsAlive = match[1] === '1' ? !hasOption(options, 'close') : hasOption(options, 'keep-alive');
    this.#beginBody(status, length, encoding);
    this.#sink.onHeaders(status, { date, 'retry-after': retryAfter });
    if (this.#state === 'fixed-body' && this.#remaining === 0) this.#end();
  }

  /** Decides where the body ends (RFC 9112, section 6.3). */
  #beginBody(status: number, length: string | undefined, encoding: string | undefined): void {
    if (encoding !== undefined) {
      if (encoding.toLowerCase() !== 'chunked')
        throw new HttpParseError(`unknown Transfer-Encoding: ${JSON.stringify(encoding.slice(0, 40))}`);
      if (length !== undefined) throw new HttpParseError('both Content-Length and Transfer-Encoding');
    }
    if (status === 204 || status === 304) {
      this.#state = 'fixed-body';
      this.#remaining = 0;
    } else if (encoding !== undefined) this.#state = 'chunk-line';
    else if (length === undefined) {
      this.#state = 'open-body';
      this.#keepsAlive = false;
    } else {
      this.#state = 'fixed-body';
      this.#remaining = Number(length);
    }
  }

  #data(chunk: Buffer, position: number): number {
    const end = Math.min(chunk.length, position + this.#remaining);
    this.#remaining -= end - position;
    this.#sink.onData(chunk.subarray(position, end));
    if (this.#remaining === 0) {
      if (this.#state === 'chunk-data') this.#state = 'chunk-end';
      else this.#end();
    }
    return end;
  }

  #line(chunk: Buffer, position: number): number | undefined {
    const feed = chunk.indexOf(LINE_FEED, position);
    const end = feed === -1 ? chunk.length : feed;
    if (end - position > (this.#state === 'trailers' ? MAX_HEAD_BYTES : MAX_CHUNK_LINE))
      throw new HttpParseError('a line between two chunks is too long');
    if (feed === -1) return undefined;
    const line = chunk.toString('latin1', position, feed);
    if (!line.endsWith('\r')) throw new HttpParseError('a line between two chunks ends without CR');
    this.#parseLine(line.slice(0, -1));
    return feed + 1;
  }

  #parseLine(line: string): void {
    if (this.#state === 'chunk-line') {
      const match = CHUNK_LENGTH.exec(line);
      if (match === null)
        throw new HttpParseError(`invalid length of a chunk: ${JSON.stringify(line.slice(0, 40))}`);
      this.#remaining = Number.parseInt(match[1] ?? '', 16);
      this.#state = this.#remaining === 0 ? 'trailers' : 'chunk-data';
    } else if (this.#state === 'chunk-end') {
      if (line !== '') throw new HttpParseError('a chunk is longer than its length');
      this.#state = 'chunk-line';
    } else if (line === '') this.#end();
    else {
      this.#trailerBytes += line.length;
      if (this.#trailerBytes > MAX_HEAD_BYTES)
        throw new HttpParseError(`the trailer of the response exceeds ${MAX_HEAD_BYTES / 1024} KiB`);
    }
  }

  #end(): void {
    this.#state = 'done';
    this.#sink.onEnd();
  }
}

function notHttp(beginning: string): HttpParseError {
  return new HttpParseError(`not an HTTP response: ${JSON.stringify(beginning.slice(0, 80))}`);
}

function isBlank(text: string, index: number): boolean {
  const character = text.charCodeAt(index);
  return character === 32 || character === 9;
}

/** @param name in lower case */
function isField(head: string, start: number, name: string): boolean {
  return head.slice(start, start + name.length).toLowerCase() === name;
}

function fieldValue(head: string, colon: number, end: number): string {
  return head.slice(colon + 1, end).trim();
}

function hasOption(list: string, option: string): boolean {
  return list.split(',').some((item) => item.trim() === option);
}
