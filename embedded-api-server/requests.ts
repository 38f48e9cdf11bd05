import { isJsonObject, type JsonObject } from './objects.ts';

/** A request as received. */
export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Path and query. */
  readonly path: string;
  readonly body?: string | undefined;
  /** The sender: a process, `kubectl` or `server`. */
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
