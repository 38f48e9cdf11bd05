import { buildCondition, type Condition, type ConditionContent } from './kubernetes.ts';
import type { Representation } from './representation.ts';
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
  /** Default: that of another rule that allows the tunnel, otherwise `--representation`. */
  readonly representation?: Representation;
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
  const before = status?.conditions ?? [];
  const desired = conditionContents(parsed);
  const rules = parsed.rules?.length ?? 0;
  const isCurrent =
    status?.observedGeneration === generation &&
    status.rules === rules &&
    before.length === desired.length &&
    desired.every((content) =>
      before.some(
        (condition) => condition.observedGeneration === generation && hasContent(condition, content),
      ),
    );
  if (isCurrent) return undefined;
  return {
    observedGeneration: generation,
    rules,
    conditions: desired.map((content) => buildCondition(content, before, now, generation)),
  };
}

function hasContent(condition: Condition, { type, status, reason, message }: ConditionContent): boolean {
  return (
    condition.type === type &&
    condition.status === status &&
    condition.reason === reason &&
    condition.message === message
  );
}

/**
 * Accepted is the result. Ready repeats it for tools that evaluate every kind by Ready. Stalled exists only for a policy
 * that is not accepted: kstatus takes Ready=False as progress and waits until its timeout.
 */
function conditionContents({ errors }: PolicyResult): readonly ConditionContent[] {
  if (errors === undefined) {
    const accepted = { status: 'True', reason: 'Accepted', message: '' } as const;
    return [
      { type: 'Accepted', ...accepted },
      { type: 'Ready', ...accepted },
    ];
  }
  const listed = errors.slice(0, MAX_LISTED_ERRORS).join('; ');
  const more = errors.length > MAX_LISTED_ERRORS ? ` (and ${errors.length - MAX_LISTED_ERRORS} more)` : '';
  const reason = 'Invalid';
  const message = sanitize(`policy is not enforced: ${listed}${more}`, MAX_MESSAGE_LENGTH);
  return [
    { type: 'Accepted', status: 'False', reason, message },
    { type: 'Ready', status: 'False', reason, message },
    { type: 'Stalled', status: 'True', reason, message },
  ];
}

/** Annotations of the Lease of a replica that runs with `--require-policy`; `doctor` reads them. */
export const REQUIRE_POLICY_ANNOTATIONS = { 'reverse-tunnel.io/require-policy': 'true' } as const;

/** Returns true if the replica with this Lease rejects every client while no policy exists. */
export function requiresPolicy(annotations: Readonly<Record<string, string>> | undefined): boolean {
  return annotations?.['reverse-tunnel.io/require-policy'] === 'true';
}
