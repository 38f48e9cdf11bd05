import { API_GROUP } from './resources.ts';

/** A rule of an RBAC Role. */
export interface RbacRule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

/**
 * Permissions of the operator in its namespace: exactly what it uses. This is the single list: tests run the operator
 * with exactly these permissions, `doctor` checks each of them, and `docs/operations.md` and the chart's Role are
 * compared with it. The permissions depend on no flag, except for `TOKEN_RBAC_RULES`.
 */
export const OPERATOR_RBAC_RULES: readonly RbacRule[] = [
  {
    apiGroups: [API_GROUP],
    resources: ['reversetunnels'],
    verbs: ['list', 'watch', 'create', 'patch', 'delete'],
  },
  {
    apiGroups: [API_GROUP],
    resources: ['reversetunnelreporters'],
    verbs: ['get', 'list', 'watch', 'create', 'delete'],
  },
  {
    apiGroups: [API_GROUP],
    resources: ['reversetunnels/status', 'reversetunnelreporters/status', 'reversetunnelpolicies/status'],
    verbs: ['patch'],
  },
  { apiGroups: [API_GROUP], resources: ['reversetunnelpolicies'], verbs: ['list', 'watch'] },
  { apiGroups: [API_GROUP], resources: ['reversetunnelexpectations'], verbs: ['list', 'watch'] },
  { apiGroups: [API_GROUP], resources: ['reversetunnelexpectations/status'], verbs: ['patch'] },
  {
    apiGroups: [API_GROUP],
    resources: ['reversetunnelslices'],
    verbs: ['list', 'watch', 'create', 'patch', 'delete'],
  },
  { apiGroups: [API_GROUP], resources: ['reversetunnelslices/status'], verbs: ['patch'] },
  {
    apiGroups: ['coordination.k8s.io'],
    resources: ['leases'],
    verbs: ['get', 'list', 'watch', 'create', 'patch', 'delete'],
  },
  { apiGroups: ['events.k8s.io'], resources: ['events'], verbs: ['create'] },
];

/** Cluster-wide permissions, needed only with `--auth token` and `mtls-or-token`. */
export const TOKEN_RBAC_RULES: readonly RbacRule[] = [
  { apiGroups: ['authentication.k8s.io'], resources: ['tokenreviews'], verbs: ['create'] },
];

/** One verb on one resource. */
export interface Permission {
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  /** Undefined for the resource itself. */
  readonly subresource: string | undefined;
}

/** Returns the single permissions of `rules`, in the form of access reviews. */
export function permissionsOf(rules: readonly RbacRule[]): Permission[] {
  return rules.flatMap(({ apiGroups, resources, verbs }) =>
    apiGroups.flatMap((group) =>
      resources.flatMap((path) => {
        const [resource = path, subresource] = path.split('/');
        return verbs.map((verb) => ({ verb, group, resource, subresource }));
      }),
    ),
  );
}
