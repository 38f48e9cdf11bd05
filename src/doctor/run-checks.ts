import { checkApi, checkCrds, checkPermissions } from './check-api.ts';
import { checkCertificates } from './check-certificates.ts';
import { checkEndpoints, checkReplicas } from './check-replicas.ts';
import { checkExpectations } from './check-expectations.ts';
import { checkPolicies, checkReporters, checkTunnels } from './check-reporters.ts';
import type { DoctorInputs } from './inputs.ts';
import type { CheckResult } from './check-result.ts';

/**
 * Runs all checks in the order in which problems should be fixed: an earlier one often causes the later ones. If the
 * API server is unreachable, only the checks that do not need it run.
 */
export function runChecks(inputs: DoctorInputs): CheckResult[] {
  const api = checkApi(inputs);
  if ('failure' in inputs.api) return [...api, ...checkCertificates(inputs), ...checkEndpoints(inputs)];
  const crds = checkCrds(inputs);
  // Each list of a kind that is not installed would report the missing CRD again.
  const missing = crds.some(({ status }) => status === 'fail');
  return [
    ...api,
    ...crds,
    ...checkPermissions(inputs),
    ...checkReplicas(inputs),
    ...checkEndpoints(inputs),
    ...checkCertificates(inputs),
    ...(missing && 'failure' in inputs.reporters ? [] : checkReporters(inputs)),
    ...(missing && 'failure' in inputs.tunnels ? [] : checkTunnels(inputs)),
    ...checkPolicies(inputs),
    ...checkExpectations(inputs),
  ];
}
