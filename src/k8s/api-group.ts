/** The API group of the kinds in `crds/`, and the version that this program reads and writes. */
export const API_GROUP = 'reverse-tunnel.io';
export const API_VERSION = 'v1alpha1';

/** What stands in `apiVersion` of each object. */
export const GROUP_VERSION = `${API_GROUP}/${API_VERSION}`;

/** A kind of that group by its plural, in a namespace. */
export function customResource<P extends string>(plural: P, namespace: string) {
  return { group: API_GROUP, version: API_VERSION, plural, namespace } as const;
}
