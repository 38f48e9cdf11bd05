import { ApiError, isKubernetesStatus, type KubernetesStatus } from './api-error.ts';

/** The metadata of every Kubernetes object that this directory reads. */
export interface ApiObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
  };
}

/** A resource and its namespace, as in the API server's paths. */
export interface ResourceType {
  /** API group; empty for the core group. */
  readonly group: string;
  readonly version: string;
  /** Lower-case plural, as in `reversetunnels`. */
  readonly plural: string;
  /** Absent for cluster-scoped resources. */
  readonly namespace?: string;
}

/** Path and display name of a resource. */
export interface ResourcePath {
  /** Path of the collection, without a query. */
  readonly collection: string;
  /** As in `kubectl`, followed by the namespace: `reversetunnels.reverse-tunnel.io in default`. */
  readonly title: string;
}

/**
 * Returns the path of a resource.
 *
 * @param base path of the server's URL: empty, or the prefix of a gateway in front of several clusters
 */
export function resourcePath(base: string, resource: ResourceType): ResourcePath {
  const { group, version, plural, namespace } = resource;
  const api = group === '' ? `/api/${version}` : `/apis/${group}/${version}`;
  const scope = namespace === undefined ? '' : `/namespaces/${encodeURIComponent(namespace)}`;
  const qualified = group === '' ? plural : `${plural}.${group}`;
  return {
    collection: `${base.replace(/\/+$/, '')}${api}${scope}/${plural}`,
    title: namespace === undefined ? qualified : `${qualified} in ${namespace}`,
  };
}

/** Returns `path` with the defined parameters as its query. */
function withQuery(
  path: string,
  parameters: Readonly<Record<string, string | number | boolean | undefined>>,
): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined) query.set(name, String(value));
  }
  return query.size === 0 ? path : `${path}?${query.toString()}`;
}

/** A verb, as in Kubernetes' audit log and metrics. */
export type Verb = 'get' | 'list' | 'watch' | 'create' | 'patch' | 'delete';

/** HTTP method of each verb. */
export const HTTP_METHODS = {
  get: 'GET',
  list: 'GET',
  watch: 'GET',
  create: 'POST',
  patch: 'PATCH',
  delete: 'DELETE',
} as const satisfies Record<Verb, string>;

/** A call without its headers. */
export interface Call {
  readonly verb: Verb;
  /** Path and query, without the API server's deadline, which is derived from `timeoutMs`. */
  readonly path: string;
  readonly body?: string;
  /** Returns the verb and object for error messages; called only on failure. */
  readonly action: () => string;
  /**
   * Limit for the whole call: fetching credentials, waiting for a connection, the retry after a 401, the complete
   * response.
   */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly onChunk?: ((chunk: Buffer) => void) | undefined;
  readonly onOpen?: (() => void) | undefined;
}

/** Options of one call. */
export interface CallOptions {
  /** Limit until the complete response; for a watch, until it is open. Default 10,000 ms, for lists 30,000 ms. */
  readonly timeoutMs?: number;
  /** Aborting it ends the call with kind `cancelled`. */
  readonly signal?: AbortSignal;
}

/** Which objects are listed or watched; undefined: all. */
interface Selection {
  /** As in `metadata.name=a` or `spec.tenantID=acme`. */
  readonly fieldSelector?: string | undefined;
  /** As in `app=a,tier in (b,c)`. */
  readonly labelSelector?: string | undefined;
}

/** Selection and paging of a list. */
export interface ListOptions extends CallOptions, Selection {
  /** Maximum objects per page; absent for a single page. */
  readonly limit?: number;
  /** `continueToken` of the previous page. */
  readonly continueToken?: string;
  /** Lists the objects as of this version of the store; not with `continueToken`, which contains it. Default: now. */
  readonly atVersion?: string | undefined;
}

/** A page of a list. */
export interface ListPage<T> {
  readonly items: readonly T[];
  /** Version of the store that the page shows; equal for all pages of a list. */
  readonly resourceVersion: string;
  /** Token of the next page; undefined on the last page. */
  readonly continueToken: string | undefined;
}

