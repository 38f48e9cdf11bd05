import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Connection } from '../../src/k8s/connection.ts';
import type { Credentials, CredentialSource } from '../../src/k8s/credentials.ts';
import type { RecordedResponse } from './recorded-responses.ts';
import { eventually } from './eventually.ts';

/** A request that waits for a response from the test. */
export interface ScriptedRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
  respond(answer: RecordedResponse): void;
  /** Responds with 200 and keeps the body open. */
  watch(): ScriptedWatch;
  /** Responds with a status and a body in pieces. */
  stream(status: number): ScriptedStream;
  /** Resets the connection without a response. */
  reset(): void;
}

/** An unfinished body, seen from the server. */
export interface ScriptedStream {
  /** True once the client or the server has closed it. */
  readonly closed: boolean;
  /** Resolves when the bytes were accepted or the response was closed. */
  write(bytes: string | Buffer): Promise<void>;
}

/** An open watch, seen from the server. */
export interface ScriptedWatch {
  /** True once the client or the server has closed it. */
  readonly closed: boolean;
  /** Sends lines, each terminated by a line feed. */
  send(...lines: string[]): void;
  /** Sends bytes unchanged. */
  sendRaw(bytes: string | Buffer): void;
  /** Ends the watch, as the API server does after its timeout. */
  end(): void;
  /** Resets the connection. */
  reset(): void;
}

/** A server that responds only as scripted: the test takes each request and sends the response. */
export interface ScriptedApiServer {
  readonly url: URL;
  /** Number of received requests, whether taken or not. */
  readonly count: number;
  /** Number of open connections. */
  readonly openConnections: number;
  /** Returns a connection with a fixed token or the given credentials. */
  connection(credentials?: CredentialSource): Connection;
  /** Returns the next request that was not taken yet; rejects after 20 s. */
  next(): Promise<ScriptedRequest>;
  close(): Promise<void>;
}

/** Starts a server on a free loopback port, over plain HTTP. */
export async function startScriptedApiServer(): Promise<ScriptedApiServer> {
  const pending: ScriptedRequest[] = [];
  const sockets = new Set<Socket>();
  let count = 0;

  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8');
    request.on('data', (chunk: string) => {
      body += chunk;
    });
    request.on('end', () => {
      count += 1;
      pending.push(createScriptedRequest(request, response, body));
    });
    request.on('error', () => undefined);
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  const url = new URL(`http://127.0.0.1:${port}`);

  return {
    url,
    get count() {
      return count;
    },
    get openConnections() {
      return sockets.size;
    },
    connection: (credentials = fixedCredentials({ authorization: 'Bearer good' })) => ({
      server: url,
      proxyUrl: undefined,
      namespace: 'default',
      source: 'test',
      credentials,
    }),
    async next() {
      await eventually('a request to the scripted API server', () => pending.length > 0);
      return pending.shift() as ScriptedRequest;
    },
    close() {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}

/** Returns credentials that never change. */
export function fixedCredentials(credentials: Credentials): CredentialSource {
  return { current: () => credentials, refresh: () => Promise.resolve() };
}

function createScriptedRequest(
  request: IncomingMessage,
  response: ServerResponse,
  body: string,
): ScriptedRequest {
  const { pathname, searchParams } = new URL(request.url ?? '', 'http://server');
  let closed = false;
  response.on('close', () => {
    closed = true;
  });
  const watch: ScriptedWatch = {
    get closed() {
      return closed;
    },
    send: (...lines) => void response.write(lines.map((line) => `${line}\n`).join('')),
    sendRaw: (bytes) => void response.write(bytes),
    end: () => void response.end(),
    reset: () => void request.socket.resetAndDestroy(),
  };
  return {
    method: request.method ?? '',
    path: pathname,
    query: searchParams,
    headers: request.headers,
    body,
    respond({ status, headers, body: text }) {
      response.writeHead(status, { ...headers, 'content-length': Buffer.byteLength(text) }).end(text);
    },
    watch() {
      response.writeHead(200, { 'cache-control': 'no-cache, private', 'content-type': 'application/json' });
      response.flushHeaders();
      return watch;
    },
    stream(status) {
      response.writeHead(status, { 'content-type': 'application/json' });
      return {
        get closed() {
          return closed;
        },
        write: (bytes) =>
          new Promise((resolve) => {
            response.once('close', resolve);
            response.write(bytes, () => {
              response.off('close', resolve);
              resolve();
            });
          }),
      };
    },
    reset: () => watch.reset(),
  };
}
