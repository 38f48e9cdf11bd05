import type { ReporterObject, ReporterStatusPatch } from '../core/reporter-object.ts';
import { MANAGED_BY_LABELS } from '../core/labels.ts';
import { ApiError } from './api-error.ts';
import { GROUP_VERSION, customResource } from './api-group.ts';
import type { ResourceClient } from './resource-client.ts';

/** Argo CD is not to look at an Application again for each change of an object that is in none. Rows go without: see decision 7. */
const ARGOCD_ANNOTATIONS = { 'argocd.argoproj.io/ignore-resource-updates': 'true' };

/** Where reporters' objects live: the resource that `crds/reversetunnelreporters.yaml` defines. */
export function reporterResource(namespace: string) {
  return customResource('reversetunnelreporters', namespace);
}

/** The calls on reporters' objects as the API server takes them. */
export function createReporterApi(client: ResourceClient<ReporterObject>) {
  return {
    create: (name: string, spec: ReporterObject['spec']): Promise<ReporterObject> =>
      client.create({
        apiVersion: GROUP_VERSION,
        kind: 'ReverseTunnelReporter',
        metadata: { name, labels: MANAGED_BY_LABELS, annotations: ARGOCD_ANNOTATIONS },
        spec,
      }),

    patchStatus: (
      name: string,
      resourceVersion: string,
      status: ReporterStatusPatch,
    ): Promise<ReporterObject> => client.patchStatus(name, { metadata: { resourceVersion }, status }),

    /** By a GET, which the API server answers from etcd's quorum: what it shows is not older than the request. */
    async read(name: string): Promise<ReporterObject | undefined> {
      try {
        return await client.get(name);
      } catch (error) {
        if (error instanceof ApiError && error.kind === 'not_found') return undefined;
        throw error;
      }
    },

    delete: (name: string, uid: string, resourceVersion: string): Promise<ReporterObject | undefined> =>
      client.delete(name, { uid, resourceVersion }),
  };
}