/** Start, duration and selection of a watch. */
export interface WatchOptions extends CallOptions, Selection {
  /** The watch delivers changes after this version of a list or an event. */
  readonly resourceVersion: string;
  /** The API server ends the watch after this time. */
  readonly timeoutSeconds: number;
}

/** Receives a watch. An error that it throws ends the watch, which rejects with it. */
export interface WatchSink {
  /** Called when the API server has accepted the watch. */
  onOpen(): void;
  /** Called with the bytes received: JSON documents, each terminated by a line feed. */
  onChunk(chunk: Buffer): void;
}

/** The exact object and version to delete; a mismatch is a conflict. */
export interface Preconditions {
  readonly uid: string;
  readonly resourceVersion: string;
}

/**
 * Calls on one resource. Each rejects with `ApiError` and passes its deadline on, so that the API server gives up
 * before its client does and does not complete a write after the timeout.
 */
export interface ResourceClient<T> {
  /** Display name: `reversetunnels.reverse-tunnel.io in default`. */
  readonly title: string;
  get(name: string, options?: CallOptions): Promise<T>;
  /** Returns one page, consistent with every write answered before. */
  list(options?: ListOptions): Promise<ListPage<T>>;
  /** Resolves when the API server ends the watch. */
  watch(options: WatchOptions, sink: WatchSink): Promise<void>;
  /** Creates `object`, which needs apiVersion, kind and metadata.name or generateName. */
  create(object: object, options?: CallOptions): Promise<T>;
  /** Sends a merge patch. Its metadata.resourceVersion is a precondition; its metadata.uid is not. */
  patch(name: string, patch: object, options?: CallOptions): Promise<T>;
  /** Sends a merge patch of the status subresource. */
  patchStatus(name: string, patch: object, options?: CallOptions): Promise<T>;
  /** Resolves with the object if it still exists, waiting for finalizers, and with undefined if it is gone. */
  delete(name: string, preconditions: Preconditions, options?: CallOptions): Promise<T | undefined>;
}

/**
 * Without it, the API server also looks for unknown fields in order to warn about them, which costs it about 5 % of a
 * create. It drops them in either case.
 */
const WRITE_QUERY = '?fieldValidation=Ignore';
/** Writes take milliseconds. The API server's own limit of 60 s is too long for a worker to wait. */
const DEFAULT_TIMEOUT_MS = 10_000;
/** A page of 2,000 objects takes 0.3 s, and ten times as long on a busy API server. */
const LIST_TIMEOUT_MS = 30_000;

/**
 * Creates the client of one resource.
 *
 * @param send resolves with the body of a 2xx response
 */
