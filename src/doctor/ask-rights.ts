import type { Cluster } from '../inspect/cluster.ts';
import { OPERATOR_RULES, rightsOf, type Right } from '../k8s/rights.ts';
import type { RightFacts } from './facts.ts';

interface AccessReview {
  readonly status?: { readonly allowed?: boolean };
}

/** One review a right: what may be done by wildcards, groups or another authorizer than RBAC counts too. */
export async function askRights(
  { client, namespace }: Cluster,
  serviceAccount: string | undefined,
): Promise<RightFacts[]> {
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
          user: accountName(namespace, serviceAccount),
          groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
        };
  return await Promise.all(
    rightsOf(OPERATOR_RULES).map(async (right) => {
      const { group, resource, verb, subresource } = right;
      const { status } = await reviews.create({
        apiVersion: 'authorization.k8s.io/v1',
        kind,
        spec: { ...subject, resourceAttributes: { namespace, group, resource, verb, subresource } },
      });
      return { right: rightText(right), allowed: status?.allowed === true };
    }),
  );
}

function rightText({ verb, group, resource, subresource }: Right): string {
  return `${verb} ${resource}${subresource === undefined ? '' : `/${subresource}`}.${group}`;
}

/** As the API server calls a ServiceAccount. */
export function accountName(namespace: string, serviceAccount: string): string {
  return `system:serviceaccount:${namespace}:${serviceAccount}`;
}
