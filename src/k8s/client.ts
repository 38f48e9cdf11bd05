import type { Clock } from '../clock.ts';
import { errorMessage } from '../error-message.ts';
import { createLogThrottle } from '../log-throttle.ts';
import { ApiError, errorFromResponse, errorFromTransport, isTrustFailure } from './api-error.ts';
import type { Connection } from './connection.ts';
import type { Credentials, Impersonation } from './credentials.ts';
import type { FaultLogger } from './fault-log.ts';
import {
  HTTP_METHODS,
  type Call,
  type Verb,
  type ResourceType,
  createResourceClient,
  getRaw,
  type ResourceClient,
  resourcePath,
} from './resource-client.ts';
import { StreamReaderError, type HttpResponse, type HttpRequest } from './response-handler.ts';
import { ServerClock } from './server-clock.ts';
import { createTransport } from './transport.ts';

/** A completed request, for metrics. */
export interface RequestSample {
  /** A `watch` is reported when it is opened or rejected, never when it ends. */
  readonly verb: Verb;
  /** HTTP status as text, or `<error>` without a response, as in client-go's metrics. */
  readonly code: string;
}

/** Configuration of an API client. */
export interface ApiClientOptions {
  readonly connection: Connection;
  readonly clock: Clock;
  /** As in `reverse-tunnel-operator/0.1.0`; the part before the slash becomes the manager's name in managedFields. */
  readonly userAgent: string;
  /**
   * Maximum connections for calls, at least 1. It limits the concurrent calls; further calls wait. Watches use
   * connections of their own.
   */
  readonly connections: number;
  /** Replaces the limit of each call, at least 1 ms. Default: the limits of `CallOptions`. */
  readonly requestTimeoutMs?: number | undefined;
  /** Called for each request sent, including the retry after a 401. Must not throw. */
  readonly onRequest?: (sample: RequestSample) => void;
  /** Reports that a 401 was fixed by reloading the credentials. Callers report failures. */
  readonly log?: Pick<FaultLogger, 'info'>;
}

/**
 * Time between the deadline given to the API server and its response (measured: a 504 after 5.8 s for a deadline of 5
 * s), plus a margin.
 */
const SERVER_MARGIN_MS = 2_000;
/** Reloaded credentials are logged once for all calls that waited for them. */
const RENEWAL_LOG_INTERVAL_MS = 30_000;

/** A client of one API server. */
export interface ApiClient {
  /** Returns a client for one resource. Creating one is cheap, but callers should keep it. `T` is not checked. */
  resource<T>(resource: ResourceType): ResourceClient<T>;
  /** Sends a GET for a path that is not a resource, as in `/version`. `T` is not checked. */
  getRaw<T>(path: string): Promise<T>;
  /** Connections opened since the start, including those of watches. With TLS, each is one handshake. */
  connectionsOpened(): number;
  /** The clock of the API server. */
  readonly serverClock: Pick<ServerClock, 'nowMs' | 'maxAheadMs'>;
  /**
   * Ends all calls and watches with kind `cancelled` and closes all connections. Later calls fail in the same way.
   */
  close(): Promise<void>;
}

/**
 * Creates a client, which connects on first use. It retries nothing but a 401: callers decide about retries by the
 * error's kind.
 */
