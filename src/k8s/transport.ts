import { createRequire } from 'node:module';
import type { Dispatcher, Pool as PoolType } from 'undici';
import Pool from 'undici/lib/dispatcher/pool.js';
import type { Clock } from '../clock.ts';
import type { Credentials } from './credentials.ts';
import { ResponseHandler, type HttpResponse, type HttpRequest } from './response-handler.ts';

/** Below the 90 s after which kube-apiserver closes an idle connection, so that a request never meets the closing. */
const IDLE_CONNECTION_MS = 60_000;
/** What a request may wait for TCP and TLS; its own deadline counts on. */
const CONNECT_TIMEOUT_MS = 10_000;

/** An API server that is merely slow is not to be asked for new handshakes at each time-out. */
const MIN_RECYCLE_INTERVAL_MS = 10_000;

const require = createRequire(import.meta.url);

/** Which server, and by how many connections. */
export interface TransportOptions {
  /** Scheme, host and port; `http:` is for tests only, `connection.ts` refuses it. */
  readonly server: URL;
  /** `http:`, `https:` or `socks5:` proxy to go through; undefined for none. */
  readonly proxyUrl: string | undefined;
  /** Most connections for calls. Streams have their own, without a limit. */
  readonly connections: number;
  readonly clock: Clock;
}

/** Kept-alive HTTP/1.1 connections to one server. */
export interface Transport {
  /** Sends one request. Rejects when no whole answer comes: with the cause as undici or TLS has it, or `ApiError`. */
  send(request: HttpRequest, credentials: Credentials): Promise<HttpResponse>;
  /** Connections opened since the start, those for streams included. */
  connectionsOpened(): number;
  /** Ends everything at once: whatever is under way rejects. */
  close(): Promise<void>;
}

/**
 * Two pools: one for calls, one for streams, because a watch occupies its connection for minutes and must neither wait
 * for a call nor take its place. A change of CA or client certificate makes new pools; the old ones finish what they do.
 */
export function createTransport(options: TransportOptions): Transport {
  const { server, clock } = options;
  const openPools = new Set<Dispatcher>();
  let connectionCount = 0;
  let lastRecycledMs = Number.NEGATIVE_INFINITY;
  let current: { tls: TlsMaterial; calls: Dispatcher; streams: Dispatcher } | undefined;

  function countConnections(pool: PoolType): PoolType {
    return pool.on('connect', () => {
      connectionCount += 1;
    });
  }

  /** @param connections at most so many; null for no limit */
  function createPool(tls: TlsMaterial, connections: number | null): Dispatcher {
    const poolOptions: PoolType.Options = {
      connections,
      pipelining: 1,
      // HTTP/2 was measured: no faster, and one slow stream would hold up the others' window.
      allowH2: false,
      keepAliveTimeout: IDLE_CONNECTION_MS,
      keepAliveMaxTimeout: IDLE_CONNECTION_MS,
      // Deadlines are the caller's, by one timer each; undici's own would add two more to each request.
      headersTimeout: 0,
      bodyTimeout: 0,
    };
    const pool =
      options.proxyUrl === undefined
        ? countConnections(
            new Pool(server.origin, { ...poolOptions, connect: { ...tls, timeout: CONNECT_TIMEOUT_MS } }),
          )
        : createProxyPool(options.proxyUrl, tls, poolOptions);
    openPools.add(pool);
    return pool;
  }

  function createProxyPool(uri: string, tls: TlsMaterial, poolOptions: PoolType.Options): Dispatcher {
    // All of undici, for its proxy agent does not work without; loaded only here, as few need it.
    const { ProxyAgent }: typeof import('undici') = require('undici');
    return new ProxyAgent({
      ...poolOptions,
      uri,
      requestTls: { ...tls, timeout: CONNECT_TIMEOUT_MS },
      factory: (origin, inner) => countConnections(new Pool(origin, inner)),
      // A proxy that takes CONNECT and never answers would else hold a place of the pool for five minutes.
      clientFactory: (proxy, inner) => new Pool(proxy, { ...inner, headersTimeout: CONNECT_TIMEOUT_MS }),
      connectTimeout: CONNECT_TIMEOUT_MS,
    });
  }

  function closeGracefully(pool: Dispatcher): void {
    // Waits for what is under way, a watch's end included; `close` destroys what is left before that.
    pool.close().then(
      () => openPools.delete(pool),
      () => openPools.delete(pool),
    );
  }

  /**
   * A connection on which no answer comes may be half-open, as after a loss of state on the way, and then those that
   * are idle beside it are, too: each would cost one more call its deadline. So the next call has a new one.
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
    // Four comparisons of the same strings a call: by reference, as `Credentials` are not made anew for equal content.
    if (current !== undefined && sameTls(current.tls, credentials)) return current;
    if (current !== undefined) {
      closeGracefully(current.calls);
      closeGracefully(current.streams);
    }
    const tls = tlsMaterial(credentials);
    current = { tls, calls: createPool(tls, options.connections), streams: createPool(tls, null) };
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
          // Without this undici closes the connection after a DELETE with a body, so one TLS handshake a deletion.
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

interface TlsMaterial {
  ca?: string;
  cert?: string;
  key?: string;
  servername?: string;
}

function tlsMaterial({ ca, cert, key, serverName }: Credentials): TlsMaterial {
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(serverName === undefined ? {} : { servername: serverName }),
  };
}

function sameTls(tls: TlsMaterial, { ca, cert, key, serverName }: Credentials): boolean {
  return tls.ca === ca && tls.cert === cert && tls.key === key && tls.servername === serverName;
}
