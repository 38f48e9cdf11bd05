import { buildCondition, type Condition, type ConditionContent } from './kubernetes.ts';
import { sanitize } from './text.ts';

/** The parts of a ReverseTunnelPolicy that this project reads; `crds/reversetunnelpolicies.yaml` describes each field. */
export interface PolicyObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    /** Incremented with each change of spec. */
    readonly generation: number;
  };
  readonly spec: PolicySpec;
  readonly status?: PolicyStatus;
}

/** A policy without rules allows nothing. */
export interface PolicySpec {
  readonly rules?: readonly RuleSpec[];
}

/** Which peers may report as which reporters, for which tenants and clusters, within which limits. */
export interface RuleSpec {
  readonly peers?: readonly PeerSpec[];
  readonly reporters?: { readonly ids?: readonly string[]; readonly clusters?: readonly string[] };
  readonly tenants?: readonly string[];
  /** Default: every cluster. */
  readonly clusters?: readonly string[];
  readonly limits?: LimitsSpec;
}

/** Exactly one of the fields is set. */
export interface PeerSpec {
  readonly spiffeID?: string;
  readonly dnsName?: string;
  readonly serviceAccount?: { readonly namespace: string; readonly name: string };
  readonly any?: boolean;
}

/** Limits of one rule; an omitted limit is unlimited. If several rules apply, the widest limits count (`grantFromScopes`). */
export interface LimitsSpec {
  readonly tunnels?: number;
  readonly reportsPerSecond?: number;
  readonly reportsBurst?: number;
}

/** Written by the leader. */
export interface PolicyStatus {
  readonly observedGeneration?: number;
  /** The number of rules that are enforced. */
  readonly rules?: number;
  readonly conditions?: readonly Condition[];
}

/** The result of parsing a policy: its rules or its errors. */
interface PolicyResult {
  readonly rules: readonly unknown[] | undefined;
  readonly errors: readonly string[] | undefined;
}

/** Maximum number of errors that a condition lists. */
const MAX_LISTED_ERRORS = 5;
/** The API server accepts up to 4,096. */
const MAX_MESSAGE_LENGTH = 2000;

/**
 * Returns the status that a policy should have as a merge patch; undefined if it already has that status.
 *
 * @param now RFC 3339 with a precision of seconds
 */
export function policyStatusPatch(
  { metadata, status }: Pick<PolicyObject, 'metadata' | 'status'>,
  parsed: PolicyResult,
  now: string,
): Required<PolicyStatus> | undefined {
  const { generation } = metadata;
  const desired = conditionContent(parsed);
  const current = status?.conditions?.find(({ type }) => type === 'Accepted');
  const rules = parsed.rules?.length ?? 0;
  const isCurrent =
    current?.status === desired.status &&
    current.reason === desired.reason &&
    current.message === desired.message &&
    current.observedGeneration === generation &&
    status?.observedGeneration === generation &&
    status.rules === rules &&
    status.conditions?.length === 1;
  if (isCurrent) return undefined;
  return {
    observedGeneration: generation,
    rules,
    conditions: [buildCondition(desired, status?.conditions, now, generation)],
  };
}

function conditionContent({ errors }: PolicyResult): ConditionContent {
  if (errors === undefined) return { type: 'Accepted', status: 'True', reason: 'Accepted', message: '' };
  const listed = errors.slice(0, MAX_LISTED_ERRORS).join('; ');
  const more = errors.length > MAX_LISTED_ERRORS ? ` (and ${errors.length - MAX_LISTED_ERRORS} more)` : '';
  return {
    type: 'Accepted',
    status: 'False',
    reason: 'Invalid',
    message: sanitize(`policy is not enforced: ${listed}${more}`, MAX_MESSAGE_LENGTH),
  };
}
