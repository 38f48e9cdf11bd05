import type { Clock } from '../clock.ts';
import { HTTP_METHODS, type Call, type Verb } from './call.ts';
import { ApiError, errorOfAnswer, errorOfTransport, isTrustFailure } from './api-error.ts';
import type { ResourceType } from './api-object.ts';
import type { Connection } from './connection.ts';
import type { Credentials } from './credentials.ts';
import { StreamReaderError, type HttpAnswer, type HttpRequest } from './exchange.ts';
import { createResourceClient, readDocument, type ResourceClient } from './resource-client.ts';
import { resourcePath } from './resource-path.ts';
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
}

/** A client of one API server. */
export interface ApiClient {
  /** A client for one resource; cheap, but meant to be kept. `T` is what its objects are taken to be, unchecked. */
  resource<T>(resource: ResourceType): ResourceClient<T>;
  /** What the API server answers to a GET of a path of its own that is no resource, as `/version`; `T` unchecked. */
  document<T>(path: string): Promise<T>;
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
  let headersFor: { credentials: Credentials; headers: Headers } | undefined;
  let closed = false;

  function headers(current: Credentials): Headers {
    if (headersFor?.credentials !== current) {
      // Made once for all calls by the same credentials, and checked for bad characters by undici alone.
      headersFor = { credentials: current, headers: createHeaders(options.userAgent, current) };
    }
    return headersFor.headers;
  }

  /** One request and its answer, whatever its status. Rejects with `ApiError`, or with what a watch's reader threw. */
  async function attempt(call: Call, current: Credentials): Promise<HttpAnswer> {
    const { verb, onOpen } = call;
    let observed = false;
    function observe(code: string): void {
      if (observed) return;
      observed = true;
      onRequest?.({ verb, code });
    }
    const request: HttpRequest = {
      method: HTTP_METHODS[verb],
      path: call.path,
      headers: headers(current)[HTTP_METHODS[verb]],
      body: call.body,
      timeoutMs: call.timeoutMs,
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
      const answer = await transport.send(request, current);
      observe(String(answer.status));
      return answer;
    } catch (error) {
      observe('<error>');
      if (error instanceof StreamReaderError) throw error.cause;
      // Its pools were destroyed under the call: undici's words for that would look like a fault.
      if (closed)
        throw new ApiError('cancelled', `${call.action()}: the client was closed`, { cause: error });
      // CA or client certificate may have been rotated: the next call is to have the new one.
      if (isTrustFailure(error)) await credentials.refresh().catch(() => undefined);
      throw errorOfTransport(call.action(), error);
    }
  }

  /** The text of a 2xx answer, after a second try with new credentials where the first were refused. */
  async function send(call: Call): Promise<string> {
    if (closed) throw new ApiError('cancelled', `${call.action()}: the client is closed`);
    const now = credentials.current();
    // Hardly ever a promise: a write waits for no turn of the event loop it does not need.
    let answer = await attempt(call, now instanceof Promise ? await now : now);
    if (answer.status === 401) {
      // Also when they turn out the same: an API server that cannot reach its own verifier answers 401, too.
      await renew(call);
      answer = await attempt(call, await credentials.current());
    }
    if (answer.status < 200 || answer.status > 299) throw errorOfAnswer(call.action(), answer);
    return answer.text;
  }

  async function renew(call: Call): Promise<void> {
    try {
      await credentials.refresh();
    } catch (error) {
      const said = error instanceof Error ? error.message : String(error);
      throw new ApiError('unauthorized', `${call.action()}: 401, and no new credentials: ${said}`, {
        status: 401,
        cause: error,
      });
    }
  }

  return {
    resource: <T>(resource: ResourceType) =>
      createResourceClient<T>(resourcePath(connection.server.pathname, resource), send),
    document: <T>(path: string) =>
      readDocument<T>(`${connection.server.pathname.replace(/\/+$/, '')}${path}`, send),
    connectionsOpened: () => transport.connectionsOpened(),
    close() {
      closed = true;
      return transport.close();
    },
  };
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
