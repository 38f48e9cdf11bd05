import { isJsonObject, type JsonObject } from './objects.ts';

/** A request as received. */
export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Path and query. */
  readonly path: string;
  /** JSON. A PATCH contains a merge patch (RFC 7386). */
  readonly body?: string | undefined;
  /** The sender: a process, `kubectl` or `server`. */
  readonly actor: string;
}

/** A parsed path. */
export interface ApiPath {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  /** The plural of the kind. */
  readonly resource: string;
  /** Undefined for kinds without namespaces, and for all namespaces. */
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  /** Whether the path is that of the status subresource. */
  readonly status: boolean;
  readonly query: URLSearchParams;
}

/**
 * Parses `/apis/<group>/<version>[/namespaces/<namespace>]/<plural>[/<name>[/status]][?query]`; `/api/v1` instead of
 * `/apis/<group>/<version>` in the core group.
 */
export function parseApiPath(path: string): ApiPath {
  const [pathname = '', query] = path.split('?');
  const [, root, ...segments] = pathname.split('/').map((segment) => decodeURIComponent(segment));
  const group = root === 'apis' ? (segments.shift() ?? '') : '';
  const version = segments.shift() ?? '';
  let namespace: string | undefined;
  // Otherwise `namespaces` is the resource.
  if (segments[0] === 'namespaces' && segments.length > 2 && segments[2] !== 'status') {
    namespace = segments[1];
    segments.splice(0, 2);
  }
  const [resource = '', name, subresource] = segments;
  return {
    group,
    version,
    resource,
    namespace,
    name,
    status: subresource === 'status',
    query: new URLSearchParams(query),
  };
}

/** Parses a body; `{}` when there is none. */
export function parseBody(body: string | undefined): JsonObject {
  const value: unknown = JSON.parse(body === undefined || body === '' ? '{}' : body);
  return isJsonObject(value) ? value : {};
}
