import type { Row, RowManifest, RowObject, RowStatus } from '../core/row.ts';
import { GROUP_VERSION, ownResource } from './api-group.ts';
import type { ResourceClient } from './resource-client.ts';

/** A worker waits for it: no longer than for a write. */
const READ_TIMEOUT_MS = 10_000;

/** Where rows live: the resource that `crds/reversetunnels.yaml` defines. */
export function rowResource(namespace: string) {
  return ownResource('reversetunnels', namespace);
}

/**
 * The writes on rows as the API server takes them. A patch's precondition is the resourceVersion alone: a uid is
 * ignored by /status and refused by the main resource. A deletion's is both.
 */
export function createRowApi(client: ResourceClient<RowObject>) {
  return {
    create: ({ name, labels, spec }: RowManifest): Promise<RowObject> =>
      client.create({ apiVersion: GROUP_VERSION, kind: 'ReverseTunnel', metadata: { name, labels }, spec }),

    patch: (
      row: Row,
      change: { labels: Readonly<Record<string, string>>; createdAt: string | null },
    ): Promise<RowObject> =>
      client.patch(row.name, {
        metadata: { resourceVersion: row.resourceVersion, labels: change.labels },
        spec: { createdAt: change.createdAt },
      }),

    patchStatus: (row: Row, status: RowStatus): Promise<RowObject> =>
      client.patchStatus(row.name, { metadata: { resourceVersion: row.resourceVersion }, status }),

    delete: (row: Row): Promise<RowObject | undefined> =>
      client.delete(row.name, { uid: row.uid, resourceVersion: row.resourceVersion }),

    /** By a list, which needs no right beyond those that the watch needs. */
    async read(name: string): Promise<RowObject | undefined> {
      const { items } = await client.list({
        fieldSelector: `metadata.name=${name}`,
        timeoutMs: READ_TIMEOUT_MS,
      });
      return items[0];
    },
  };
}
