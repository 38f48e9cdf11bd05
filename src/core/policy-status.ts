import { buildCondition, type ConditionContent } from './condition.ts';
import type { ParsedPolicy } from './policy.ts';
import type { PolicyObject, PolicyStatus } from './policy-object.ts';
import { sanitize } from './text.ts';

/** Mistakes that are spelt out; the first is the one to mend first. */
const MAX_LISTED_ERRORS = 5;
/** The API server takes 4,096. */
const MAX_MESSAGE_LENGTH = 2000;

/**
 * The status that a policy is to have, as a merge patch; undefined when it says so already.
 *
 * @param now RFC 3339 to the second
 */
export function policyStatusPatch(
  { metadata, status }: Pick<PolicyObject, 'metadata' | 'status'>,
  parsed: ParsedPolicy,
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

function conditionContent({ errors }: ParsedPolicy): ConditionContent {
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
