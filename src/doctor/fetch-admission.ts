import { listAll, type Cluster } from '../cli/cluster.ts';
import { ApiError } from '../k8s/api-error.ts';
import type { ApiObject } from '../k8s/resource-client.ts';
import { API_GROUP, API_VERSION } from '../k8s/resources.ts';
import type { MutatingAdmission } from './inputs.ts';

/** A rule of a webhook or policy: which requests it sees. */
export interface AdmissionRule {
  readonly apiGroups?: readonly string[];
  readonly apiVersions?: readonly string[];
  readonly resources?: readonly string[];
  readonly operations?: readonly string[];
  readonly scope?: string;
}

/** A label selector, with the operators of metav1.LabelSelector. */
export interface LabelSelector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: string;
    readonly values?: readonly string[];
  }[];
}

interface WebhookConfiguration extends ApiObject {
  readonly webhooks?: readonly {
    readonly name: string;
    readonly rules?: readonly AdmissionRule[];
    readonly namespaceSelector?: LabelSelector;
  }[];
}

interface MutatingPolicy extends ApiObject {
  readonly spec?: { readonly matchConstraints?: MatchResources };
}

interface MatchResources {
  readonly resourceRules?: readonly AdmissionRule[];
  readonly excludeResourceRules?: readonly AdmissionRule[];
  readonly namespaceSelector?: LabelSelector;
}

interface PolicyBinding extends ApiObject {
  readonly spec?: { readonly policyName?: string; readonly matchResources?: MatchResources };
}

/** The resources whose rewriting the operator reports. */
const RESOURCES = [
  'reversetunnels',
  'reversetunnels/status',
  'reversetunnelreporters',
  'reversetunnelreporters/status',
  'reversetunnelslices',
  'reversetunnelslices/status',
  'reversetunnelexpectations',
  'reversetunnelexpectations/status',
] as const;
const GROUP = 'admissionregistration.k8s.io';
/** Versions of MutatingAdmissionPolicy, the newest first; an older Kubernetes does not serve v1. */
const POLICY_VERSIONS = ['v1', 'v1beta1', 'v1alpha1'];

/**
 * Lists the mutating webhook configurations, and the mutating policies with a binding, that match writes of the
 * operator's objects. `objectSelector` and `matchConditions` are not evaluated, so one of them may in fact not match.
 *
 * @throws ApiError 403 if the account may not list them
 */
export async function fetchMutatingAdmission(
  cluster: Cluster,
  signal: AbortSignal,
): Promise<MutatingAdmission[]> {
  const { client } = cluster;
  const labels = await fetchNamespaceLabels(cluster);
  const webhooks = client.resource<WebhookConfiguration>({
    group: GROUP,
    version: 'v1',
    plural: 'mutatingwebhookconfigurations',
  });
  const configurations = await listAll(webhooks, (object) => object, signal);
  const matching: MutatingAdmission[] = [];
  for (const { metadata, webhooks: entries = [] } of configurations) {
    for (const { name, rules = [], namespaceSelector } of entries) {
      const resources = matchedResources(rules);
      if (resources.length > 0 && matchesLabels(namespaceSelector, labels))
        matching.push({
          kind: 'MutatingWebhookConfiguration',
          name: metadata.name,
          webhook: name,
          resources,
        });
    }
  }
  return [...matching, ...(await fetchMutatingPolicies(cluster, labels, signal))];
}

async function fetchMutatingPolicies(
  { client }: Cluster,
  labels: Readonly<Record<string, string>> | undefined,
  signal: AbortSignal,
): Promise<MutatingAdmission[]> {
  for (const version of POLICY_VERSIONS) {
    const resource = <T extends ApiObject>(plural: string) =>
      client.resource<T>({ group: GROUP, version, plural });
    let policies: MutatingPolicy[];
    let bindings: PolicyBinding[];
    try {
      policies = await listAll(
        resource<MutatingPolicy>('mutatingadmissionpolicies'),
        (object) => object,
        signal,
      );
      bindings = await listAll(
        resource<PolicyBinding>('mutatingadmissionpolicybindings'),
        (object) => object,
        signal,
      );
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) continue;
      throw error;
    }
    return policies.flatMap(({ metadata, spec }) => {
      const {
        resourceRules = [],
        excludeResourceRules = [],
        namespaceSelector,
      } = spec?.matchConstraints ?? {};
      const excluded = matchedResources(excludeResourceRules);
      const resources = matchedResources(resourceRules).filter((each) => !excluded.includes(each));
      const isBound = bindings.some(
        (binding) =>
          binding.spec?.policyName === metadata.name &&
          matchesLabels(binding.spec.matchResources?.namespaceSelector, labels),
      );
      if (resources.length === 0 || !isBound || !matchesLabels(namespaceSelector, labels)) return [];
      return [{ kind: 'MutatingAdmissionPolicy', name: metadata.name, webhook: undefined, resources }];
    });
  }
  return [];
}

/** Returns undefined if the account may not read the namespace; every selector then counts as matching. */
async function fetchNamespaceLabels({
  client,
  namespace,
}: Cluster): Promise<Readonly<Record<string, string>> | undefined> {
  interface Namespace extends ApiObject {
    readonly metadata: ApiObject['metadata'] & { readonly labels?: Readonly<Record<string, string>> };
  }
  try {
    const namespaces = client.resource<Namespace>({ group: '', version: 'v1', plural: 'namespaces' });
    return (await namespaces.get(namespace)).metadata.labels ?? {};
  } catch (error) {
    if (error instanceof ApiError) return undefined;
    throw error;
  }
}

/** Returns the operator's resources whose creates or updates the rules match. */
export function matchedResources(rules: readonly AdmissionRule[]): string[] {
  return RESOURCES.filter((resource) => rules.some((rule) => matchesRule(rule, resource)));
}

function matchesRule(rule: AdmissionRule, resource: string): boolean {
  const { apiGroups = [], apiVersions = [], resources = [], operations = [], scope = '*' } = rule;
  const [plural, subresource] = resource.split('/');
  const patterns =
    subresource === undefined ? [plural, '*', '*/*'] : [resource, `${plural}/*`, `*/${subresource}`, '*/*'];
  return (
    includesAny(apiGroups, API_GROUP, '*') &&
    includesAny(apiVersions, API_VERSION, '*') &&
    includesAny(resources, ...patterns) &&
    includesAny(operations, 'CREATE', 'UPDATE', '*') &&
    scope !== 'Cluster'
  );
}

function includesAny(values: readonly string[], ...accepted: readonly (string | undefined)[]): boolean {
  return values.some((value) => accepted.includes(value));
}

/**
 * Evaluates a label selector.
 *
 * @param labels undefined: unknown, so every selector matches
 */
export function matchesLabels(
  { matchLabels = {}, matchExpressions = [] }: LabelSelector = {},
  labels: Readonly<Record<string, string>> | undefined,
): boolean {
  if (labels === undefined) return true;
  if (Object.entries(matchLabels).some(([label, value]) => labels[label] !== value)) return false;
  return matchExpressions.every(({ key, operator, values = [] }) => {
    const value = labels[key];
    switch (operator) {
      case 'In':
        return value !== undefined && values.includes(value);
      case 'NotIn':
        return value === undefined || !values.includes(value);
      case 'Exists':
        return value !== undefined;
      case 'DoesNotExist':
        return value === undefined;
      default:
        return true;
    }
  });
}
