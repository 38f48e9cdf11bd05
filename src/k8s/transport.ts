import { createRequire } from 'node:module';
import { createSecureContext, type SecureContextOptions, type SecureContext } from 'node:tls';
import type { Dispatcher, Pool as PoolType } from 'undici';
import Pool from 'undici/lib/dispatcher/pool.js';
import type { Clock } from '../clock.ts';
import { trustOptions } from '../tls-trust.ts';
import type { Credentials } from './credentials.ts';
import { ResponseHandler, type HttpResponse, type HttpRequest } from './response-handler.ts';

/** Below the 90 s after which kube-apiserver closes an idle connection, so that a request never races with that. */
const IDLE_CONNECTION_MS = 60_000;
/** Limit for TCP and TLS handshakes; the request's own deadline applies as well. */
const CONNECT_TIMEOUT_MS = 10_000;

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

/** Kept-alive HTTP/1.1 connections to one server. */
export interface Transport {
  /**
   * Sends one request. Rejects without a complete response: with the cause from undici or TLS, or with `ApiError`.
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
  const openPools = new Set<Dispatcher>();
  let connectionCount = 0;
  let lastRecycledMs = Number.NEGATIVE_INFINITY;
  let current:
    { credentials: Credentials; tls: TlsMaterial; calls: Dispatcher; streams: Dispatcher } | undefined;

  function countConnections(pool: PoolType): PoolType {
    return pool.on('connect', () => {
      connectionCount += 1;
    });
  }

  /** @param connections maximum; null for unlimited */
  function createPool(tls: TlsMaterial, connections: number | null): Dispatcher {
    const poolOptions: PoolType.Options = {
      connections,
      pipelining: 1,
      // Measured: HTTP/2 is not faster, and one slow stream would block the others' flow-control window.
      allowH2: false,
      keepAliveTimeout: IDLE_CONNECTION_MS,
      keepAliveMaxTimeout: IDLE_CONNECTION_MS,
      // One timer per request enforces the caller's deadline; undici's own would add two more.
      headersTimeout: 0,
      bodyTimeout: 0,
    };
    const pool =
      options.proxyUrl === undefined
        ? countConnections(
            new Pool(server.origin, {
              ...poolOptions,
              connect: {
                ...(server.protocol === 'https:' && shareContext(tls)),
                timeout: CONNECT_TIMEOUT_MS,
              },
            }),
          )
        : createProxyPool(options.proxyUrl, tls, poolOptions);
    openPools.add(pool);
    return pool;
  }

  function createProxyPool(uri: string, tls: TlsMaterial, poolOptions: PoolType.Options): Dispatcher {
    // The proxy agent needs all of undici, which is loaded only here because few installations use a proxy. Its pools
    // must be of the same copy of undici: in a bundle, the one imported above is another.
    const { ProxyAgent, Pool: ProxyPool }: typeof import('undici') = require('undici');
    if (new URL(uri).protocol === 'socks5:') silenceExperimentalWarnings();
    return new ProxyAgent({
      ...poolOptions,
      uri,
      requestTls: { ...tls, timeout: CONNECT_TIMEOUT_MS },
      // As in Go, the CAs of the cluster also verify an https proxy. The name is the proxy's own.
      ...(new URL(uri).protocol === 'https:'
        ? { proxyTls: { ...tls, servername: new URL(uri).hostname } }
        : {}),
      proxyTunnel: server.protocol === 'https:',
      factory: (origin, inner) => countConnections(new ProxyPool(origin, inner)),
      // Otherwise a proxy that accepts CONNECT and never answers would occupy a connection of the pool for five
      // minutes.
      clientFactory: (proxy, inner) => new ProxyPool(proxy, { ...inner, headersTimeout: CONNECT_TIMEOUT_MS }),
      connectTimeout: CONNECT_TIMEOUT_MS,
    });
  }

  function closeGracefully(pool: Dispatcher): void {
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
  function recyclePool(calls: Dispatcher): void {
    const nowMs = clock.monotonicMs();
    if (current === undefined || current.calls !== calls) return;
    if (nowMs < lastRecycledMs + MIN_RECYCLE_INTERVAL_MS) return;
    lastRecycledMs = nowMs;
    closeGracefully(calls);
    current = { ...current, calls: createPool(current.tls, options.connections) };
  }

  function poolsFor(credentials: Credentials): { calls: Dispatcher; streams: Dispatcher } {
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
      (request.onChunk === undefined ? calls : streams).dispatch(
        {
          origin: server.origin,
          method: request.method,
          path: request.path,
          headers: request.headers,
          body: request.body ?? null,
          // Without this, undici closes the connection after a DELETE with a body: one TLS handshake per delete.
          reset: false,
        },
        handler,
      );
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
