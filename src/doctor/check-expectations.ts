import { truncateList } from '../cli/format.ts';
import { unavailable, type CheckResult } from './check-result.ts';
import type { DoctorInputs, ExpectationInfo } from './inputs.ts';
import { pluralize } from '../core/text.ts';

/**
 * Checks that expectations can be satisfied and are evaluated. An unsatisfied one is a warning: it is about the initiators,
 * not about the operator. Without expectations there is no result.
 */
export function checkExpectations({ expectations }: DoctorInputs): CheckResult[] {
  if (expectations === undefined) return [];
  if ('failure' in expectations) return [unavailable('expectations', expectations)];
  const all = expectations.value;
  if (all.length === 0) return [];
  const inState = (...states: readonly ExpectationInfo['state'][]): readonly ExpectationInfo[] =>
    all.filter(({ state }) => states.includes(state));
  const results = inState('invalid').map(({ name, conditionMessage }): CheckResult => {
    const message = `${name} can match nothing: ${conditionMessage}`;
    return { check: 'expectations', status: 'fail', message, remediation: `fix the spec of rte ${name}` };
  });
  const unsatisfied = inState('unsatisfied', 'unknown');
  if (unsatisfied.length > 0)
    results.push({
      check: 'expectations',
      status: 'warn',
      message: `${pluralize(unsatisfied.length, 'expectation')} not satisfied: ${namesOf(unsatisfied)}`,
      remediation: 'kubectl get rte -o wide; check the initiators of the missing nodes',
    });
  const unevaluated = inState(undefined);
  if (unevaluated.length > 0)
    results.push({
      check: 'expectations',
      status: 'warn',
      message: `${pluralize(unevaluated.length, 'expectation')} not evaluated yet: ${namesOf(unevaluated)}`,
      remediation: 'check that a replica is the leader and has its permissions on reversetunnelexpectations',
    });
  if (results.length > 0) return results;
  return [
    {
      check: 'expectations',
      status: 'ok',
      message: `${pluralize(all.length, 'expectation')}, none unsatisfied`,
    },
  ];
}

function namesOf(expectations: readonly ExpectationInfo[]): string {
  return truncateList(expectations.map(({ name }) => name));
}
