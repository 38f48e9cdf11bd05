import type { Cluster } from '../cli/cluster.ts';
import { OPERATOR_RBAC_RULES, permissionsOf, type Permission } from '../k8s/rbac-rules.ts';
import type { PermissionInfo } from './inputs.ts';

/** The answer to either kind of review, as far as it is read. */
interface AccessReview {
  readonly status?: { readonly allowed?: boolean };
}

/**
 * One review a right: what may be done by wildcards, groups or another authorizer than RBAC counts too.
 *
 * @param serviceAccount undefined: the account that asks, which everybody may; of another only who may create
 *   SubjectAccessReviews
 */
export async function fetchPermissions(
  { client, namespace }: Cluster,
  serviceAccount: string | undefined,
): Promise<PermissionInfo[]> {
  const kind = serviceAccount === undefined ? 'SelfSubjectAccessReview' : 'SubjectAccessReview';
  const reviews = client.resource<AccessReview>({
    group: 'authorization.k8s.io',
    version: 'v1',
    plural: `${kind.toLowerCase()}s`,
  });
  const subject =
    serviceAccount === undefined
      ? {}
      : {
          user: serviceAccountUsername(namespace, serviceAccount),
          // What every ServiceAccount is in; a review adds none by itself, and rights bound to them would be missed.
          groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
        };
  return await Promise.all(
    permissionsOf(OPERATOR_RBAC_RULES).map(async (right) => {
      const { group, resource, verb, subresource } = right;
      const { status } = await reviews.create({
        apiVersion: 'authorization.k8s.io/v1',
        kind,
        spec: { ...subject, resourceAttributes: { namespace, group, resource, verb, subresource } },
      });
      return { permission: formatPermission(right), allowed: status?.allowed === true };
    }),
  );
}

/** As people write it and as `RightFacts` shows it: `patch reversetunnels/status.reverse-tunnel.io`. */
function formatPermission({ verb, group, resource, subresource }: Permission): string {
  return `${verb} ${resource}${subresource === undefined ? '' : `/${subresource}`}.${group}`;
}

/** As the API server calls a ServiceAccount. */
export function serviceAccountUsername(namespace: string, serviceAccount: string): string {
  return `system:serviceaccount:${namespace}:${serviceAccount}`;
}
