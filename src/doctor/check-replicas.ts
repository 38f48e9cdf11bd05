import { formatAge, truncateList } from '../cli/format.ts';
import type { DoctorInputs } from './inputs.ts';
import { unavailable, type CheckResult } from './check-result.ts';
import { pluralize } from '../core/text.ts';

/** A Lease is valid for 15 s and renewed every 5 s, so a smaller difference can be due to a late renewal. */
const CLOCK_TOLERANCE_MS = 15_000;

/**
 * Checks the replicas by their Leases: at least one is alive, there is a leader, none has expired, and their clocks agree
 * with this machine's. If no replica is alive, the check fails with that as its only result; everything else is a warning,
 * as the other replicas continue to serve.
 */
export function checkReplicas({ replicas, namespace, nowMs }: DoctorInputs): CheckResult[] {
  if ('failure' in replicas) return [unavailable('replicas', replicas)];
  const { leader } = replicas.value;
  const alive = replicas.value.replicas.filter((replica) => replica.alive);
  const expired = replicas.value.replicas.filter((replica) => !replica.alive);
  const expiredText = truncateList(
    expired.map(({ replica, renewedMs }) =>
      renewedMs === undefined ? replica : `${replica} (last renewed ${formatAge(nowMs - renewedMs)} ago)`,
    ),
    3,
  );
  if (alive.length === 0) {
    const others = expired.length === 0 ? 'no replica Lease found' : expiredText;
    return [
      {
        check: 'replicas',
        status: 'fail',
        message: `no operator replica is alive in ${namespace}: ${others}`,
        remediation: 'check the pods of the operator and their logs, and --namespace',
      },
    ];
  }
  const results: CheckResult[] = [];
  // The leader Lease may still name an expired replica.
  const hasLiveLeader = alive.some(({ replica }) => replica === leader);
  results.push(
    hasLiveLeader
      ? {
          check: 'replicas',
          status: 'ok',
          message: `${pluralize(alive.length, 'replica')} alive, leader is ${leader}`,
        }
      : {
          check: 'replicas',
          status: 'warn',
          message: `${pluralize(alive.length, 'replica')} alive, no leader${leader === '' ? '' : ` (last leader ${leader} has expired)`}`,
          remediation:
            'only a leader takes over reporters of expired replicas; one is elected within 20 s, otherwise check the logs for Lease errors',
        },
  );
  // A replica deletes its Lease when it stops. A Lease that remains belongs to one that was killed or lost its node.
  if (expired.length > 0) {
    results.push({
      check: 'replicas',
      status: 'warn',
      message: `${pluralize(expired.length, 'replica')} expired without releasing the Lease: ${expiredText}`,
      remediation:
        'check the pod, e.g. for OOMKilled; the leader takes over the reporters and deletes the Lease after an hour',
    });
  }
  // These replicas are alive, so a renewTime far from this machine's time can only be due to clock skew.
  const skewed = alive.flatMap(({ replica, renewedMs }) =>
    renewedMs === undefined || Math.abs(nowMs - renewedMs) < CLOCK_TOLERANCE_MS
      ? []
      : [`${replica} by ${formatAge(Math.abs(nowMs - renewedMs))}`],
  );
  if (skewed.length > 0) {
    results.push({
      check: 'clocks',
      status: 'warn',
      message: `clocks differ from this machine's: ${truncateList(skewed)}`,
      remediation: 'set up NTP: displayed times are wrong (the operator never compares clocks)',
    });
  }
  return results;
}

/**
 * Checks that each probed endpoint responds as a ready replica does. Only endpoints given by flags are probed, as an Envoy
 * may use another network path than this machine.
 */
export function checkEndpoints({ endpoints }: DoctorInputs): CheckResult[] {
  if (endpoints.length === 0) {
    return [
      {
        check: 'endpoints',
        status: 'skip',
        message: 'no endpoints probed (pass --grpc-address)',
        remediation:
          'pass --grpc-address and --http-address once per replica, from a machine that can reach them',
      },
    ];
  }
  return endpoints.map(({ flag, address, failure, detail }) =>
    failure === undefined
      ? { check: 'endpoints', status: 'ok', message: `${flag} ${address}: ${detail}` }
      : {
          check: 'endpoints',
          status: 'fail',
          message: `${flag} ${address}: ${failure}`,
          remediation: 'check the port, NetworkPolicies for this machine, and the log of the replica',
        },
  );
}
