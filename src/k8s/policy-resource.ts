import type { PolicyObject, PolicyStatus } from '../core/policy-object.ts';
import { customResource } from './api-group.ts';
import type { ResourceClient } from './resource-client.ts';

/** Where policies live: the resource that `crds/reversetunnelpolicies.yaml` defines. */
export function policyResource(namespace: string) {
  return customResource('reversetunnelpolicies', namespace);
}

/** The one write on policies: they are people's, and only their status is the operator's. */
export function createPolicyApi(client: ResourceClient<PolicyObject>) {
  return {
    patchStatus: (name: string, resourceVersion: string, status: PolicyStatus): Promise<PolicyObject> =>
      client.patchStatus(name, { metadata: { resourceVersion }, status }),
  };
}
