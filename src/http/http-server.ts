import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { parseHostPort } from '../host-port.ts';

/** The sources of the responses. Declared here, provided by the composition root. */
export interface HttpSources {
  /** Returns why the process is not ready, in a few words; undefined if it is ready. */
  readonly notReady: () => string | undefined;
  /** Returns the exposition text and its content type. */
  readonly metrics: () => Promise<{ readonly contentType: string; readonly text: string }>;
}

/** The server cannot listen on the address; the message names the address and the cause. */
export class HttpListenError extends Error {
  override readonly name = 'HttpListenError';
}

/** A running server. */
export interface HttpServer {
  /** `host:port` with the bound port. */
  readonly address: string;
  /** Closes all connections; resolves when they are closed and the port is free. */
  close(): Promise<void>;
}

/**
 * Serves /livez (200 while the process responds at all), /readyz (200 once reports can be mirrored, otherwise 503 with
 * the reason) and /metrics.
 *
 * @param address `host:port`; port 0 selects a free port
 * @throws HttpListenError if the address is in use, not local, or invalid
 */
export async function startHttpServer(address: string, sources: HttpSources): Promise<HttpServer> {
  let pendingMetrics: ReturnType<HttpSources['metrics']> | undefined;
  /** Requests that arrive during a collection share its result: one packet may contain a thousand of them. */
  const collectMetrics: HttpSources['metrics'] = () => {
    pendingMetrics ??= sources.metrics().finally(() => {
      pendingMetrics = undefined;
    });
    return pendingMetrics;
  };
  const server = createServer((request, response) => {
    const respond = (code: number, text: string, contentType = 'text/plain; charset=utf-8'): void => {
      response.writeHead(code, { 'content-type': contentType, 'x-content-type-options': 'nosniff' });
      response.end(request.method === 'HEAD' ? undefined : text);
    };
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD');
      respond(405, 'method not allowed\n');
      return;
    }
    switch (request.url?.split('?')[0] ?? '') {
      case '/livez':
        respond(200, 'ok\n');
        break;
      case '/readyz': {
        const reason = sources.notReady();
        respond(reason === undefined ? 200 : 503, reason === undefined ? 'ok\n' : `not ready: ${reason}\n`);
        break;
      }
      case '/metrics':
        collectMetrics().then(
          ({ contentType, text }) => respond(200, text, contentType),
          () => respond(500, 'failed to collect metrics\n'),
        );
        break;
      default:
        respond(404, 'not found; paths are /livez, /readyz and /metrics\n');
    }
  });
  await listen(server, address);
  const { port } = server.address() as AddressInfo;
  return {
    address: `${address.slice(0, address.lastIndexOf(':'))}:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listen(server: Server, address: string): Promise<void> {
  const hostPort = parseHostPort(address);
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(new HttpListenError(`cannot listen on ${address}: ${error.message}`, { cause: error })),
    );
    // After that, an error means that one connection could not be accepted; the next one may succeed.
    server.once('listening', () => server.on('error', () => undefined));
    if (hostPort === undefined) throw new HttpListenError(`cannot listen on ${address}: not host:port`);
    server.listen(hostPort.port, hostPort.host, resolve);
  });
}
