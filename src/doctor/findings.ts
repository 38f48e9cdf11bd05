import { checkApi, checkKinds, checkRights } from './check-api.ts';
import { checkCertificates } from './check-certificates.ts';
import { checkEndpoints, checkReplicas } from './check-replicas.ts';
import { checkPolicies, checkReporters, checkRows } from './check-reporters.ts';
import type { DoctorFacts } from './facts.ts';
import type { Finding } from './finding.ts';

/**
 * Judges everything, in the order in which it is to be mended: what stands first is often the cause of what follows.
 * Without an API server only what does not need one.
 */
export function findings(facts: DoctorFacts): Finding[] {
  const api = checkApi(facts);
  if ('failure' in facts.api) return [...api, ...checkCertificates(facts), ...checkEndpoints(facts)];
  const kinds = checkKinds(facts);
  // A missing kind would be said again by each list of it.
  const missing = kinds.some(({ status }) => status === 'fail');
  return [
    ...api,
    ...kinds,
    ...checkRights(facts),
    ...checkReplicas(facts),
    ...checkEndpoints(facts),
    ...checkCertificates(facts),
    ...(missing && 'failure' in facts.reporters ? [] : checkReporters(facts)),
    ...(missing && 'failure' in facts.rows ? [] : checkRows(facts)),
    ...checkPolicies(facts),
  ];
}
