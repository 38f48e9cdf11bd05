import { createRequire } from 'node:module';
import { createSecureContext, type SecureContextOptions, type SecureContext } from 'node:tls';
import type { Clock } from '../clock.ts';
import { trustOptions } from '../tls-trust.ts';
import type { Credentials } from './credentials.ts';
import { CONNECT_TIMEOUT_MS } from './http-connection.ts';
import { HttpPool, type EncodableRequest } from './http-pool.ts';
import { ResponseHandler, type HttpResponse, type HttpRequest } from './response-handler.ts';

/** Through a proxy; `HttpPool` has the same limit. */
const PROXY_IDLE_CONNECTION_MS = 60_000;

/** Spares an API server that is merely slow a new set of handshakes at each timeout. */
const MIN_RECYCLE_INTERVAL_MS = 10_000;

const require = createRequire(import.meta.url);

/** Configuration of a transport. */
export interface TransportOptions {
  /** Scheme, host and port. With `http:`, the credentials must be empty. */
  readonly server: URL;
  /** Proxy URL with scheme `http:`, `https:` or `socks5:`; undefined for none. */
  readonly proxyUrl: string | undefined;
  /** Maximum connections for calls. Streams use unlimited connections of their own. */
  readonly connections: number;
  readonly clock: Clock;
}

/** Connections of one kind, with one set of TLS options. */
interface RequestPool {
  dispatch(request: EncodableRequest, handler: ResponseHandler): void;
  /** Accepts no more requests. Resolves when those that were accepted have ended. */
  close(): Promise<void>;
  /** Fails all requests and closes all connections. */
  destroy(): Promise<void>;
}

/** Kept-alive HTTP/1.1 connections to one server. */
export interface Transport {
  /**
   * Sends one request. Rejects without a complete response: with the cause, or with `ApiError`.
   */
  send(request: HttpRequest, credentials: Credentials): Promise<HttpResponse>;
  /** Connections opened since the start, including those of streams. */
  connectionsOpened(): number;
  /** Rejects all pending requests and closes all connections. */
  close(): Promise<void>;
}

/**
 * Creates a transport with one pool for calls and one for streams: a watch occupies its connection for minutes and
 * must neither wait for a call nor take its place. A change of the CA or the client certificate creates new pools;
 * the old ones finish their requests.
 */
