import { isDeepStrictEqual } from 'node:util';

/** A JSON object. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** The API server's knowledge of a kind. */
export interface ApiKind {
  readonly kind: string;
  readonly apiVersion: string;
  /** Undefined when the kind has no status subresource. */
  readonly defaultStatus: JsonObject | undefined;
  /** Returns the immutable part of a spec; undefined when all of it is mutable. */
  readonly identity: ((spec: JsonObject) => unknown) | undefined;
}

const PENDING = ['Connected', 'Synced', 'Ready'].map((type) => ({
  type,
  status: 'Unknown',
  reason: 'Pending',
  message: '',
  lastTransitionTime: '1970-01-01T00:00:00Z',
}));

/** The kinds that this project writes, by plural: those of `crds/`, Lease and Event. */
export const API_KINDS: Readonly<Record<string, ApiKind>> = {
  reversetunnels: {
    kind: 'ReverseTunnel',
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    defaultStatus: {
      conditions: [{ reason: 'Reported', status: 'True', type: 'Ready' }],
      state: 'Connected',
    },
    identity: (spec) => ({ ...spec, createdAt: undefined }),
  },
  reversetunnelreporters: {
    kind: 'ReverseTunnelReporter',
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    defaultStatus: { conditions: PENDING },
    identity: (spec) => spec,
  },
  leases: {
    kind: 'Lease',
    apiVersion: 'coordination.k8s.io/v1',
    defaultStatus: undefined,
    identity: undefined,
  },
  events: { kind: 'Event', apiVersion: 'events.k8s.io/v1', defaultStatus: undefined, identity: undefined },
};

/** Returns a copy with all fields in alphabetical order, as the API server writes them. */
export function sortFields<T>(value: T): T {
  if (Array.isArray(value)) return value.map((item: unknown) => sortFields(item)) as T;
  if (!isJsonObject(value)) return value;
  const fields = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(fields.map(([field, fieldValue]) => [field, sortFields(fieldValue)])) as T;
}

/** Applies a JSON merge patch (RFC 7386). */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isJsonObject(patch)) return patch;
  const merged: Record<string, unknown> = isJsonObject(target) ? { ...target } : {};
  for (const [field, value] of Object.entries(patch)) {
    if (value === null) delete merged[field];
    else merged[field] = mergePatch(merged[field], value);
  }
  return merged;
}

/** Reports whether a value is a JSON object; a list is not. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Reports whether a change of a spec violates its immutability. */
export function isImmutable({ identity }: ApiKind, before: JsonObject, after: JsonObject): boolean {
  return identity !== undefined && !isDeepStrictEqual(identity(before), identity(after));
}

const SUBDOMAIN = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/;
const LABEL_VALUE = /^(?:(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/;

/** Returns what is invalid about a name or labels; undefined when nothing is. */
export function metadataViolation(name: string, labels: JsonObject): string | undefined {
  if (name.length > 253 || !SUBDOMAIN.test(name)) return `metadata.name: Invalid value: "${name}"`;
  for (const value of Object.values(labels)) {
    if (typeof value !== 'string' || value.length > 63 || !LABEL_VALUE.test(value)) {
      return `metadata.labels: Invalid value: ${JSON.stringify(value)}`;
    }
  }
  return undefined;
}

/** A request as received. */
export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Path and query. */
  readonly path: string;
  readonly body?: string | undefined;
  /** The sender: a process, `kubectl` or `server`. */
  readonly actor: string;
}

/** An object as it is stored and returned. */
export interface ApiServerObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: ApiMetadata;
  readonly spec: JsonObject;
  readonly status?: JsonObject;
}

/** Metadata with its fields in alphabetical order. */
export interface ApiMetadata {
  readonly creationTimestamp: string;
  readonly deletionTimestamp?: string;
  readonly finalizers?: readonly string[];
  readonly labels?: JsonObject;
  readonly name: string;
  readonly namespace: string;
  readonly resourceVersion: string;
  readonly uid: string;
}

/** A change, as watches report it. */
export interface ApiChange {
  readonly resource: string;
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly version: number;
  readonly object: ApiServerObject;
  /** The object as JSON. */
  readonly text: string;
  readonly before: ApiServerObject | undefined;
  readonly actor: string;
}

/** A parsed path. */
export interface ApiPath {
  readonly resource: string;
  readonly namespace: string;
  readonly name: string | undefined;
  readonly status: boolean;
  readonly query: URLSearchParams;
}

/** Parses `/apis/<group>/<version>/namespaces/<namespace>/<plural>[/<name>[/status]][?query]`. */
export function parseApiPath(path: string): ApiPath {
  const [pathname = '', query] = path.split('?');
  const [, , , , , namespace = '', resource = '', name, subresource] = pathname.split('/');
  return {
    resource,
    namespace,
    name: name === undefined ? undefined : decodeURIComponent(name),
    status: subresource === 'status',
    query: new URLSearchParams(query),
  };
}

/** Parses a body; `{}` when there is none. */
export function parseBody(body: string | undefined): JsonObject {
  const value: unknown = JSON.parse(body ?? '{}');
  return isJsonObject(value) ? value : {};
}

/** The metadata that a write may set. */
export interface MetadataPatch {
  readonly name?: string;
  readonly generateName?: string;
  readonly labels?: JsonObject;
  readonly finalizers?: readonly string[] | null;
  readonly resourceVersion?: string;
}

/** Returns the metadata of a write. */
export function metadataOf(sent: JsonObject): MetadataPatch {
  return isJsonObject(sent['metadata']) ? sent['metadata'] : {};
}

/** Returns metadata with some fields replaced, in the field order of the API server. */
export function updateMetadata(
  before: ApiMetadata,
  changes: { deletionTimestamp?: string; finalizers?: readonly string[] | undefined; labels?: JsonObject },
): ApiMetadata {
  const { creationTimestamp, name, namespace, resourceVersion, uid } = before;
  const deletionTimestamp = changes.deletionTimestamp ?? before.deletionTimestamp;
  const finalizers = changes.finalizers ?? before.finalizers ?? [];
  const labels = changes.labels ?? before.labels ?? {};
  return {
    creationTimestamp,
    ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
    ...(finalizers.length === 0 ? {} : { finalizers }),
    ...(Object.keys(labels).length === 0 ? {} : { labels }),
    name,
    namespace,
    resourceVersion,
    uid,
  };
}
