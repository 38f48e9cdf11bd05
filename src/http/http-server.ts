import { createServer, type Server, type ServerOptions } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { parseHostPort } from '../host-port.ts';
import { ConnectionLimiter } from './connection-limiter.ts';

/** Maximum number of open connections, which must fit into `RESERVED_FILES` in `src/open-files.ts`. */
const MAX_CONNECTIONS = 32;
/** Maximum number of responses of one connection that are not sent yet. Probes and Prometheus wait for each response. */
const MAX_PENDING_RESPONSES = 16;
/** Node's default, stated because an option of Node can raise it. Enough for the headers that proxies add. */
const MAX_HEADER_BYTES = 16 * 1024;
/** How often Node checks connections for an expired deadline. */
const DEADLINE_CHECK_INTERVAL_MS = 1000;

/** Time limits of each connection. A request has no body, and arrives within milliseconds. */
export interface HttpTimeouts {
  /** Deadline for the first request since the connection was opened, and for the end of a request since its start. */
  readonly requestMs: number;
  /** Time without progress in sending a response. */
  readonly stalledMs: number;
  /** Time between two requests. */
  readonly keepAliveMs: number;
}

const DEFAULT_TIMEOUTS: HttpTimeouts = { requestMs: 10_000, stalledMs: 10_000, keepAliveMs: 5000 };

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
 * the reason) and /metrics. Clients are not authenticated, so the number of connections, what each of them may buffer, and
 * the time that it may take are limited.
 *
 * @param address `host:port`; port 0 selects a free port
 * @throws HttpListenError if the address is in use, not local, or invalid
 */
export async function startHttpServer(
  address: string,
  sources: HttpSources,
  timeouts: HttpTimeouts = DEFAULT_TIMEOUTS,
): Promise<HttpServer> {
  let pendingMetrics: ReturnType<HttpSources['metrics']> | undefined;
  /** Requests that arrive during a collection share its result: one packet may contain a thousand of them. */
  const collectMetrics: HttpSources['metrics'] = () => {
    pendingMetrics ??= sources.metrics().finally(() => {
      pendingMetrics = undefined;
    });
    return pendingMetrics;
  };
  const options: ServerOptions = {
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: timeouts.requestMs,
    requestTimeout: timeouts.requestMs,
    keepAliveTimeout: timeouts.keepAliveMs,
    connectionsCheckingInterval: Math.min(DEADLINE_CHECK_INTERVAL_MS, timeouts.requestMs),
  };
  const pendingResponses = new WeakMap<Socket, number>();
  const server = createServer(options, (request, response) => {
    const { socket } = request;
    const pending = (pendingResponses.get(socket) ?? 0) + 1;
    if (pending > MAX_PENDING_RESPONSES) {
      socket.destroy();
      return;
    }
    pendingResponses.set(socket, pending);
    response.once('close', () => pendingResponses.set(socket, (pendingResponses.get(socket) ?? 1) - 1));
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
  server.timeout = timeouts.stalledMs;
  const limiter = new ConnectionLimiter(MAX_CONNECTIONS);
  server.on('connection', (socket) => limiter.add(socket));
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
