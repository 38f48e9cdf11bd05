import { ApiError, isKubernetesStatus, type KubernetesStatus } from './api-error.ts';

/** The part of every Kubernetes object that this folder reads. The rest is its owner's business. */
export interface ApiObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
  };
}

/** A kind as the API server's paths name it. */
export interface ResourceType {
  /** API group; empty for the core group. */
  readonly group: string;
  readonly version: string;
  /** Lower-case plural, as in `reversetunnels`. */
  readonly plural: string;
  /** Left out for kinds without namespace. */
  readonly namespace?: string;
}

/** Where the objects of a resource are, and how messages call it. */
export interface ResourcePath {
  /** Path of the collection, without a query. */
  readonly collection: string;
  /** As `kubectl` takes it, with the namespace: `reversetunnels.reverse-tunnel.io in default`. */
  readonly title: string;
}

/** @param base path of the server's URL: empty, or the prefix of a gateway in front of several clusters */
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

/** `path` with those parameters that are defined. */
export function withQuery(
  path: string,
  parameters: Readonly<Record<string, string | number | boolean | undefined>>,
): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined) query.set(name, String(value));
  }
  return query.size === 0 ? path : `${path}?${query.toString()}`;
}

/** What is done, as Kubernetes and its metrics name it. */
export type Verb = 'get' | 'list' | 'watch' | 'create' | 'patch' | 'delete';

/** The HTTP method that each is sent as. */
export const HTTP_METHODS = {
  get: 'GET',
  list: 'GET',
  watch: 'GET',
  create: 'POST',
  patch: 'PATCH',
  delete: 'DELETE',
} as const satisfies Record<Verb, string>;

/** One call, ready to be sent but for the headers. */
export interface Call {
  readonly verb: Verb;
  /** With its query, but for the API server's own deadline, which is what is left of `timeoutMs`. */
  readonly path: string;
  readonly body?: string;
  /** For messages: what is done to which object. Asked for only when it fails. */
  readonly action: () => string;
  /** For all of it: fetching credentials, waiting for a connection, a second try after 401, the whole answer. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly onChunk?: ((chunk: Buffer) => void) | undefined;
  readonly onOpen?: (() => void) | undefined;
}

/** Applies to one call. */
export interface CallOptions {
  /** Until the whole answer has come; a watch: until it is open. Default 10,000, for lists 30,000. */
  readonly timeoutMs?: number;
  /** Aborting it ends the call with consequence `cancelled`. */
  readonly signal?: AbortSignal;
}

/** Which objects, and how many at a time. */
export interface ListOptions extends CallOptions {
  /** Most items a page; left out: all in one. */
  readonly limit?: number;
  /** `continueToken` of the page before. */
  readonly continueToken?: string;
  /** As in `metadata.name=a` or `spec.tenantID=acme`. */
  readonly fieldSelector?: string;
}

/** A page of a list, or all of it. */
export interface ListPage<T> {
  readonly items: readonly T[];
  /** Version of the store that this page shows; the same for all pages of a list. */
  readonly resourceVersion: string;
  /** Asks for the next page; undefined on the last. */
  readonly continueToken: string | undefined;
}

/** From when to when to watch. */
export interface WatchOptions extends CallOptions {
  /** Changes after this version, from a list or an earlier event. */
  readonly resourceVersion: string;
  /** After this the API server ends the watch. */
  readonly timeoutSeconds: number;
}

/** Takes what a watch brings. What it throws ends the watch, which then rejects with it. */
export interface WatchSink {
  /** The API server has accepted the watch. */
  onOpen(): void;
  /** Bytes as they come: JSON documents, each ended by a line feed. */
  onChunk(chunk: Buffer): void;
}

/** Exactly this object at exactly this version, or the deletion is a conflict. */
export interface Preconditions {
  readonly uid: string;
  readonly resourceVersion: string;
}

/**
 * The calls on one resource. Each rejects with `ApiError`, and sends its own deadline along, so that the API server gives
 * up before its client does and a write that timed out was not made a moment later.
 */
export interface ResourceClient<T> {
  /** For messages: `reversetunnels.reverse-tunnel.io in default`. */
  readonly title: string;
  get(name: string, options?: CallOptions): Promise<T>;
  /** One page, consistent with every write answered before. */
  list(options?: ListOptions): Promise<ListPage<T>>;
  /** Resolves when the API server ends the watch. */
  watch(options: WatchOptions, sink: WatchSink): Promise<void>;
  /** `object` needs apiVersion, kind and metadata.name or generateName. */
  create(object: object, options?: CallOptions): Promise<T>;
  /** A merge patch. metadata.resourceVersion in it is the precondition; metadata.uid is none. */
  patch(name: string, patch: object, options?: CallOptions): Promise<T>;
  /** A merge patch of the status alone. */
  patchStatus(name: string, patch: object, options?: CallOptions): Promise<T>;
  /** Resolves with the object when it still stands, waiting for finalizers, and with undefined when it is gone. */
  delete(name: string, preconditions: Preconditions, options?: CallOptions): Promise<T | undefined>;
}

/** Writes take milliseconds; the API server's own limit is 60 s, too long for a worker to stand still. */
const DEFAULT_TIMEOUT_MS = 10_000;
/** A page of 2,000 rows takes 0.3 s, and ten times as long from a busy API server. */
const LIST_TIMEOUT_MS = 30_000;

/** Makes the calls of one resource out of `send`, which resolves with the text of a 2xx answer. */
export function createResourceClient<T>(
  { collection, title }: ResourcePath,
  send: (call: Call) => Promise<string>,
): ResourceClient<T> {
  function objectPath(name: string, subresource = ''): string {
    return `${collection}/${encodeURIComponent(name)}${subresource}`;
  }

  // What an answer holds is taken on trust from here on: the API server has checked it against the CRD's schema.
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
      const { limit, continueToken, fieldSelector } = options;
      const query = { limit, continue: continueToken, fieldSelector };
      const response = await call<ListResponse<T>>('list', withQuery(collection, query), undefined, options);
      return toListPage(`list ${title}`, response);
    },

    async watch({ resourceVersion, timeoutSeconds, timeoutMs, signal }, sink) {
      await send({
        verb: 'watch',
        path: withQuery(collection, {
          watch: 1,
          allowWatchBookmarks: true,
          resourceVersion,
          timeoutSeconds,
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
      return call<T>('create', collection, name, options, object);
    },

    patch: (name, patch, options) => call<T>('patch', objectPath(name), name, options, patch),

    patchStatus: (name, patch, options) =>
      call<T>('patch', objectPath(name, '/status'), name, options, patch),

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

/** A GET of `path`, which is no resource's, by `send`. Rejects with `ApiError`. */
export async function getRaw<T>(path: string, send: (call: Call) => Promise<string>): Promise<T> {
  const action = (): string => `get ${path}`;
  return await sendJson<T>(send, { verb: 'get', path, action, timeoutMs: DEFAULT_TIMEOUT_MS }, false);
}

/** @param expectsObject it has to be one of Kubernetes, which all say their kind, and not just any JSON of a login page */
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
    // Said below, with what came instead.
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
  // The one answer that is read here rather than by the caller, and a list without version could not be watched.
  if (!Array.isArray(items) || resourceVersion === undefined || resourceVersion === '') {
    throw new ApiError('unexpected_response', `${action}: list without items or resourceVersion`);
  }
  const token = metadata?.continue;
  return { items, resourceVersion, continueToken: token === '' ? undefined : token };
}
