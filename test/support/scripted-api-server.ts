import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Connection } from '../../src/k8s/connection.ts';
import type { Credentials, CredentialSource } from '../../src/k8s/credentials.ts';
import type { RecordedResponse } from './recorded-responses.ts';
import { eventually } from './eventually.ts';

export type ScriptedRequest = ReturnType<typeof createScriptedRequest>;
/** An open watch, seen from the server. */
export type ScriptedWatch = ReturnType<ScriptedRequest['watch']>;
/** A server that responds only as scripted: the test takes each request and sends the response. */
export type ScriptedApiServer = Awaited<ReturnType<typeof startScriptedApiServer>>;

/** Starts a server on a free loopback port, over plain HTTP. */
export async function startScriptedApiServer() {
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
    /** Number of received requests, whether taken or not. */
    get count() {
      return count;
    },
    get openConnections() {
      return sockets.size;
    },
    /** Returns a connection with a fixed token or the given credentials. */
    connection: (credentials = fixedCredentials({ authorization: 'Bearer good' })): Connection => ({
      server: url,
      proxyUrl: undefined,
      namespace: 'default',
      source: 'test',
      credentials,
    }),
    /** Returns the next request that was not taken yet; rejects after a minute. */
    async next(): Promise<ScriptedRequest> {
      await eventually('a request to the scripted API server', () => pending.length > 0);
      return pending.shift() as ScriptedRequest;
    },
    close(): Promise<void> {
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

function createScriptedRequest(request: IncomingMessage, response: ServerResponse, body: string) {
  const { pathname, searchParams } = new URL(request.url ?? '', 'http://server');
  let closed = false;
  response.on('close', () => {
    closed = true;
  });
  const reset = (): void => void request.socket.resetAndDestroy();
  return {
    method: request.method ?? '',
    path: pathname,
    query: searchParams,
    headers: request.headers,
    body,
    respond({ status, headers, body: text }: RecordedResponse): void {
      response.writeHead(status, { ...headers, 'content-length': Buffer.byteLength(text) }).end(text);
    },
    /** Responds with 200 and keeps the body open. */
    watch() {
      response.writeHead(200, { 'cache-control': 'no-cache, private', 'content-type': 'application/json' });
      response.flushHeaders();
      return {
        /** True once the client or the server has closed it. */
        get closed() {
          return closed;
        },
        /** Sends lines, each terminated by a line feed. */
        send: (...lines: readonly string[]): void =>
          void response.write(lines.map((line) => `${line}\n`).join('')),
        /** Sends bytes unchanged. */
        sendRaw: (bytes: string | Buffer): void => void response.write(bytes),
        /** Ends the watch, as the API server does after its timeout. */
        end: (): void => void response.end(),
        /** Resets the connection. */
        reset,
      };
    },
    /** Responds with a status and a body in pieces: an unfinished body, seen from the server. */
    stream(status: number) {
      response.writeHead(status, { 'content-type': 'application/json' });
      return {
        /** True once the client or the server has closed it. */
        get closed() {
          return closed;
        },
        /** Resolves when the bytes were accepted or the response was closed. */
        write: (bytes: string | Buffer): Promise<void> =>
          new Promise((resolve) => {
            response.once('close', resolve);
            response.write(bytes, () => {
              response.off('close', resolve);
              resolve();
            });
          }),
      };
    },
    /** Resets the connection without a response. */
    reset,
  };
}
