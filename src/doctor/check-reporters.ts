import type { Condition } from '../core/kubernetes.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import { formatAge } from '../cli/age.ts';
import { pluralize } from '../cli/pluralize.ts';
import type { DoctorInputs } from './inputs.ts';
import { truncateList, unavailable, type CheckResult, type CheckStatus } from './check-result.ts';

/** The first full push of a large reporter takes some time to become rows; what takes longer is worth a look. */
const SLOW_SYNC_MS = 60_000;

/** The reporters: connected, in sync, one Envoy each, owned by somebody who lives. */
export function checkReporters(inputs: DoctorInputs): CheckResult[] {
  const { reporters, namespace } = inputs;
  if ('failure' in reporters) return [unavailable('reporters', reporters)];
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
    ...checkConnected(reporters.value, inputs.nowMs),
    ...checkSynced(reporters.value, inputs.nowMs),
    ...checkConflicts(reporters.value),
    ...checkOwners(reporters.value, inputs),
  ];
  if (findings.length > 0) return findings;
  const message = `${pluralize(reporters.value.length, 'reporter')} connected and in sync`;
  return [{ check: 'reporters', status: 'ok', message }];
}

/** Those without a stream, in one finding. Unknown counts: nobody has claimed that object yet. */
function checkConnected(reporters: readonly ReporterObject[], nowMs: number): CheckResult[] {
  const disconnected = reporters.flatMap((reporter) => {
    const connected = findCondition(reporter, 'Connected');
    return connected?.status === 'True' ? [] : [describe(reporter, connected, nowMs)];
  });
  if (disconnected.length === 0) return [];
  return [
    {
      check: 'reporters',
      // One Envoy that is gone may have been scaled away. All of them are no chance.
      status: disconnected.length === reporters.length ? 'fail' : 'warn',
      message: `${disconnected.length} of ${pluralize(reporters.length, 'reporter')} not connected: ${truncateList(disconnected)}`,
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
function checkSynced(reporters: readonly ReporterObject[], nowMs: number): CheckResult[] {
  const findings: CheckResult[] = [];
  /** @param minDurationMs for how long it has to have been so: before, it is the way things go */
  function addResult(
    reason: string,
    status: CheckStatus,
    message: string,
    remediation: string,
    minDurationMs = 0,
  ): void {
    const affected = reporters.flatMap((reporter) => {
      const synced = findCondition(reporter, 'Synced');
      if (synced === undefined || synced.status === 'True' || synced.reason !== reason) return [];
      if (nowMs - Date.parse(synced.lastTransitionTime) < minDurationMs) return [];
      return [`${describe(reporter, synced, nowMs)}${synced.message === '' ? '' : `: ${synced.message}`}`];
    });
    if (affected.length > 0)
      findings.push({
        check: 'synced',
        status,
        message: `${message}: ${truncateList(affected, 3)}`,
        remediation,
      });
  }
  addResult(
    'WritesRejected',
    'fail',
    'the API server rejects ReverseTunnel writes',
    'see the error: a missing permission, a quota (kubectl describe quota), a webhook, or an older CRD',
  );
  addResult(
    'TunnelsRejected',
    'warn',
    'invalid tunnels were rejected',
    'fix the tenant, cluster or node ID of the initiator: docs/troubleshooting.md#tunnels-are-rejected',
  );
  addResult(
    'SyncInProgress',
    'warn',
    'ReverseTunnel objects are still being written',
    'the API server is slow or throttling: see reverse_tunnel_sync_lag_seconds and rest_client_requests_total',
    SLOW_SYNC_MS,
  );
  addResult(
    'AwaitingFullPush',
    'warn',
    'only deltas received, no full push',
    'Envoy sends a full push on each connect; this is another client, or the stream is about to end',
    SLOW_SYNC_MS,
  );
  return findings;
}

/** A failure: which of the two rows show is chance, and each takes the other's away. */
function checkConflicts(reporters: readonly ReporterObject[]): CheckResult[] {
  const shared = reporters.filter(
    (reporter) => findCondition(reporter, 'IdentityConflict')?.status === 'True',
  );
  if (shared.length === 0) return [];
  return [
    {
      check: 'identity',
      status: 'fail',
      message: `two Envoys report under the same node.cluster and node.id: ${truncateList(shared.map((reporter) => reporterName(reporter)))}`,
      remediation:
        'give each Envoy a unique node.id (--service-node, such as the pod name); until then the objects show the last report of either',
    },
  ];
}

/** Owners without a Lease that lives. An object that names nobody counts too: it was created, and never claimed. */
function checkOwners(reporters: readonly ReporterObject[], { replicas }: DoctorInputs): CheckResult[] {
  if ('failure' in replicas) return [];
  const alive = new Set(
    replicas.value.replicas.filter((reporter) => reporter.alive).map(({ replica }) => replica),
  );
  // Then that is the finding, and this would only say it again.
  if (alive.size === 0) return [];
  const unowned = reporters.filter(({ status }) => !alive.has(status?.owner?.replica ?? ''));
  if (unowned.length === 0) return [];
  return [
    {
      check: 'owners',
      status: 'warn',
      message: `${pluralize(unowned.length, 'reporter')} owned by no live replica: ${truncateList(unowned.map((reporter) => reporterName(reporter)))}`,
      remediation:
        'the leader takes them over within about 20 s; run doctor again, and check that there is a leader if this persists',
    },
  ];
}

/**
 * The rows: how many, how many Unknown, and none without a reporter's object. Only warnings: both are states that the
 * operator leads out of by itself, and what keeps it from that is a finding of another check.
 */
export function checkTunnels({ tunnels }: DoctorInputs): CheckResult[] {
  if ('failure' in tunnels) return [unavailable('objects', tunnels)];
  const { tunnels: count, unknown, orphaned } = tunnels.value;
  const findings: CheckResult[] = [];
  if (unknown > 0) {
    findings.push({
      check: 'objects',
      status: 'warn',
      message: `${unknown} of ${pluralize(count, 'ReverseTunnel')} Unknown, as their reporter is disconnected`,
      remediation:
        'list them with kubectl get rt --field-selector status.state=Unknown; they are deleted after --expire-after',
    });
  }
  if (orphaned.size > 0) {
    const shown = Array.from(orphaned, ([reporter, orphaned]) => `${reporter} (${orphaned})`);
    findings.push({
      check: 'objects',
      status: 'warn',
      message: `ReverseTunnels without a ReverseTunnelReporter: ${truncateList(shown)}`,
      remediation:
        'the leader deletes them within about a minute; if they remain, check that there is a leader',
    });
  }
  if (findings.length === 0)
    findings.push({
      check: 'objects',
      status: 'ok',
      message: count === 0 ? 'no ReverseTunnels' : `${pluralize(count, 'ReverseTunnel')}, all Connected`,
    });
  return findings;
}

/**
 * The policies: each was accepted. One that is not is a failure: nothing that it allows is in force, while it still
 * makes an end of everybody being allowed everything.
 */
export function checkPolicies({ policies }: DoctorInputs): CheckResult[] {
  if (policies === undefined) return [];
  if ('failure' in policies) return [unavailable('policies', policies)];
  const findings = policies.value.flatMap(({ name, accepted, conditionMessage: error }): CheckResult[] => {
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
  const message =
    count === 0 ? 'no ReverseTunnelPolicy' : `${pluralize(count, 'policy', 'policies')} accepted`;
  return [{ check: 'policies', status: 'ok', message }];
}

/** Undefined also in an object that an older version wrote. */
function findCondition(reporter: ReporterObject, type: string): Condition | undefined {
  return reporter.status?.conditions?.find((candidate) => candidate.type === type);
}

/** `edge/responder-0 (HeartbeatTimeout for 4m)`. */
function describe(reporter: ReporterObject, condition: Condition | undefined, nowMs: number): string {
  const sinceMs = Date.parse(condition?.lastTransitionTime ?? '');
  // The CRD's default says 1970.
  const since = sinceMs > 0 ? ` for ${formatAge(nowMs - sinceMs)}` : '';
  return condition === undefined
    ? reporterName(reporter)
    : `${reporterName(reporter)} (${condition.reason}${since})`;
}

/** As log lines and pages write a reporter; an Envoy without a cluster has an empty one. */
function reporterName({ spec }: ReporterObject): string {
  return spec.cluster === '' ? spec.id : `${spec.cluster}/${spec.id}`;
}