export function createApiClient(options: ApiClientOptions): ApiClient {
  const { connection, clock, onRequest, requestTimeoutMs } = options;
  const { credentials } = connection;
  const serverClock = new ServerClock(clock);
  const transport = createTransport({
    server: connection.server,
    proxyUrl: connection.proxyUrl,
    connections: options.connections,
    clock,
  });
  const onDate = (date: string): void => serverClock.observe(date);
  let cachedHeaders: { credentials: Credentials; headers: Headers } | undefined;
  const closing = new AbortController();
  const throttleRenewalLog = createLogThrottle(clock, RENEWAL_LOG_INTERVAL_MS);

  function headers(current: Credentials): Headers {
    if (cachedHeaders?.credentials !== current) {
      // Built once per credentials, because the pool encodes each array once.
      cachedHeaders = { credentials: current, headers: createHeaders(options.userAgent, current) };
    }
    return cachedHeaders.headers;
  }

  /**
   * Sends one request and returns its response, whatever the status. Rejects with `ApiError`, or with what a watch's
   * reader threw.
   */
  async function attempt(call: Call, current: Credentials, timeoutMs: number): Promise<HttpResponse> {
    const { verb, onOpen } = call;
    const deadlineMs = clock.monotonicMs() + timeoutMs;
    let observed = false;
    function observe(code: string): void {
      if (observed) return;
      observed = true;
      onRequest?.({ verb, code });
    }
    const request: HttpRequest = {
      method: HTTP_METHODS[verb],
      path: call.onChunk === undefined ? withServerTimeout(call.path, timeoutMs) : call.path,
      headers: headers(current)[HTTP_METHODS[verb]],
      body: call.body,
      timeoutMs,
      signal: call.signal,
      onChunk: call.onChunk,
      onDate,
      onOpen:
        onOpen === undefined
          ? undefined
          : () => {
              // The end of a watch, minutes later, is unrelated to the API server's latency.
              observe('200');
              onOpen();
            },
    };
    try {
      const response = await transport.send(request, current);
      observe(String(response.status));
      return response;
    } catch (error) {
      observe('<error>');
      if (error instanceof StreamReaderError) throw error.cause;
      // The connection pools were destroyed during the call; undici's message would look like a failure.
      if (closing.signal.aborted) throw closedError(call, error);
      const failure = errorFromTransport(call.action(), error);
      // The CA or the client certificate may have been rotated; the next call will use the new one.
      if (isTrustFailure(error))
        await withinDeadline(call, credentials.refresh(), deadlineMs).catch(() => undefined);
      throw failure;
    }
  }

  /**
   * Bounds the time to fetch credentials, which may involve a plugin and its provider, by the call's own deadline.
   */
  function withinDeadline<T>(call: Call, work: Promise<T>, deadlineMs: number): Promise<T> {
    return withDeadline(work, {
      deadlineMs,
      clock,
      signals: [call.signal, closing.signal],
      onTimeout: () =>
        new ApiError(
          'unauthorized',
          `${call.action()}: credentials not available within ${call.timeoutMs / 1000} s`,
        ),
      onCancel: () =>
        closing.signal.aborted ? closedError(call) : new ApiError('cancelled', `${call.action()}: cancelled`),
    });
  }

  /** Returns the body of a 2xx response. After a 401, it retries once with reloaded credentials. */
  async function send(requested: Call): Promise<string> {
    const call = requestTimeoutMs === undefined ? requested : { ...requested, timeoutMs: requestTimeoutMs };
    if (closing.signal.aborted) throw closedError(call);
    const deadlineMs = clock.monotonicMs() + call.timeoutMs;
    const initial = credentials.current();
    // Rarely a promise, so a write does not wait for an unnecessary turn of the event loop.
    let response =
      initial instanceof Promise
        ? await attempt(
            call,
            await withinDeadline(call, initial, deadlineMs),
            deadlineMs - clock.monotonicMs(),
          )
        : await attempt(call, initial, call.timeoutMs);
    if (response.status === 401) {
      // Retries even if the credentials are the same: an API server that cannot reach its token verifier also answers
      // 401.
      await renew(call, deadlineMs);
      const latest = credentials.current();
      const renewed = latest instanceof Promise ? await withinDeadline(call, latest, deadlineMs) : latest;
      response = await attempt(call, renewed, deadlineMs - clock.monotonicMs());
      if (response.status !== 401) logRenewal(call);
    }
    if (response.status < 200 || response.status > 299) throw errorFromResponse(call.action(), response);
    return response.text;
  }

  function logRenewal(call: Call): void {
    throttleRenewalLog('', (suppressed) =>
      options.log?.info(
        { errorKind: 'unauthorized', action: call.action(), retry: 'succeeded', ...suppressed },
        'credentials were rejected; reloaded them',
      ),
    );
  }

  async function renew(call: Call, deadlineMs: number): Promise<void> {
    try {
      await withinDeadline(call, credentials.refresh(), deadlineMs);
    } catch (error) {
      if (error instanceof ApiError) throw error;
      throw new ApiError(
        'unauthorized',
        `${call.action()}: 401 Unauthorized, cannot reload credentials: ${errorMessage(error)}`,
        {
          status: 401,
          cause: error,
        },
      );
    }
  }

  return {
    resource: <T>(resource: ResourceType) =>
      createResourceClient<T>(resourcePath(connection.server.pathname, resource), send),
    getRaw: <T>(path: string) => getRaw<T>(`${connection.server.pathname.replace(/\/+$/, '')}${path}`, send),
    connectionsOpened: () => transport.connectionsOpened(),
    serverClock,
    close() {
      closing.abort();
      return transport.close();
    },
  };
}

