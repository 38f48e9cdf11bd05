import { formatAge } from '../inspect/age.ts';
import { counted } from '../inspect/counted.ts';
import type { DoctorFacts } from './facts.ts';
import { someOf, unanswered, type Finding } from './finding.ts';

/** A Lease is renewed every 5 s and proves for 15 s: what is less is no matter of clocks. */
const CLOCK_TOLERANCE_MS = 15_000;

/**
 * The replicas, by their Leases: somebody lives, somebody leads, who has died, whose clock is off. Nobody alive is a
 * failure, and then the only finding; the rest is served meanwhile by those who live.
 */
export function checkReplicas({ replicas, namespace, nowMs }: DoctorFacts): Finding[] {
  if ('failure' in replicas) return [unanswered('replicas', replicas)];
  const { leader } = replicas.value;
  const alive = replicas.value.replicas.filter((one) => one.alive);
  const dead = replicas.value.replicas.filter((one) => !one.alive);
  const shownDead = someOf(
    dead.map(({ replica, renewedMs }) =>
      renewedMs === undefined ? replica : `${replica} (last renewed ${formatAge(nowMs - renewedMs)} ago)`,
    ),
    3,
  );
  if (alive.length === 0) {
    const others = dead.length === 0 ? 'there is no Lease of one' : shownDead;
    return [
      {
        check: 'replicas',
        level: 'fail',
        says: `no replica of the operator is alive in ${namespace}: ${others}`,
        todo: 'see whether its pods run and what they log, and whether --namespace is theirs',
      },
    ];
  }
  const findings: Finding[] = [];
  // The leader's Lease may still name one that has died: that is no leader.
  const leads = alive.some(({ replica }) => replica === leader);
  findings.push(
    leads
      ? { check: 'replicas', level: 'ok', says: `${counted(alive.length, 'replica')} alive, ${leader} leads` }
      : {
          check: 'replicas',
          level: 'warn',
          says: `${counted(alive.length, 'replica')} alive, and none leads${leader === '' ? '' : ` (${leader} did, and is dead)`}`,
          todo: 'reporters of dead replicas are taken over by a leader only; one is found within 20 s, else see the log for Lease',
        },
  );
  // Whoever is stopped deletes its Lease: one that is left was killed, or its node is gone.
  if (dead.length > 0) {
    findings.push({
      check: 'replicas',
      level: 'warn',
      says: `${counted(dead.length, 'replica')} died without giving up its Lease: ${shownDead}`,
      todo: 'see why, as OOMKilled in its pod; the leader takes over its reporters, and deletes the Lease after an hour',
    });
  }
  // They are known to live, by a Lease that changed: a time far from this machine's can only be a clock.
  const off = alive.flatMap(({ replica, renewedMs }) =>
    renewedMs === undefined || Math.abs(nowMs - renewedMs) < CLOCK_TOLERANCE_MS
      ? []
      : [`${replica} by ${formatAge(Math.abs(nowMs - renewedMs))}`],
  );
  if (off.length > 0) {
    findings.push({
      check: 'clocks',
      level: 'warn',
      says: `clocks differ from this machine's: ${someOf(off)}`,
      todo: 'nothing is decided by comparing clocks, but times shown are wrong: set up NTP',
    });
  }
  return findings;
}

/**
 * The addresses that were named: each answers as a ready replica does, from here. The way from an Envoy may be another;
 * so none is tried that nobody named.
 */
export function checkEndpoints({ endpoints }: DoctorFacts): Finding[] {
  if (endpoints.length === 0) {
    return [
      {
        check: 'endpoints',
        level: 'skip',
        says: 'no replica was tried by its ports',
        todo: 'give --grpc-address and --http-address, as often as there are replicas, from where they can be reached',
      },
    ];
  }
  return endpoints.map(({ flag, address, failure, said }) =>
    failure === undefined
      ? { check: 'endpoints', level: 'ok', says: `${flag} ${address}: ${said}` }
      : {
          check: 'endpoints',
          level: 'fail',
          says: `${flag} ${address}: ${failure}`,
          todo: 'see whether it is the right port and a NetworkPolicy lets this machine in; else the log of the replica',
        },
  );
}
