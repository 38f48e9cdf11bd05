import { validateHeaderName, validateHeaderValue } from 'node:http';
import { asError } from '../error-message.ts';
import {
  HttpConnection,
  type HttpConnectionEventHandler,
  type HttpHandler,
  type HttpTarget,
} from './http-connection.ts';

const SWEEP_INTERVAL_MS = 10_000;
/**
 * A connection is closed when so many sweeps have found it idle, after 60 to 70 s: before the 90 s after which
 * kube-apiserver does so, because a request must not race with that.
 */
const MAX_IDLE_SWEEPS = 7;

const VISIBLE_ASCII = /^[!-~]+$/;

/** A request without its handler. */
export interface EncodableRequest {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Path and query as sent. */
  readonly path: string;
  /** Names and values, alternating. Requests with the same array share its encoding. */
  readonly headers: string[];
  readonly body: string | null;
}

export interface HttpPoolOptions extends HttpTarget {
  /** Maximum connections; further requests wait. */
  readonly connections: number;
  /** Called for each connection that was established. */
  readonly onConnect: () => void;
}

interface WaitingRequest {
  /** Encoded. */
  readonly request: string;
  readonly handler: HttpHandler;
}

/**
 * Kept-alive HTTP/1.1 connections to one server, with one request at a time on each. A connection is opened only for a
 * request that finds none free, and the one that was used last is used first, so those of a burst become idle and are
 * closed after 60 to 70 s.
 *
 * This is the hot path of the operator: one write and, in general, one read per request. A general client does more
 * (docs/decisions/0003-api-client-and-kubeconfig.md).
 */
export class HttpPool implements HttpConnectionEventHandler {
  readonly #options: HttpPoolOptions;
  readonly #encodedHeaders = new WeakMap<string[], string>();
  /** All connections, including those whose handshakes are in progress. */
  readonly #connections = new Set<HttpConnection>();
  /** The one that was used last is at the end. */
  readonly #idle: HttpConnection[] = [];
  #waiting: WaitingRequest[] = [];
  /** Connections whose handshakes are in progress. */
  #connecting = 0;
  /** Idle connections that will take a request unless the server turns out to have closed them. */
  #checking = 0;
  #session: Buffer | undefined;
  #sweepTimer: NodeJS.Timeout | undefined;
  /** Set once no more requests are accepted; resolved when none is left. */
  #closing: PromiseWithResolvers<void> | undefined;

  constructor(options: HttpPoolOptions) {
    this.#options = options;
  }

  /** Sends a request as soon as a connection is free. Every failure goes to the handler, also that of an invalid header. */
  dispatch(request: EncodableRequest, handler: HttpHandler): void {
    if (this.#closing !== undefined) {
      handler.onResponseError(null, closedError());
      return;
    }
    let encoded: string;
    try {
      encoded = this.#encode(request);
    } catch (error) {
      handler.onResponseError(null, asError(error));
      return;
    }
    if (handler.isSettled) return;
    this.#waiting.push({ request: encoded, handler });
    const connection = this.#idle.pop();
    if (connection === undefined) this.#openIfNeeded();
    else if (connection.isFresh) this.onReady(connection);
    else this.#check(connection);
  }

  /** Accepts no more requests. Resolves when those that were accepted have ended. */
  close(): Promise<void> {
    this.#closing ??= Promise.withResolvers();
    for (const connection of this.#idle.splice(0)) connection.destroy(closedError());
    this.#resolveIfClosed();
    return this.#closing.promise;
  }

  /** Fails all requests and closes all connections. */
  destroy(): Promise<void> {
    this.#closing ??= Promise.withResolvers();
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { handler } of waiting) handler.onResponseError(null, closedError());
    for (const connection of this.#connections) connection.destroy(closedError());
    return this.close();
  }

  onConnected(): void {
    this.#connecting -= 1;
    this.#options.onConnect();
  }

  onReady(connection: HttpConnection): void {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      if (connection.send(next.request, next.handler)) return;
    }
    if (this.#closing !== undefined) {
      connection.destroy(closedError());
      return;
    }
    connection.idleSweeps = 0;
    this.#idle.push(connection);
    this.#scheduleSweep();
  }