export function createTransport(options: TransportOptions): Transport {
  const { server, clock } = options;
  const openPools = new Set<RequestPool>();
  let connectionCount = 0;
  let lastRecycledMs = Number.NEGATIVE_INFINITY;
  let current:
    { credentials: Credentials; tls: TlsMaterial; calls: RequestPool; streams: RequestPool } | undefined;

  function onConnect(): void {
    connectionCount += 1;
  }

  /** @param connections maximum; null for unlimited */
  function createPool(tls: TlsMaterial, connections: number | null): RequestPool {
    const pool =
      options.proxyUrl === undefined
        ? new HttpPool({
            server,
            tls: server.protocol === 'https:' ? shareContext(tls) : {},
            connections: connections ?? Number.POSITIVE_INFINITY,
            onConnect,
          })
        : createProxyPool(options.proxyUrl, tls, connections);
    openPools.add(pool);
    return pool;
  }

  function createProxyPool(uri: string, tls: TlsMaterial, connections: number | null): RequestPool {
    // Loaded only here, because few installations use a proxy.
    const { ProxyAgent, Pool }: typeof import('undici') = require('undici');
    if (new URL(uri).protocol === 'socks5:') silenceExperimentalWarnings();
    const agent = new ProxyAgent({
      connections,
      pipelining: 1,
      allowH2: false,
      keepAliveTimeout: PROXY_IDLE_CONNECTION_MS,
      keepAliveMaxTimeout: PROXY_IDLE_CONNECTION_MS,
      // One timer per request enforces the caller's deadline; undici's own would add two more.
      headersTimeout: 0,
      bodyTimeout: 0,
      uri,
      requestTls: { ...tls, timeout: CONNECT_TIMEOUT_MS },
      // As in Go, the CAs of the cluster also verify an https proxy. The name is the proxy's own.
      ...(new URL(uri).protocol === 'https:'
        ? { proxyTls: { ...tls, servername: new URL(uri).hostname } }
        : {}),
      proxyTunnel: server.protocol === 'https:',
      factory: (origin, inner) => new Pool(origin, inner).on('connect', onConnect),
      // Otherwise a proxy that accepts CONNECT and never answers would occupy a connection of the pool for five
      // minutes.
      clientFactory: (proxy, inner) => new Pool(proxy, { ...inner, headersTimeout: CONNECT_TIMEOUT_MS }),
      connectTimeout: CONNECT_TIMEOUT_MS,
    });
    return {
      dispatch(request, handler) {
        // Without `reset`, undici closes the connection after a DELETE with a body: one TLS handshake per delete.
        agent.dispatch({ ...request, origin: server.origin, reset: false }, handler);
      },
      close: () => agent.close(),
      destroy: () => agent.destroy(),
    };
  }

  function closeGracefully(pool: RequestPool): void {
    // Waits for pending requests, including the end of a watch; `close` destroys the pools that are still open.
    pool.close().then(
      () => openPools.delete(pool),
      () => openPools.delete(pool),
    );
  }

  /**
   * Replaces the pool for calls after a timeout. The connection may be half-open, for example after a middlebox lost
   * its state. The idle connections next to it would then be half-open too, and each would cost another call its
   * deadline.
   */
  function recyclePool(calls: RequestPool): void {
    const nowMs = clock.monotonicMs();
    if (current === undefined || current.calls !== calls) return;
    if (nowMs < lastRecycledMs + MIN_RECYCLE_INTERVAL_MS) return;
    lastRecycledMs = nowMs;
    closeGracefully(calls);
    current = { ...current, calls: createPool(current.tls, options.connections) };
  }

  function poolsFor(credentials: Credentials): { calls: RequestPool; streams: RequestPool } {
    // A few comparisons per call, by reference because equal `Credentials` keep their identity.
    if (current !== undefined && sameTls(current.credentials, credentials)) return current;
    // Before the previous pools are closed, because it fails for a certificate and a key that do not match: these were
    // read during a rotation, and the previous ones may come back.
    const tls = tlsMaterial(credentials);
    const calls = createPool(tls, options.connections);
    const streams = createPool(tls, null);
    if (current !== undefined) {
      closeGracefully(current.calls);
      closeGracefully(current.streams);
    }
    current = { credentials, tls, calls, streams };
    return current;
  }

  return {
    send(request, credentials) {
      const { calls, streams } = poolsFor(credentials);
      const handler = new ResponseHandler(request, clock, () => recyclePool(calls));
      const { method, path, headers, body = null } = request;
      const pool = request.onChunk === undefined ? calls : streams;
      pool.dispatch({ method, path, headers, body }, handler);
      return handler.response;
    },

    connectionsOpened: () => connectionCount,

    async close() {
      await Promise.all([...openPools].map((pool) => pool.destroy()));
      openPools.clear();
    },
  };
}

let areWarningsSilenced = false;

/** Hides what undici prints to standard error at the first use of SOCKS 5: that its support is experimental. */
function silenceExperimentalWarnings(): void {
  if (areWarningsSilenced) return;
  areWarningsSilenced = true;
  const listeners = process.listeners('warning');
  process.removeAllListeners('warning');
  process.on('warning', (warning) => {
    if (warning.name !== 'ExperimentalWarning') for (const listener of listeners) listener(warning);
  });
}

interface TlsMaterial {
  ca: SecureContextOptions['ca'];
  allowPartialTrustChain: boolean | undefined;
  cert?: string;
  key?: string;
  servername?: string;
  rejectUnauthorized?: false;
}

function tlsMaterial({ ca, cert, key, serverName, skipsVerification }: Credentials): TlsMaterial {
  return {
    ...trustOptions(ca),
    ...(skipsVerification === true ? { rejectUnauthorized: false } : {}),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(serverName === undefined ? {} : { servername: serverName }),
  };
}

/**
 * Returns options with which all connections share one TLS context. Otherwise Node parses the CAs and the certificate
 * for each of them: 0.3 ms per connection with one CA, of which a burst opens 64 at once, and more with those of the
 * system.
 *
 * @throws Error if a CA, the certificate or the key cannot be parsed
 */
function shareContext({ servername, rejectUnauthorized, ...material }: TlsMaterial): SharedTls {
  return {
    secureContext: createSecureContext(material),
    ...(servername === undefined ? {} : { servername }),
    ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }),
  };
}

type SharedTls = Pick<TlsMaterial, 'servername' | 'rejectUnauthorized'> & { secureContext: SecureContext };

function sameTls(a: Credentials, b: Credentials): boolean {
  return (
    a.ca === b.ca &&
    a.cert === b.cert &&
    a.key === b.key &&
    a.serverName === b.serverName &&
    a.skipsVerification === b.skipsVerification
  );
}
