import { isObject, type Json } from './api-kinds.ts';

/** A request as it comes over the wire. */
export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Path and query. */
  readonly path: string;
  readonly body?: string | undefined;
  /** Who sent it: a process, or `hand`. */
  readonly by: string;
}

/** An object as it is stored and shown. */
export interface ApiObjectShown {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: ApiMetadata;
  readonly spec: Json;
  readonly status?: Json;
}

/** Metadata, its fields in the order of the alphabet. */
export interface ApiMetadata {
  readonly creationTimestamp: string;
  readonly deletionTimestamp?: string;
  readonly finalizers?: readonly string[];
  readonly labels?: Json;
  readonly name: string;
  readonly namespace: string;
  readonly resourceVersion: string;
  readonly uid: string;
}

/** One change, as watches show it. */
export interface ApiChange {
  readonly resource: string;
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly version: number;
  readonly object: ApiObjectShown;
  /** The object as JSON. */
  readonly text: string;
  readonly before: ApiObjectShown | undefined;
  readonly by: string;
}

/** A path taken apart. */
export interface ApiPath {
  readonly resource: string;
  readonly namespace: string;
  readonly name: string | undefined;
  readonly status: boolean;
  readonly query: URLSearchParams;
}

/** Takes `/apis/<group>/<version>/namespaces/<namespace>/<plural>[/<name>[/status]][?query]` apart. */
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

/** A body as an object; `{}` for none. */
export function parsedBody(body: string | undefined): Json {
  const value: unknown = JSON.parse(body ?? '{}');
  return isObject(value) ? value : {};
}

/** What a write may say of metadata. */
export interface SentMetadata {
  readonly name?: string;
  readonly generateName?: string;
  readonly labels?: Json;
  readonly finalizers?: readonly string[] | null;
  readonly resourceVersion?: string;
}

/** The metadata that a write says. */
export function metadataOf(sent: Json): SentMetadata {
  return isObject(sent['metadata']) ? sent['metadata'] : {};
}

/** Metadata with some parts changed, its fields in the order in which the API server writes them. */
export function withParts(
  before: ApiMetadata,
  parts: { deletionTimestamp?: string; finalizers?: readonly string[] | undefined; labels?: Json },
): ApiMetadata {
  const { creationTimestamp, name, namespace, resourceVersion, uid } = before;
  const deletionTimestamp = parts.deletionTimestamp ?? before.deletionTimestamp;
  const finalizers = parts.finalizers ?? before.finalizers ?? [];
  const labels = parts.labels ?? before.labels ?? {};
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