export function createResourceClient<T>(
  { collection, title }: ResourcePath,
  send: (call: Call) => Promise<string>,
): ResourceClient<T> {
  function objectPath(name: string, subresource = ''): string {
    return `${collection}/${encodeURIComponent(name)}${subresource}`;
  }

  // The content is trusted from here on: the API server has validated it against the CRD's schema.
  async function call<A>(
    verb: Verb,
    path: string,
    name: string | undefined,
    options: CallOptions | undefined,
    body?: object,
  ): Promise<A> {
    const timeoutMs = options?.timeoutMs ?? (verb === 'list' ? LIST_TIMEOUT_MS : DEFAULT_TIMEOUT_MS);
    return await sendJson<A>(
      send,
      {
        verb,
        path,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        action: () => (name === undefined ? `${verb} ${title}` : `${verb} ${title} ${name}`),
        timeoutMs,
        signal: options?.signal,
      },
      true,
    );
  }

  return {
    title,

    get: (name, options) => call<T>('get', objectPath(name), name, options),

    async list(options = {}) {
      const { limit, continueToken, fieldSelector, labelSelector, atVersion } = options;
      const query = {
        limit,
        continue: continueToken,
        fieldSelector,
        labelSelector,
        resourceVersion: atVersion,
        resourceVersionMatch: atVersion === undefined ? undefined : 'Exact',
      };
      const response = await call<ListResponse<T>>('list', withQuery(collection, query), undefined, options);
      return toListPage(`list ${title}`, response);
    },

    async watch({ resourceVersion, timeoutSeconds, timeoutMs, signal, ...selection }, sink) {
      const { fieldSelector, labelSelector } = selection;
      await send({
        verb: 'watch',
        path: withQuery(collection, {
          watch: 1,
          allowWatchBookmarks: true,
          resourceVersion,
          timeoutSeconds,
          fieldSelector,
          labelSelector,
        }),
        action: () => `watch ${title}`,
        timeoutMs: timeoutMs ?? DEFAULT_TIMEOUT_MS,
        signal,
        onChunk: (chunk) => sink.onChunk(chunk),
        onOpen: () => sink.onOpen(),
      });
    },

    create(object, options) {
      const { name } = (object as { metadata?: { name?: string } }).metadata ?? {};
      return call<T>('create', collection + WRITE_QUERY, name, options, object);
    },

    patch: (name, patch, options) => call<T>('patch', objectPath(name) + WRITE_QUERY, name, options, patch),

    patchStatus: (name, patch, options) =>
      call<T>('patch', objectPath(name, '/status') + WRITE_QUERY, name, options, patch),

    async delete(name, { uid, resourceVersion }, options) {
      const response = await call<T | KubernetesStatus>('delete', objectPath(name), name, options, {
        kind: 'DeleteOptions',
        apiVersion: 'v1',
        preconditions: { uid, resourceVersion },
      });
      return isKubernetesStatus(response) ? undefined : response;
    },
  };
}

/** Reads one object. Resolves with undefined if it does not exist; rejects with `ApiError` for any other failure. */
export async function getIfExists<T>(
  client: Pick<ResourceClient<T>, 'get'>,
  name: string,
  options?: CallOptions,
): Promise<T | undefined> {
  try {
    return await client.get(name, options);
  } catch (error) {
    if (error instanceof ApiError && error.kind === 'not_found') return undefined;
    throw error;
  }
}

/** Sends a GET for a path that is not a resource. Rejects with `ApiError`. */
export async function getRaw<T>(path: string, send: (call: Call) => Promise<string>): Promise<T> {
  const action = (): string => `get ${path}`;
  return await sendJson<T>(send, { verb: 'get', path, action, timeoutMs: DEFAULT_TIMEOUT_MS }, false);
}

/**
 * Sends a call and parses its response.
 *
 * @param expectsObject whether it must be a Kubernetes object, which always has a kind, and not just any JSON of a
 *   login page
 */
async function sendJson<A>(
  send: (call: Call) => Promise<string>,
  call: Call,
  expectsObject: boolean,
): Promise<A> {
  const text = await send(call);
  try {
    const parsed: A = JSON.parse(text);
    if (typeof parsed === 'object' && parsed !== null && (!expectsObject || 'kind' in parsed)) return parsed;
  } catch {
    // Reported below with the beginning of the response.
  }
  const excerpt = text.slice(0, 80);
  throw new ApiError(
    'unexpected_response',
    `${call.action()}: unexpected response (not from an API server?): ${excerpt}`,
  );
}

interface ListResponse<T> {
  items?: T[];
  metadata?: { resourceVersion?: string; continue?: string };
}

function toListPage<T>(action: string, response: ListResponse<T>): ListPage<T> {
  const { items, metadata } = response;
  const resourceVersion = metadata?.resourceVersion;
  // The only response that is validated here, because a list without a version could not be watched.
  if (!Array.isArray(items) || resourceVersion === undefined || resourceVersion === '') {
    throw new ApiError('unexpected_response', `${action}: list without items or resourceVersion`);
  }
  const token = metadata?.continue;
  return { items, resourceVersion, continueToken: token === '' ? undefined : token };
}
