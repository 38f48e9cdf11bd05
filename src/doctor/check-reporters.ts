import { findCondition, type Condition } from '../core/kubernetes.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import { formatAge, truncateList } from '../cli/format.ts';
import { reporterState } from '../cli/reporter-state.ts';
import type { DoctorInputs } from './inputs.ts';
import { unavailable, type CheckResult, type CheckStatus } from './check-result.ts';
import { pluralize } from '../core/text.ts';
import { MIRRORED_KINDS, rewriteRemediation } from './rewrite-remediation.ts';

/**
 * The objects of a large reporter's first full push take some time to write. A reporter that is not in sync for longer
 * fails the check, whatever the reason.
 */
const SLOW_SYNC_MS = 60_000;

/** Checks that reporters are connected, in sync, free of identity conflicts, and owned by a live replica. */
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
  const results = [
    ...checkConnected(reporters.value, inputs.nowMs),
    ...checkSynced(reporters.value, inputs),
    ...checkConflicts(reporters.value),
    ...checkOwners(reporters.value, inputs),
  ];
  if (results.length > 0) return results;
  return [{ check: 'reporters', status: 'ok', message: describeSync(reporters.value) }];
}

/** Describes reporters that are all connected. Those that are not in sync are in the first minute of a normal sync. */
function describeSync(reporters: readonly ReporterObject[]): string {
  const states = reporters.map((reporter) => reporterState(reporter));
  const count = pluralize(reporters.length, 'reporter');
  const behind = states.filter(({ isSynced, pending }) => !isSynced || pending > 0);
  if (behind.length === 0) return `${count} connected and in sync`;
  const pending = behind.reduce((total, state) => total + state.pending, 0);
  return `${count} connected, ${reporters.length - behind.length} in sync, ${pluralize(pending, 'tunnel')} pending`;
}

/** Returns one result for all reporters whose condition Connected is not True; it is Unknown until the first claim. */
function checkConnected(reporters: readonly ReporterObject[], nowMs: number): CheckResult[] {
  const disconnected = reporters.flatMap((reporter) => {
    const connected = findCondition(reporter.status?.conditions, 'Connected');
    return reporterState(reporter).isConnected ? [] : [describe(reporter, connected, nowMs)];
  });
  if (disconnected.length === 0) return [];
  return [
    {
      check: 'reporters',
      // A single Envoy may have been scaled down. If all are disconnected, something is broken.
      status: disconnected.length === reporters.length ? 'fail' : 'warn',
      message: `${disconnected.length} of ${pluralize(reporters.length, 'reporter')} not connected: ${truncateList(disconnected)}`,
      remediation:
        'check that these Envoys run and reach the port; for one that is gone for good, kubectl delete rtr NAME deletes ' +
        'its objects now instead of after --expire-after',
    },
  ];
}

/**
 * Returns one result per reason of Synced, the most severe first: a quota that rejects the objects of a hundred reporters
 * is one line. Reasons that follow from another check (NotConnected, Pending) are ignored.
 */
function checkSynced(reporters: readonly ReporterObject[], inputs: DoctorInputs): CheckResult[] {
  const { nowMs } = inputs;
  const results: CheckResult[] = [];
  /** @param initialStatus in the first minute; undefined: it is normal then, and not a result */
  function addResult(
    reason: string,
    initialStatus: CheckStatus | undefined,
    message: string,
    remediation: string,
  ): void {
    const recent: string[] = [];
    const lasting: string[] = [];
    for (const reporter of reporters) {
      const synced = findCondition(reporter.status?.conditions, 'Synced');
      if (synced === undefined || synced.status === 'True' || synced.reason !== reason) continue;
      const isLasting = nowMs - Date.parse(synced.lastTransitionTime) >= SLOW_SYNC_MS;
      const suffix = synced.message === '' ? '' : `: ${synced.message}`;
      (isLasting ? lasting : recent).push(`${describe(reporter, synced, nowMs)}${suffix}`);
    }
    const lastingStatus = reason === 'AwaitingFullPush' || reason === 'RemovalsHeld' ? 'warn' : 'fail';
    for (const [status, affected] of [
      [lastingStatus, lasting],
      [initialStatus, recent],
    ] as const) {
      if (status === undefined || affected.length === 0) continue;
      results.push({
        check: 'synced',
        status,
        message: `${message}: ${truncateList(affected, 3)}`,
        remediation,
      });
    }
  }
  addResult(
    'WritesRejected',
    'fail',
    'the API server rejects ReverseTunnel writes',
    'see the error: a missing permission, a quota (kubectl describe quota), a webhook, or an older CRD',
  );
  addResult(
    'RewrittenByAdmission',
    'fail',
    'admission rewrites objects',
    rewriteRemediation(inputs, MIRRORED_KINDS),
  );
  addResult(
    'TunnelsRejected',
    'warn',
    'invalid tunnels were rejected',
    'fix the tenant, cluster or node ID of the initiator: docs/troubleshooting.md#tunnels-are-rejected',
  );
  addResult(
    'RemovalsHeld',
    'warn',
    'many tunnels are missing from a full push',
    'check that the initiators reach the Envoy: docs/troubleshooting.md#many-tunnels-are-missing',
  );
  addResult(
    'SyncInProgress',
    undefined,
    'ReverseTunnel objects are still being written',
    'the API server is slow or throttling: see reverse_tunnel_sync_lag_seconds and rest_client_requests_total',
  );
  addResult(
    'AwaitingFullPush',
    undefined,
    'only deltas received, no full push',
    'Envoy sends a full push on each connect; this is another client, or the stream is about to end',
  );
  return results;
}

