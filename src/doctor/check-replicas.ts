import { formatAge } from '../cli/age.ts';
import { pluralize } from '../cli/pluralize.ts';
import type { DoctorInputs } from './inputs.ts';
import { truncateList, unavailable, type CheckResult } from './check-result.ts';

/** A Lease is renewed every 5 s and proves for 15 s: what is less is no matter of clocks. */
const CLOCK_TOLERANCE_MS = 15_000;

/**
 * The replicas, by their Leases: somebody lives, somebody leads, who has died, whose clock is off. Nobody alive is a
 * failure, and then the only finding; the rest is served meanwhile by those who live.
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
  const findings: CheckResult[] = [];
  // The leader's Lease may still name one that has died: that is no leader.
  const hasLiveLeader = alive.some(({ replica }) => replica === leader);
  findings.push(
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
  // Whoever is stopped deletes its Lease: one that is left was killed, or its node is gone.
  if (expired.length > 0) {
    findings.push({
      check: 'replicas',
      status: 'warn',
      message: `${pluralize(expired.length, 'replica')} expired without releasing the Lease: ${expiredText}`,
      remediation:
        'check the pod, e.g. for OOMKilled; the leader takes over the reporters and deletes the Lease after an hour',
    });
  }
  // They are known to live, by a Lease that changed: a time far from this machine's can only be a clock.
  const skewed = alive.flatMap(({ replica, renewedMs }) =>
    renewedMs === undefined || Math.abs(nowMs - renewedMs) < CLOCK_TOLERANCE_MS
      ? []
      : [`${replica} by ${formatAge(Math.abs(nowMs - renewedMs))}`],
  );
  if (skewed.length > 0) {
    findings.push({
      check: 'clocks',
      status: 'warn',
      message: `clocks differ from this machine's: ${truncateList(skewed)}`,
      remediation: 'set up NTP: displayed times are wrong (the operator never compares clocks)',
    });
  }
  return findings;
}

/**
 * The addresses that were named: each answers as a ready replica does, from here. The way from an Envoy may be another;
 * so none is tried that nobody named.
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
