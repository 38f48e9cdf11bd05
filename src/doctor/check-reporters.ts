import type { Condition } from '../core/condition.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import { formatAge } from '../inspect/age.ts';
import { counted } from '../inspect/counted.ts';
import type { DoctorFacts } from './facts.ts';
import { someOf, unanswered, type Finding, type Level } from './finding.ts';

/** The first full push of a large reporter takes some time to become rows; what takes longer is worth a look. */
const LONG_MS = 60_000;

/** The reporters: connected, in sync, one Envoy each, owned by somebody who lives. */
export function checkReporters(facts: DoctorFacts): Finding[] {
  const { reporters, namespace } = facts;
  if ('failure' in reporters) return [unanswered('reporters', reporters)];
  if (reporters.value.length === 0) {
    return [
      {
        check: 'reporters',
        status: 'warn',
        message: `no Envoy has reported in ${namespace}`,
        remediation:
          'see docs/troubleshooting.md#no-reporter-shows-up: check the cluster of reporter_config, its port, HTTP/2 and TLS',
      },
    ];
  }
  const findings = [
    ...checkConnected(reporters.value, facts.nowMs),
    ...checkSynced(reporters.value, facts.nowMs),
    ...checkConflicts(reporters.value),
    ...checkOwners(reporters.value, facts),
  ];
  if (findings.length > 0) return findings;
  const message = `${counted(reporters.value.length, 'reporter')} connected and in sync`;
  return [{ check: 'reporters', status: 'ok', message }];
}

/** Those without a stream, in one finding. Unknown counts: nobody has claimed that object yet. */
function checkConnected(reporters: readonly ReporterObject[], nowMs: number): Finding[] {
  const lost = reporters.flatMap((one) => {
    const connected = condition(one, 'Connected');
    return connected?.status === 'True' ? [] : [named(one, connected, nowMs)];
  });
  if (lost.length === 0) return [];
  return [
    {
      check: 'reporters',
      // One Envoy that is gone may have been scaled away. All of them are no chance.
      status: lost.length === reporters.length ? 'fail' : 'warn',
      message: `${lost.length} of ${counted(reporters.length, 'reporter')} not connected: ${someOf(lost)}`,
      remediation:
        'check that these Envoys run and reach the port; for one that is gone for good, kubectl delete rtr NAME deletes ' +
        'its objects now instead of after --expire-after',
    },
  ];
}

/**
 * One finding a reason, the gravest first, so that a quota which refuses the rows of a hundred reporters is one line.
 * Reasons that only follow from another check (NotConnected, Pending) are left to that.
 */
function checkSynced(reporters: readonly ReporterObject[], nowMs: number): Finding[] {
  const findings: Finding[] = [];
  /** @param leastMs for how long it has to have been so: before, it is the way things go */
  function group(reason: string, status: Level, message: string, remediation: string, leastMs = 0): void {
    const found = reporters.flatMap((one) => {
      const synced = condition(one, 'Synced');
      if (synced === undefined || synced.status === 'True' || synced.reason !== reason) return [];
      if (nowMs - Date.parse(synced.lastTransitionTime) < leastMs) return [];
      return [`${named(one, synced, nowMs)}${synced.message === '' ? '' : `: ${synced.message}`}`];
    });
    if (found.length > 0)
      findings.push({ check: 'synced', status, message: `${message}: ${someOf(found, 3)}`, remediation });
  }
  group(
    'WritesRejected',
    'fail',
    'the API server rejects ReverseTunnel writes',
    'see the error: a missing permission, a quota (kubectl describe quota), a webhook, or an older CRD',
  );
  group(
    'TunnelsRejected',
    'warn',
    'invalid tunnels were rejected',
    'fix the tenant, cluster or node ID of the initiator: docs/troubleshooting.md#tunnels-are-rejected',
  );
  group(
    'SyncInProgress',
    'warn',
    'ReverseTunnel objects are still being written',
    'the API server is slow or throttling: see reverse_tunnel_sync_lag_seconds and rest_client_requests_total',
    LONG_MS,
  );
  group(
    'AwaitingFullPush',
    'warn',
    'only deltas received, no full push',
    'Envoy sends a full push on each connect; this is another client, or the stream is about to end',
    LONG_MS,
  );
  return findings;
}

/** A failure: which of the two rows show is chance, and each takes the other's away. */
function checkConflicts(reporters: readonly ReporterObject[]): Finding[] {
  const shared = reporters.filter((one) => condition(one, 'IdentityConflict')?.status === 'True');
  if (shared.length === 0) return [];
  return [
    {
      check: 'identity',
      status: 'fail',
      message: `two Envoys report under the same node.cluster and node.id: ${someOf(shared.map((one) => idOf(one)))}`,
      remediation:
        'give each Envoy a unique node.id (--service-node, such as the pod name); until then the objects show the last report of either',
    },
  ];
}

