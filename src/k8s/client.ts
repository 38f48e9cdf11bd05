import type { Clock } from '../clock.ts';
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
import { ApiError, errorFromResponse, errorFromTransport, isTrustFailure } from './api-error.ts';
import type { Connection } from './connection.ts';
import type { Credentials } from './credentials.ts';
import { StreamReaderError, type HttpResponse, type HttpRequest } from './response-handler.ts';
import type { ReflectorLog } from './reflector-log.ts';
import { createTransport } from './transport.ts';

/** One request that ended, for metrics. */
export interface RequestSample {
  /** `watch` when it opened or was refused; its end is no request. */
  readonly verb: Verb;
  /** HTTP status as text, or `<error>` when nothing answered, as client-go's metrics have it. */
  readonly code: string;
}

/** What a client needs to be told. */
export interface ApiClientOptions {
  readonly connection: Connection;
  readonly clock: Clock;
  /** `reverse-tunnel-operator/0.1.0`: the part before the slash becomes the manager's name in managedFields. */
  readonly userAgent: string;
  /** Most connections for calls, at least 1: as many calls are under way at once, the others wait. Watches have their own. */
  readonly connections: number;
  /** Called for each request sent, a second try after 401 included. Must not throw. */
  readonly onRequest?: (sample: RequestSample) => void;
  /** Says that refused credentials were made good by new ones; what fails is said by whoever called. */
  readonly log?: Pick<ReflectorLog, 'info'>;
}

/** What the API server takes from the limit it was given to its answer (a 504 after 5.8 s for 5 s was seen), and some. */
const SERVER_MARGIN_MS = 2_000;
/** New credentials are said once for all calls that had to wait for them. */
const RENEWAL_LOG_INTERVAL_MS = 30_000;

/** A client of one API server. */
export interface ApiClient {
  /** A client for one resource; cheap, but meant to be kept. `T` is what its objects are taken to be, unchecked. */
  resource<T>(resource: ResourceType): ResourceClient<T>;
  /** What the API server answers to a GET of a path of its own that is no resource, as `/version`; `T` unchecked. */
  getRaw<T>(path: string): Promise<T>;
  /** Connections opened since the start, for watches too. With TLS each is one handshake. */
  connectionsOpened(): number;
  /** Ends all calls and watches with consequence `cancelled`, closes all connections; calls after it fail likewise. */
  close(): Promise<void>;
}

/**
 * Creates a client; it connects when it is first used. Nothing is tried again here but a 401: what to do about a failure,
 * and when, is for the caller to decide by its consequence.
 */
export function createApiClient(options: ApiClientOptions): ApiClient {
  const { connection, clock, onRequest } = options;
  const { credentials } = connection;
  const transport = createTransport({
    server: connection.server,
    proxyUrl: connection.proxyUrl,
    connections: options.connections,
    clock,
  });
  let cachedHeaders: { credentials: Credentials; headers: Headers } | undefined;
  const closing = new AbortController();
  let renewalLoggedMs = Number.NEGATIVE_INFINITY;

  function headers(current: Credentials): Headers {
    if (cachedHeaders?.credentials !== current) {
      // Made once for all calls by the same credentials, and checked for bad characters by undici alone.
      cachedHeaders = { credentials: current, headers: createHeaders(options.userAgent, current) };
    }
    return cachedHeaders.headers;
  }

  /** One request and its answer, whatever its status. Rejects with `ApiError`, or with what a watch's reader threw. */
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
      onOpen:
        onOpen === undefined
          ? undefined
          : () => {
              // A watch's end, minutes later, says nothing about the API server's speed.
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
      // Its pools were destroyed under the call: undici's words for that would look like a fault.
      if (closing.signal.aborted) throw closedError(call, error);
      const failure = errorFromTransport(call.action(), error);
      // CA or client certificate may have been rotated: the next call is to have the new one.
      if (isTrustFailure(error))
        await withinDeadline(call, credentials.refresh(), deadlineMs).catch(() => undefined);
      throw failure;
    }
  }

  /** Credentials that have to be fetched, by a plugin that asks its provider: no longer than the call itself may take. */
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

  /** The text of a 2xx answer, after a second try with new credentials where the first were refused. */
  async function send(call: Call): Promise<string> {
    if (closing.signal.aborted) throw closedError(call);
    const deadlineMs = clock.monotonicMs() + call.timeoutMs;
    const initial = credentials.current();
    // Hardly ever a promise: a write waits for no turn of the event loop it does not need.
    let response =
      initial instanceof Promise
        ? await attempt(
            call,
            await withinDeadline(call, initial, deadlineMs),
            deadlineMs - clock.monotonicMs(),
          )
        : await attempt(call, initial, call.timeoutMs);
    if (response.status === 401) {
      // Also when they turn out the same: an API server that cannot reach its own verifier answers 401, too.
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
    const nowMs = clock.monotonicMs();
    if (nowMs - renewalLoggedMs < RENEWAL_LOG_INTERVAL_MS) return;
    renewalLoggedMs = nowMs;
    options.log?.info(
      { consequence: 'unauthorized', action: call.action(), retry: 'succeeded' },
      'credentials were rejected; reloaded them',
    );
  }

  async function renew(call: Call, deadlineMs: number): Promise<void> {
    try {
      await withinDeadline(call, credentials.refresh(), deadlineMs);
    } catch (error) {
      if (error instanceof ApiError) throw error;
      const detail = error instanceof Error ? error.message : String(error);
      throw new ApiError(
        'unauthorized',
        `${call.action()}: 401 Unauthorized, cannot reload credentials: ${detail}`,
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
    close() {
      closing.abort();
      return transport.close();
    },
  };
}

function closedError(call: Call, cause?: unknown): ApiError {
  return new ApiError('cancelled', `${call.action()}: client is closed`, { cause });
}

/** So that a write whose client gave up is not made a moment later. */
function withServerTimeout(path: string, timeoutMs: number): string {
  const serverMs = Math.floor(Math.max(timeoutMs - SERVER_MARGIN_MS, timeoutMs / 2, 1));
  return `${path}${path.includes('?') ? '&' : '?'}timeout=${serverMs}ms`;
}

/** By method; arrays, as undici takes these without another copy. */
type Headers = Record<(typeof HTTP_METHODS)[Verb], string[]>;

function createHeaders(userAgent: string, credentials: Credentials): Headers {
  const { authorization, impersonateUser } = credentials;
  const common = [
    'accept',
    'application/json',
    'user-agent',
    userAgent,
    ...(authorization === undefined ? [] : ['authorization', authorization]),
    ...(impersonateUser === undefined ? [] : ['impersonate-user', impersonateUser]),
  ];
  return {
    GET: common,
    POST: [...common, 'content-type', 'application/json'],
    PATCH: [...common, 'content-type', 'application/merge-patch+json'],
    DELETE: [...common, 'content-type', 'application/json'],
  };
}

/** How long to wait at most, and what else ends the waiting. */
export interface DeadlineOptions {
  /** On the monotonic clock. */
  readonly deadlineMs: number;
  readonly clock: Clock;
  /** Aborting any of them ends it. */
  readonly signals: readonly (AbortSignal | undefined)[];
  /** Made into the rejection when the deadline comes first. */
  readonly onTimeout: () => Error;
  /** Made into the rejection when a signal comes first. */
  readonly onCancel: () => Error;
}

/**
 * What `work` settles to, unless the deadline or a signal comes first: `work` then goes on unheeded. Nothing is left with
 * the clock or the signals afterwards.
 */
export function withDeadline<T>(work: Promise<T>, options: DeadlineOptions): Promise<T> {
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
