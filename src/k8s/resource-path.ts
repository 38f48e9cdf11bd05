import type { ResourceType } from './api-object.ts';

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
