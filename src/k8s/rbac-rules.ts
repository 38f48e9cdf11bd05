import { API_GROUP } from './resources.ts';

/** A rule of a Role, as RBAC has it. */
export interface RbacRule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

/**
 * What the operator may do in its namespace: all that it uses, and nothing else. The one list of it: tests run the operator
 * with exactly these rights, `doctor` asks for each of them, and README and Role are held against it.
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
  {
    apiGroups: ['coordination.k8s.io'],
    resources: ['leases'],
    verbs: ['get', 'list', 'watch', 'create', 'patch', 'delete'],
  },
  { apiGroups: ['events.k8s.io'], resources: ['events'], verbs: ['create'] },
];

/** What it may do in the whole cluster with `--auth token` and `mtls-or-token`, and only then. */
export const TOKEN_RBAC_RULES: readonly RbacRule[] = [
  { apiGroups: ['authentication.k8s.io'], resources: ['tokenreviews'], verbs: ['create'] },
];

/** One right of the list. */
export interface Permission {
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  /** Undefined for the resource itself. */
  readonly subresource: string | undefined;
}

/** Each right of `rules`, one by one, as access reviews ask for them. */
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