function closedError(call: Call, cause?: unknown): ApiError {
  return new ApiError('cancelled', `${call.action()}: client is closed`, { cause });
}

/** Passes the deadline on, so that the API server does not complete a write that its client has given up. */
function withServerTimeout(path: string, timeoutMs: number): string {
  const serverMs = Math.floor(Math.max(timeoutMs - SERVER_MARGIN_MS, timeoutMs / 2, 1));
  return `${path}${path.includes('?') ? '&' : '?'}timeout=${serverMs}ms`;
}

/** Headers per method: names and values, alternating. */
type Headers = Record<(typeof HTTP_METHODS)[Verb], string[]>;

function createHeaders(userAgent: string, credentials: Credentials): Headers {
  const { authorization, impersonation } = credentials;
  const common = [
    'accept',
    'application/json',
    'user-agent',
    userAgent,
    ...(authorization === undefined ? [] : ['authorization', authorization]),
    ...(impersonation === undefined ? [] : impersonationHeaders(impersonation)),
  ];
  return {
    GET: common,
    POST: [...common, 'content-type', 'application/json'],
    PATCH: [...common, 'content-type', 'application/merge-patch+json'],
    DELETE: [...common, 'content-type', 'application/json'],
  };
}

function impersonationHeaders({ user, uid, groups, extra }: Impersonation): string[] {
  return [
    'impersonate-user',
    user,
    ...(uid === undefined ? [] : ['impersonate-uid', uid]),
    ...groups.flatMap((group) => ['impersonate-group', group]),
    ...extra.flatMap(([key, value]) => [`impersonate-extra-${escapeHeaderKey(key)}`, value]),
  ];
}

/** Percent-encodes what a header name must not contain; the API server decodes it. */
function escapeHeaderKey(key: string): string {
  return [...Buffer.from(key)]
    .map((byte) => {
      const character = String.fromCodePoint(byte);
      return /[\w!#$&'*+.^`|~-]/.test(character)
        ? character
        : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
    })
    .join('');
}

/** The deadline of an operation, and the signals that cancel it. */
interface DeadlineOptions {
  /** On the monotonic clock. */
  readonly deadlineMs: number;
  readonly clock: Clock;
  /** Aborting any of them cancels the operation. */
  readonly signals: readonly (AbortSignal | undefined)[];
  /** Creates the rejection for an expired deadline. */
  readonly onTimeout: () => Error;
  /** Creates the rejection for an aborted signal. */
  readonly onCancel: () => Error;
}

/**
 * Returns the result of `work` unless the deadline or a signal comes first; `work` itself is not cancelled. Timer and
 * listeners are removed in either case.
 */
function withDeadline<T>(work: Promise<T>, options: DeadlineOptions): Promise<T> {
  const { clock, deadlineMs, signals, onTimeout, onCancel } = options;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      cleanUp();
      reject(onCancel());
    };
    const cancelTimer = clock.setTimer(Math.max(deadlineMs - clock.monotonicMs(), 0), () => {
      cleanUp();
      reject(onTimeout());
    });
    function cleanUp(): void {
      cancelTimer();
      for (const signal of signals) signal?.removeEventListener('abort', onAbort);
    }
    for (const signal of signals) signal?.addEventListener('abort', onAbort);
    if (signals.some((signal) => signal?.aborted === true)) onAbort();
    work.then(resolve, reject).finally(cleanUp);
  });
}
