import { truncateList } from '../cli/format.ts';
import { unavailable, type CheckResult } from './check-result.ts';
import type { DoctorInputs, ExpectationInfo } from './inputs.ts';
import { pluralize } from '../core/text.ts';
import { admissionOf, describeAdmission } from './rewrite-remediation.ts';

/**
 * Checks that expectations can be satisfied and are evaluated. An unsatisfied one is a warning: it is about the initiators,
 * not about the operator. Without expectations there is no result.
 */
export function checkExpectations({ expectations, mutatingAdmission }: DoctorInputs): CheckResult[] {
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
  results.push(...checkAdmission(mutatingAdmission));
  if (results.length > 0) return results;
  return [
    {
      check: 'expectations',
      status: 'ok',
      message: `${pluralize(all.length, 'expectation')}, none unsatisfied`,
    },
  ];
}

/**
 * Warns about what may change expectations. Whether it does, an expectation cannot show: the status that would say so is
 * what is rewritten.
 */
function checkAdmission(mutatingAdmission: DoctorInputs['mutatingAdmission']): CheckResult[] {
  if ('failure' in mutatingAdmission) return [];
  const matching = admissionOf(mutatingAdmission.value, ['reversetunnelexpectations']);
  if (matching.length === 0) return [];
  return [
    {
      check: 'expectations',
      status: 'warn',
      message: `admission may rewrite expectations: ${describeAdmission(matching)}`,
      remediation:
        'exclude the group reverse-tunnel.io; reverse_tunnel_writes_rewritten_total{resource="reversetunnelexpectations"} counts what was rewritten',
    },
  ];
}

function namesOf(expectations: readonly ExpectationInfo[]): string {
  return truncateList(expectations.map(({ name }) => name));
}
