/** ServiceAccounts with a token and, optionally, permissions. */
import { setTimeout as delay } from 'node:timers/promises';
import { ControlPlaneError } from './errors.ts';
import type { JsonResponse } from './https-json.ts';
import { getString, getPath } from './get-path.ts';

/** Longer than any test or demo. */
const TOKEN_SECONDS = 8 * 60 * 60;
/** The authorizer usually takes a few milliseconds. */
const PERMISSIONS_DEADLINE_MS = 60_000;
const PERMISSIONS_POLL_MS = 10;

/** A rule of an RBAC Role. */
export interface PolicyRule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

/** The ServiceAccount to provide. Its namespace must exist; the account may exist. */
export interface ServiceAccountRequest {
  readonly namespace: string;
  readonly serviceAccount: string;
  /**
   * Permissions in its namespace, granted with a Role and a RoleBinding of the same name. Existing ones are kept.
   * Default: none.
   */
  readonly rules?: readonly PolicyRule[];
  /** Permissions in the whole cluster, granted likewise with a ClusterRole. Default: none. */
  readonly clusterRules?: readonly PolicyRule[];
}

/** Sends a request to the API server as the administrator; `path` begins with a slash. */
export type AdminRequest = (method: string, path: string, body?: unknown) => Promise<JsonResponse>;

/** Creates the missing objects of the ServiceAccount, waits for its permissions, and returns a token from TokenRequest. */
export async function createServiceAccountToken(
  admin: AdminRequest,
  request: ServiceAccountRequest,
): Promise<string> {
  const { namespace, serviceAccount: name, rules, clusterRules } = request;
  const accounts = `/api/v1/namespaces/${namespace}/serviceaccounts`;
  await createIfMissing(admin, accounts, { metadata: { name } });
  if (rules !== undefined) {
    const rbac = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}`;
    await createIfMissing(admin, `${rbac}/roles`, { metadata: { name }, rules });
    const bound = await createIfMissing(admin, `${rbac}/rolebindings`, {
      metadata: { name },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name },
      subjects: [{ kind: 'ServiceAccount', name, namespace }],
    });
    if (bound.status === 201) await waitUntilAllowed(admin, request, namespace, rules);
  }
  if (clusterRules !== undefined) {
    const rbac = '/apis/rbac.authorization.k8s.io/v1';
    const clusterName = `${namespace}:${name}`;
    await createIfMissing(admin, `${rbac}/clusterroles`, {
      metadata: { name: clusterName },
      rules: clusterRules,
    });
    const bound = await createIfMissing(admin, `${rbac}/clusterrolebindings`, {
      metadata: { name: clusterName },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: clusterName },
      subjects: [{ kind: 'ServiceAccount', name, namespace }],
    });
    if (bound.status === 201) await waitUntilAllowed(admin, request, undefined, clusterRules);
  }
  const response = await createIfMissing(admin, `${accounts}/${name}/token`, {
    spec: { expirationSeconds: TOKEN_SECONDS },
  });
  const token = getString(response.body, 'status', 'token');
  if (token === undefined)
    throw new ControlPlaneError(`create token for ${namespace}/${name}: the response has no token`);
  return token;
}

/**
 * Waits until the authorizer of the API server, which watches roles and bindings, has received these: earlier requests
 * are denied. Checking one permission is sufficient, because a Role arrives as a whole.
 *
 * @param namespace undefined for permissions in the whole cluster
 */
async function waitUntilAllowed(
  admin: AdminRequest,
  { namespace: accountNamespace, serviceAccount }: ServiceAccountRequest,
  namespace: string | undefined,
  [rule]: readonly PolicyRule[],
): Promise<void> {
  if (rule === undefined) return;
  const [resource = '', subresource] = (rule.resources[0] ?? '').split('/');
  const [verb, group] = [rule.verbs[0], rule.apiGroups[0]];
  const resourceAttributes = { namespace, verb, group, resource, subresource };
  const user = `system:serviceaccount:${accountNamespace}:${serviceAccount}`;
  const review = { spec: { user, resourceAttributes } };
  const untilMs = performance.now() + PERMISSIONS_DEADLINE_MS;
  for (;;) {
    const path = '/apis/authorization.k8s.io/v1/subjectaccessreviews';
    const { body } = await createIfMissing(admin, path, review);
    if (getPath(body, 'status', 'allowed') === true) return;
    if (performance.now() > untilMs)
      throw new ControlPlaneError(
        `permissions of ${user} not effective within ${PERMISSIONS_DEADLINE_MS / 1000} s`,
      );
    await delay(PERMISSIONS_POLL_MS);
  }
}

/** Sends a POST. An existing object counts as created; any other failure throws with the message of the server. */
async function createIfMissing(admin: AdminRequest, path: string, body: unknown): Promise<JsonResponse> {
  const response = await admin('POST', path, body);
  const alreadyExists = response.status === 409;
  if (response.status >= 300 && !alreadyExists) {
    const message = getString(response.body, 'message') ?? JSON.stringify(response.body);
    throw new ControlPlaneError(`POST ${path}: ${response.status} ${message}`);
  }
  return response;
}
