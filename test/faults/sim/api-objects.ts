import { isJsonObject, type JsonObject } from './api-kinds.ts';

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
