import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Connection } from '../../src/k8s/connection.ts';
import type { Credentials, CredentialSource } from '../../src/k8s/credentials.ts';
import type { RecordedResponse } from './recorded-responses.ts';
import { eventually } from './eventually.ts';

/** A request that waits for the test to answer it. */
export interface ScriptedRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
  respond(answer: RecordedResponse): void;
  /** Answers 200 and keeps the body open. */
  watch(): ScriptedWatch;
  /** Answers with this status, and a body that comes piece by piece. */
  stream(status: number): ScriptedStream;
  /** Breaks the connection, without an answer. */
  reset(): void;
}

/** A body without end, seen from the server. */
export interface ScriptedStream {
  /** True once the client, or the server, has closed it. */
  readonly closed: boolean;
  /** Resolves when it was taken, or the answer was closed. */
  write(bytes: string | Buffer): Promise<void>;
}

/** An open watch, seen from the server. */
export interface ScriptedWatch {
  /** True once the client, or the server, has closed it. */
  readonly closed: boolean;
  /** Sends lines, each ended by a line feed. */
  send(...lines: string[]): void;
  /** Sends bytes as they are. */
  sendRaw(bytes: string | Buffer): void;
  /** Ends it as the API server does when its time is over. */
  end(): void;
  /** Breaks the connection in the middle. */
  reset(): void;
}

/** A server that does nothing by itself: a test takes each request and says what comes back. */
export interface ScriptedApiServer {
  readonly url: URL;
  /** Requests that have come, taken or not. */
  readonly count: number;
  /** Connections open now. */
  readonly openConnections: number;
  /** A connection to it, by a fixed token or by the source given. */
  connection(credentials?: CredentialSource): Connection;
  /** The next request that was not taken yet; fails when none comes within 5 s. */
  next(): Promise<ScriptedRequest>;
  close(): Promise<void>;
}

/** Starts one on a free port of the loopback, in plain HTTP. */
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

/** Credentials that never change. */
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