  onSession(session: Buffer): void {
    this.#session = session;
  }

  onClosed(connection: HttpConnection, error: Error | undefined): void {
    this.#connections.delete(connection);
    const index = this.#idle.indexOf(connection);
    if (index !== -1) this.#idle.splice(index, 1);
    if (error !== undefined) {
      this.#connecting -= 1;
      this.#session = undefined;
      this.#dropSettled();
      // Each failed attempt fails one request, so all of them fail if the server accepts no connections.
      this.#waiting.shift()?.handler.onResponseError(null, error);
    }
    this.#openIfNeeded();
    this.#resolveIfClosed();
  }

  /** Gives a connection a request after everything that the server has sent meanwhile was read. */
  #check(connection: HttpConnection): void {
    this.#checking += 1;
    setImmediate(() => {
      this.#checking -= 1;
      if (connection.isClosed) this.#openIfNeeded();
      else this.onReady(connection);
    });
  }

  #dropSettled(): void {
    if (this.#waiting.some(({ handler }) => handler.isSettled))
      this.#waiting = this.#waiting.filter(({ handler }) => !handler.isSettled);
  }

  #openIfNeeded(): void {
    const { connections, server, tls } = this.#options;
    if (this.#waiting.length <= this.#connecting + this.#checking || this.#connections.size >= connections)
      return;
    this.#dropSettled();
    while (this.#waiting.length > this.#connecting + this.#checking && this.#connections.size < connections) {
      this.#connecting += 1;
      const session = this.#session === undefined ? {} : { session: this.#session };
      this.#connections.add(new HttpConnection({ server, tls: { ...tls, ...session } }, this));
    }
  }

  #encode({ method, path, headers, body }: EncodableRequest): string {
    if (!VISIBLE_ASCII.test(path)) throw new Error(`invalid path: ${JSON.stringify(path.slice(0, 80))}`);
    let encodedHeaders = this.#encodedHeaders.get(headers);
    if (encodedHeaders === undefined) {
      encodedHeaders = encodeHeaders(this.#options.server.host, headers);
      this.#encodedHeaders.set(headers, encodedHeaders);
    }
    const head = `${method} ${path} HTTP/1.1\r\n${encodedHeaders}`;
    return body === null ? `${head}\r\n` : `${head}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
  }

  /** Closes connections that have been idle for long. One timer serves all: one each would be set for each request. */
  #scheduleSweep(): void {
    this.#sweepTimer ??= setTimeout(() => {
      this.#sweepTimer = undefined;
      for (const connection of this.#idle) connection.idleSweeps += 1;
      const expired = this.#idle.filter(({ idleSweeps }) => idleSweeps >= MAX_IDLE_SWEEPS);
      for (const connection of expired) connection.destroy(closedError());
      if (this.#idle.length > 0) this.#scheduleSweep();
    }, SWEEP_INTERVAL_MS).unref();
  }

  #resolveIfClosed(): void {
    if (this.#closing === undefined || this.#connections.size > 0 || this.#waiting.length > 0) return;
    clearTimeout(this.#sweepTimer);
    this.#closing.resolve();
  }
}

/** @throws Error with the code ERR_INVALID_CHAR or ERR_INVALID_HTTP_TOKEN, which names the header and not its value */
function encodeHeaders(host: string, headers: readonly string[]): string {
  let encoded = `host: ${host}\r\n`;
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index] ?? '';
    const value = headers[index + 1] ?? '';
    validateHeaderName(name);
    validateHeaderValue(name, value);
    encoded += `${name}: ${value}\r\n`;
  }
  return encoded;
}

function closedError(): Error {
  return new Error('the connections are closed');
}