/** Owners without a Lease that lives. An object that names nobody counts too: it was created, and never claimed. */
function checkOwners(reporters: readonly ReporterObject[], { replicas }: DoctorFacts): Finding[] {
  if ('failure' in replicas) return [];
  const alive = new Set(replicas.value.replicas.filter((one) => one.alive).map(({ replica }) => replica));
  // Then that is the finding, and this would only say it again.
  if (alive.size === 0) return [];
  const left = reporters.filter(({ status }) => !alive.has(status?.owner?.replica ?? ''));
  if (left.length === 0) return [];
  return [
    {
      check: 'owners',
      status: 'warn',
      message: `${counted(left.length, 'reporter')} owned by no live replica: ${someOf(left.map((one) => idOf(one)))}`,
      remediation:
        'the leader takes them over within about 20 s; run doctor again, and check that there is a leader if this persists',
    },
  ];
}

/**
 * The rows: how many, how many Unknown, and none without a reporter's object. Only warnings: both are states that the
 * operator leads out of by itself, and what keeps it from that is a finding of another check.
 */
export function checkRows({ rows }: DoctorFacts): Finding[] {
  if ('failure' in rows) return [unanswered('objects', rows)];
  const { rows: count, unknown, orphans } = rows.value;
  const findings: Finding[] = [];
  if (unknown > 0) {
    findings.push({
      check: 'objects',
      status: 'warn',
      message: `${unknown} of ${counted(count, 'ReverseTunnel')} Unknown, as their reporter is disconnected`,
      remediation:
        'list them with kubectl get rt --field-selector status.state=Unknown; they are deleted after --expire-after',
    });
  }
  if (orphans.size > 0) {
    const shown = Array.from(orphans, ([reporter, orphaned]) => `${reporter} (${orphaned})`);
    findings.push({
      check: 'objects',
      status: 'warn',
      message: `ReverseTunnels without a ReverseTunnelReporter: ${someOf(shown)}`,
      remediation:
        'the leader deletes them within about a minute; if they remain, check that there is a leader',
    });
  }
  if (findings.length === 0)
    findings.push({
      check: 'objects',
      status: 'ok',
      message: count === 0 ? 'no ReverseTunnels' : `${counted(count, 'ReverseTunnel')}, all Connected`,
    });
  return findings;
}

/**
 * The policies: each was accepted. One that is not is a failure: nothing that it allows is in force, while it still
 * makes an end of everybody being allowed everything.
 */
export function checkPolicies({ policies }: DoctorFacts): Finding[] {
  if (policies === undefined) return [];
  if ('failure' in policies) return [unanswered('policies', policies)];
  const findings = policies.value.flatMap(({ name, accepted, message: error }): Finding[] => {
    if (accepted === 'True') return [];
    const message =
      accepted === undefined
        ? `${name} has not been evaluated yet`
        : `${name} is not accepted${error === '' ? '' : `: ${error}`}`;
    const remediation =
      accepted === undefined
        ? 'check that a replica is alive'
        : `kubectl describe rtp ${name}, and fix its spec`;
    return [{ check: 'policies', status: accepted === undefined ? 'warn' : 'fail', message, remediation }];
  });
  if (findings.length > 0) return findings;
  const count = policies.value.length;
  const message = count === 0 ? 'no ReverseTunnelPolicy' : `${counted(count, 'policy', 'policies')} accepted`;
  return [{ check: 'policies', status: 'ok', message }];
}

/** Undefined also in an object that an older version wrote. */
function condition(reporter: ReporterObject, type: string): Condition | undefined {
  return reporter.status?.conditions?.find((one) => one.type === type);
}

/** `edge/responder-0 (HeartbeatTimeout for 4m)`. */
function named(reporter: ReporterObject, why: Condition | undefined, nowMs: number): string {
  const sinceMs = Date.parse(why?.lastTransitionTime ?? '');
  // The CRD's default says 1970.
  const since = sinceMs > 0 ? ` for ${formatAge(nowMs - sinceMs)}` : '';
  return why === undefined ? idOf(reporter) : `${idOf(reporter)} (${why.reason}${since})`;
}

/** As log lines and pages write a reporter; an Envoy without a cluster has an empty one. */
function idOf({ spec }: ReporterObject): string {
  return spec.cluster === '' ? spec.id : `${spec.cluster}/${spec.id}`;
}
