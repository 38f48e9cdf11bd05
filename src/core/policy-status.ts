import { conditionOf, type Meaning } from './condition.ts';
import type { ParsedPolicy } from './policy.ts';
import type { PolicyObject, PolicyStatus } from './policy-object.ts';
import { showable } from './text.ts';

/** Mistakes that are spelt out; the first is the one to mend first. */
const SHOWN_MISTAKES = 5;
/** The API server takes 4,096. */
const LONGEST_MESSAGE = 2000;

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
  const wanted = meaningOf(parsed);
  const before = status?.conditions?.find(({ type }) => type === 'Accepted');
  const rules = parsed.rules?.length ?? 0;
  const isSaid =
    before?.status === wanted.status &&
    before.reason === wanted.reason &&
    before.message === wanted.message &&
    before.observedGeneration === generation &&
    status?.observedGeneration === generation &&
    status.rules === rules &&
    status.conditions?.length === 1;
  if (isSaid) return undefined;
  return {
    observedGeneration: generation,
    rules,
    conditions: [conditionOf(wanted, status?.conditions, now, generation)],
  };
}

function meaningOf({ mistakes }: ParsedPolicy): Meaning {
  if (mistakes === undefined) return { type: 'Accepted', status: 'True', reason: 'Accepted', message: '' };
  const said = mistakes.slice(0, SHOWN_MISTAKES).join('; ');
  const more = mistakes.length > SHOWN_MISTAKES ? ` (and ${mistakes.length - SHOWN_MISTAKES} more)` : '';
  return {
    type: 'Accepted',
    status: 'False',
    reason: 'Invalid',
    message: showable(`policy is not enforced: ${said}${more}`, LONGEST_MESSAGE),
  };
}
