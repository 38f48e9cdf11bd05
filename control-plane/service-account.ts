/** ServiceAccounts with a token and, where asked for, rights in their namespace. */
import { setTimeout as delay } from 'node:timers/promises';
import { ControlPlaneError } from './errors.ts';
import type { JsonResponse } from './https-json.ts';
import { textAt, valueAt } from './value-at.ts';

/** Long enough for any test or demo, short enough not to matter. */
const TOKEN_SECONDS = 8 * 60 * 60;
/** The authorizer takes some ms. */
const RIGHTS_DEADLINE_MS = 30_000;
const RIGHTS_POLL_MS = 10;

/** A rule of a Role, as RBAC has it. */
export interface PolicyRule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

/** Which ServiceAccount. The namespace must exist; the account may. */
export interface ServiceAccountRequest {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** What it may do in its namespace, by a Role and a RoleBinding of its name; those that are there stay. Nothing when left out. */
  readonly rules?: readonly PolicyRule[];
  /** What it may do in the whole cluster, likewise, by a ClusterRole. */
  readonly clusterRules?: readonly PolicyRule[];
}

/** Sends a request to the API server as the administrator; `path` begins with a slash. */
export type AdminRequest = (method: string, path: string, body?: unknown) => Promise<JsonResponse>;

/** Creates what is missing of the ServiceAccount, waits until its rights hold, and gives a token made by TokenRequest. */
export async function serviceAccountToken(
  admin: AdminRequest,
  request: ServiceAccountRequest,
): Promise<string> {
  const { namespace, serviceAccount: name, rules, clusterRules } = request;
  const accounts = `/api/v1/namespaces/${namespace}/serviceaccounts`;
  await create(admin, accounts, { metadata: { name } });
  if (rules !== undefined) {
    const rbac = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}`;
    await create(admin, `${rbac}/roles`, { metadata: { name }, rules });
    const bound = await create(admin, `${rbac}/rolebindings`, {
      metadata: { name },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name },
      subjects: [{ kind: 'ServiceAccount', name, namespace }],
    });
    if (bound.status === 201) await allowed(admin, request, namespace, rules);
  }
  if (clusterRules !== undefined) {
    const rbac = '/apis/rbac.authorization.k8s.io/v1';
    const clusterName = `${namespace}:${name}`;
    await create(admin, `${rbac}/clusterroles`, { metadata: { name: clusterName }, rules: clusterRules });
    const bound = await create(admin, `${rbac}/clusterrolebindings`, {
      metadata: { name: clusterName },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: clusterName },
      subjects: [{ kind: 'ServiceAccount', name, namespace }],
    });
    if (bound.status === 201) await allowed(admin, request, undefined, clusterRules);
  }
  const answer = await create(admin, `${accounts}/${name}/token`, {
    spec: { expirationSeconds: TOKEN_SECONDS },
  });
  const token = textAt(answer.body, 'status', 'token');
  if (token === undefined)
    throw new ControlPlaneError(`The token request for ${namespace}/${name} gave no token.`);
  return token;
}

/**
 * Waits until the API server's authorizer, which learns of roles and bindings by watches of its own, knows of these: what is
 * done before that is refused. One right stands for all, as a Role is known whole.
 *
 * @param namespace undefined: of the whole cluster
 */
async function allowed(
  admin: AdminRequest,
  { namespace: of, serviceAccount }: ServiceAccountRequest,
  namespace: string | undefined,
  [rule]: readonly PolicyRule[],
): Promise<void> {
  if (rule === undefined) return;
  const [resource = '', subresource] = (rule.resources[0] ?? '').split('/');
  const [verb, group] = [rule.verbs[0], rule.apiGroups[0]];
  const resourceAttributes = { namespace, verb, group, resource, subresource };
  const user = `system:serviceaccount:${of}:${serviceAccount}`;
  const review = { spec: { user, resourceAttributes } };
  const untilMs = performance.now() + RIGHTS_DEADLINE_MS;
  for (;;) {
    const path = '/apis/authorization.k8s.io/v1/subjectaccessreviews';
    const { body } = await create(admin, path, review);
    if (valueAt(body, 'status', 'allowed') === true) return;
    if (performance.now() > untilMs)
      throw new ControlPlaneError(`${user} has not got its rights within ${RIGHTS_DEADLINE_MS / 1000} s.`);
    await delay(RIGHTS_POLL_MS);
  }
}

/** POST; what is already there is as good as created. Other refusals are errors with the server's message. */
async function create(admin: AdminRequest, path: string, body: unknown): Promise<JsonResponse> {
  const answer = await admin('POST', path, body);
  const alreadyThere = answer.status === 409;
  if (answer.status >= 300 && !alreadyThere) {
    const message = textAt(answer.body, 'message') ?? JSON.stringify(answer.body);
    throw new ControlPlaneError(`POST ${path} was answered ${answer.status}: ${message}`);
  }
  return answer;
}
