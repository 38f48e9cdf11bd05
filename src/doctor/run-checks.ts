import { checkApi, checkCrds, checkPermissions } from './check-api.ts';
import { checkCertificates } from './check-certificates.ts';
import { checkEndpoints, checkReplicas } from './check-replicas.ts';
import { checkPolicies, checkReporters, checkTunnels } from './check-reporters.ts';
import type { DoctorInputs } from './inputs.ts';
import type { CheckResult } from './check-result.ts';

/**
 * Judges everything, in the order in which it is to be mended: what stands first is often the cause of what follows.
 * Without an API server only what does not need one.
 */
export function runChecks(inputs: DoctorInputs): CheckResult[] {
  const api = checkApi(inputs);
  if ('failure' in inputs.api) return [...api, ...checkCertificates(inputs), ...checkEndpoints(inputs)];
  const crds = checkCrds(inputs);
  // A missing kind would be said again by each list of it.
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
  ];
}