/** Fails for identity conflicts: the reports of the two Envoys replace each other, so the objects are unreliable. */
function checkConflicts(reporters: readonly ReporterObject[]): CheckResult[] {
  const shared = reporters.filter((reporter) => reporterState(reporter).hasConflict);
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

/** Checks that each reporter is owned by a live replica. One without an owner was created but never claimed. */
function checkOwners(reporters: readonly ReporterObject[], { replicas }: DoctorInputs): CheckResult[] {
  if ('failure' in replicas) return [];
  const alive = new Set(
    replicas.value.replicas.filter((replica) => replica.alive).map(({ replica }) => replica),
  );
  // The check of the replicas reports this already.
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
 * Checks for ReverseTunnel objects that are Unknown or orphaned, and for initiators whose clocks are ahead. All are
 * warnings: the operator resolves the first two states itself, and another check reports what prevents it from doing so.
 */
export function checkTunnels({ tunnels }: DoctorInputs): CheckResult[] {
  if ('failure' in tunnels) return [unavailable('objects', tunnels)];
  const { tunnels: count, entries, unknown, returning, orphaned, createdInFuture } = tunnels.value;
  const results: CheckResult[] = [];
  if (unknown > 0) {
    results.push({
      check: 'objects',
      status: 'warn',
      message: `${unknown} of ${describeCount(count, entries)} Unknown, as their reporter is disconnected`,
      remediation: 'list them with kubectl rt get --state Unknown; they are deleted after --expire-after',
    });
  }
  if (orphaned.size > 0) {
    const countsByReporter = Array.from(orphaned, ([reporter, objects]) => `${reporter} (${objects})`);
    results.push({
      check: 'objects',
      status: 'warn',
      message: `ReverseTunnels without a ReverseTunnelReporter: ${truncateList(countsByReporter)}`,
      remediation:
        'the leader deletes them within about a minute; if they remain, check that there is a leader',
    });
  }
  if (createdInFuture.size > 0) {
    results.push({
      check: 'initiators',
      status: 'warn',
      message: `the clock was ahead when a tunnel came up, so createdAt is omitted: ${truncateList([...createdInFuture.keys()])}`,
      remediation:
        'synchronize the clocks of these initiators; createdAt and UP return when the tunnel reconnects',
    });
  }
  if (results.length === 0)
    results.push({
      check: 'objects',
      status: 'ok',
      message: count === 0 ? 'no ReverseTunnels' : describeObjects(describeCount(count, entries), returning),
    });
  return results;
}

/** @param returning objects of connected reporters that are about to be set from Unknown to Connected */
function describeObjects(objects: string, returning: number): string {
  return returning === 0
    ? `${objects}, all Connected`
    : `${objects}, ${returning} about to be set to Connected`;
}

/**
 * Checks that each policy is accepted. One that is not fails the check: it allows nothing, yet its existence means that
 * peers are denied by default. The check also fails if replicas require a policy and none exists.
 */
export function checkPolicies({ policies, replicas, namespace }: DoctorInputs): CheckResult[] {
  if (policies !== undefined && 'failure' in policies) return [unavailable('policies', policies)];
  const requiring =
    'value' in replicas
      ? replicas.value.replicas.filter((replica) => replica.alive && replica.requiresPolicy === true)
      : [];
  if (requiring.length > 0 && (policies === undefined || policies.value.length === 0)) {
    return [
      {
        check: 'policies',
        status: 'fail',
        message: `no ReverseTunnelPolicy exists in ${namespace}, and ${pluralize(requiring.length, 'replica')} with --require-policy ${requiring.length === 1 ? 'rejects' : 'reject'} every client`,
        remediation:
          'apply the policies (with the chart: helm upgrade with the same values, once the CRDs exist), or remove --require-policy',
      },
    ];
  }
  if (policies === undefined) return [];
  const results = policies.value.flatMap(({ name, accepted, conditionMessage }): CheckResult[] => {
    if (accepted === 'True') return [];
    const message =
      accepted === undefined
        ? `${name} has not been evaluated yet`
        : `${name} is not accepted${conditionMessage === '' ? '' : `: ${conditionMessage}`}`;
    const remediation =
      accepted === undefined
        ? 'check that a replica is alive'
        : `kubectl describe rtp ${name}, and fix its spec`;
    return [{ check: 'policies', status: accepted === undefined ? 'warn' : 'fail', message, remediation }];
  });
  if (results.length > 0) return results;
  const count = policies.value.length;
  const message =
    count === 0
      ? 'no ReverseTunnelPolicy: every client that passes --auth may report'
      : `${pluralize(count, 'policy', 'policies')} accepted`;
  return [{ check: 'policies', status: 'ok', message }];
}

/** Formats a reporter with the reason of a condition: `edge/responder-0 (HeartbeatTimeout for 4m)`. */
function describe(reporter: ReporterObject, condition: Condition | undefined, nowMs: number): string {
  const sinceMs = Date.parse(condition?.lastTransitionTime ?? '');
  // 1970 is the default in the CRD.
  const since = sinceMs > 0 ? ` for ${formatAge(nowMs - sinceMs)}` : '';
  return condition === undefined
    ? reporterName(reporter)
    : `${reporterName(reporter)} (${condition.reason}${since})`;
}

/** Formats a reporter as `cluster/id`, as log lines do; the cluster of an Envoy may be empty. */
function reporterName({ spec }: ReporterObject): string {
  return spec.cluster === '' ? spec.id : `${spec.cluster}/${spec.id}`;
}

/** @param entries how many of them are entries of slices */
function describeCount(count: number, entries: number): string {
  const objects = pluralize(count, 'ReverseTunnel');
  return entries === 0 ? objects : `${objects} (${entries} in slices)`;
}
