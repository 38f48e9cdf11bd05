import type {
  ObservedTunnel,
  TunnelManifest,
  TunnelObject,
  TunnelObjectStatus,
} from '../core/tunnel-object.ts';
import { GROUP_VERSION, customResource } from './api-group.ts';
import type { ResourceClient } from './resource-client.ts';

/** A worker waits for it: no longer than for a write. */
const READ_TIMEOUT_MS = 10_000;

/** Where rows live: the resource that `crds/reversetunnels.yaml` defines. */
export function tunnelResource(namespace: string) {
  return customResource('reversetunnels', namespace);
}

/**
 * The writes on rows as the API server takes them. A patch's precondition is the resourceVersion alone: a uid is
 * ignored by /status and refused by the main resource. A deletion's is both.
 */
export function createTunnelApi(client: ResourceClient<TunnelObject>) {
  return {
    create: ({ name, labels, spec }: TunnelManifest): Promise<TunnelObject> =>
      client.create({ apiVersion: GROUP_VERSION, kind: 'ReverseTunnel', metadata: { name, labels }, spec }),

    patch: (
      object: ObservedTunnel,
      change: { labels: Readonly<Record<string, string>>; createdAt: string | null },
    ): Promise<TunnelObject> =>
      client.patch(object.name, {
        metadata: { resourceVersion: object.resourceVersion, labels: change.labels },
        spec: { createdAt: change.createdAt },
      }),

    patchStatus: (object: ObservedTunnel, status: TunnelObjectStatus): Promise<TunnelObject> =>
      client.patchStatus(object.name, { metadata: { resourceVersion: object.resourceVersion }, status }),

    delete: (object: ObservedTunnel): Promise<TunnelObject | undefined> =>
      client.delete(object.name, { uid: object.uid, resourceVersion: object.resourceVersion }),

    /** By a list, which needs no right beyond those that the watch needs. */
    async read(name: string): Promise<TunnelObject | undefined> {
      const { items } = await client.list({
        fieldSelector: `metadata.name=${name}`,
        timeoutMs: READ_TIMEOUT_MS,
      });
      return items[0];
    },
  };
}
