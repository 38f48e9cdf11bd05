import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions } from 'node:tls';
import { asError } from '../error-message.ts';
import { HttpResponseParser, type HttpResponseSink, type ResponseHeaders } from './http-response-parser.ts';

/** Limit for the TCP and TLS handshakes. */
export const CONNECT_TIMEOUT_MS = 10_000;
/** Idle time after which the kernel begins to ask whether the peer still exists, for a watch that is silent. */
const TCP_KEEPALIVE_MS = 60_000;

/** No server closes a connection this soon after a response without announcing it. */
const FRESH_MS = 5;

/** The server of a connection. */
export interface HttpTarget {
  /** Scheme, host and port. */
  readonly server: URL;
  /** Options of TLS; not used with `http:`. */
  readonly tls: Pick<ConnectionOptions, 'secureContext' | 'servername' | 'rejectUnauthorized' | 'session'>;
}

/** Ends a request. */
export interface RequestController {
  /**
   * Closes the connection of the request; if it was not sent yet, it never is. Its handler is not called anymore. Must not
   * be called after the end of the request: the connection may carry another one.
   */
  abort(reason: Error): void;
}

/** Receives what happens to a request. The names are those of undici's handlers, which the requests through a proxy use. */
export interface HttpHandler {
  /** True once no caller waits for the response. A request that was not sent by then never is. */
  readonly isSettled: boolean;
  /** The request is about to be sent, unless it is aborted now. */
  onRequestStart(controller: RequestController): void;
  onResponseStart(controller: RequestController, status: number, headers: ResponseHeaders): void;
  onResponseData(controller: RequestController, chunk: Buffer): void;
  onResponseEnd(): void;
  /** There is no complete response. */
  onResponseError(controller: RequestController | null, error: Error): void;
}

/** Receives what happens to a connection. */
export interface HttpConnectionEventHandler {
  /** The handshakes are done. */
  onConnected(connection: HttpConnection): void;
  /** It can take a request, for the first time or because the previous response is complete. */
  onReady(connection: HttpConnection): void;
  /** The server has issued a TLS session, with which the next connection is cheaper. */
  onSession(session: Buffer): void;
  /** It is gone, and the handler of its request was called. `error`: why it was never connected. */
  onClosed(connection: HttpConnection, error: Error | undefined): void;
}

/** The server has closed the connection in the middle of an exchange. */
class ConnectionClosedError extends Error {
  override readonly name = 'ConnectionClosedError';
  readonly code = 'ECONNRESET';
}

/** One connection, which carries one request at a time. */
export class HttpConnection implements HttpResponseSink, RequestController {
  readonly #socket: Socket;
  readonly #events: HttpConnectionEventHandler;
  /** The request in flight. */
  #handler: HttpHandler | undefined;
  #parser: HttpResponseParser | undefined;
  #isConnected = false;
  #isClosed = false;
  /** Counts how often the pool has found the connection idle since its last request. */
  idleSweeps = 0;
  #idleSinceMs = performance.now();

  constructor({ server, tls }: HttpTarget, events: HttpConnectionEventHandler) {
    this.#events = events;
    // Without the brackets of an IPv6 address.
    const host = server.hostname.replace(/^\[(.*)\]$/, '$1');
    const isTls = server.protocol === 'https:';
    const port = Number(server.port === '' ? (isTls ? 443 : 80) : server.port);
    const socket = isTls
      ? connectTls({
          host,
          port,
          ALPNProtocols: ['http/1.1'],
          ...tls,
          servername: tls.servername ?? (isIP(host) === 0 ? host : ''),
        })
      : connectTcp({ host, port });
    this.#socket = socket;
    const timeout = setTimeout(() => {
      socket.destroy(new Error(`no connection to ${server.host} within ${CONNECT_TIMEOUT_MS / 1000} s`));
    }, CONNECT_TIMEOUT_MS);
    socket.setNoDelay(true).setKeepAlive(true, TCP_KEEPALIVE_MS);
    socket.once(isTls ? 'secureConnect' : 'connect', () => {
      clearTimeout(timeout);
      this.#isConnected = true;
      events.onConnected(this);
      events.onReady(this);
    });
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('session', (session: Buffer) => events.onSession(session));
    socket.on('end', () => this.#closedByServer());
    socket.on('error', (error) => this.#close(error));
    socket.on('close', () => {
      clearTimeout(timeout);
      this.#close(undefined);
    });
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /**
   * True if the last response has just arrived. Otherwise, the server may have closed the connection or written to it
   * while this process was busy, which shows only after the event loop has read from it.
   */
  get isFresh(): boolean {
    return performance.now() - this.#idleSinceMs < FRESH_MS;
  }

  /**
   * Sends an encoded request. Only after `onReady`, and once each time.
   *
   * @returns false if its handler has aborted it, so the connection can take another one
   */
  send(request: string, handler: HttpHandler): boolean {
    this.#handler = handler;
    handler.onRequestStart(this);
    if (this.#handler === undefined) return false;
    this.#parser = new HttpResponseParser(this);
    this.#socket.write(request);
    return true;
  }

  abort(): void {
    this.#handler = undefined;
    if (this.#parser !== undefined) this.#close(undefined);
  }

  /** Closes the connection. A request in flight fails with `reason`. */
  destroy(reason: Error): void {
    this.#close(reason);
  }

  onHeaders(status: number, headers: ResponseHeaders): void {
    this.#handler?.onResponseStart(this, status, headers);
  }

  onData(chunk: Buffer): void {
    this.#handler?.onResponseData(this, chunk);
  }

  onEnd(): void {
    const handler = this.#handler;
    this.#handler = undefined;
    handler?.onResponseEnd();
  }

  #receive(chunk: Buffer): void {
    const parser = this.#parser;
    if (parser === undefined) {
      // The server speaks without being asked, for example to announce that it closes the connection.
      this.#close(undefined);
      return;
    }
    try {
      parser.execute(chunk);
    } catch (error) {
      this.#close(asError(error));
      return;
    }
    if (!parser.isDone || this.#isClosed) return;
    this.#parser = undefined;
    if (!parser.keepsAlive) {
      this.#close(undefined);
      return;
    }
    this.#idleSinceMs = performance.now();
    this.#events.onReady(this);
  }

  #closedByServer(): void {
    this.#parser?.finish();
    this.#close(undefined);
  }

  #close(reason: Error | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const handler = this.#handler;
    this.#handler = undefined;
    this.#parser = undefined;
    this.#socket.destroy();
    const error = reason ?? new ConnectionClosedError('the server closed the connection');
    handler?.onResponseError(this, error);
    this.#events.onClosed(this, this.#isConnected ? undefined : error);
  }
}
