import type { Clock } from '../clock.ts';
import { stateOf } from '../core/expectation-status.ts';
import { findCondition } from '../core/kubernetes.ts';
import type { PolicyObject } from '../core/policy-object.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import { OMITTED_CREATED_AT } from '../core/tunnel-object.ts';
import { reporterKey } from '../core/tunnel.ts';
import { tunnelsOfSlice } from '../cli/slice-tunnels.ts';
import { listAll, listSlices, type Cluster } from '../cli/cluster.ts';
import { reporterState } from '../cli/reporter-state.ts';
import { isProbablyAlive, replicasFromLeases, type ReplicaList } from '../cli/replicas.ts';
import { ApiError } from '../k8s/api-error.ts';
import { LEADER_LEASE } from '../k8s/lease.ts';
import { policyResource } from '../k8s/resources.ts';
import { OPERATOR_RBAC_RULES, permissionsOf, type Permission } from '../k8s/rbac-rules.ts';
import type {
  ApiServerInfo,
  ExpectationInfo,
  PermissionInfo,
  PolicyInfo,
  ReplicaInputs,
  TunnelObjectCounts,
} from './inputs.ts';

/** Fetches the version of the API server and measures the round trip on an open connection, as each write needs it. */
export async function fetchApiServerInfo(
  { client, connection }: Cluster,
  clock: Clock,
): Promise<ApiServerInfo> {
  // The first request also includes the TLS handshake.
  await client.getRaw('/version');
  const startedMs = clock.monotonicMs();
  const { gitVersion } = await client.getRaw<{ gitVersion?: string }>('/version');
  return {
    server: connection.server.href,
    version: gitVersion ?? 'unknown',
    roundTripMs: clock.monotonicMs() - startedMs,
  };
}

/** Returns undefined if the account may not read the namespace: only a 404 proves that it does not exist. */
export async function fetchNamespaceExists({ client, namespace }: Cluster): Promise<boolean | undefined> {
  const namespaces = client.resource({ group: '', version: 'v1', plural: 'namespaces' });
  try {
    await namespaces.get(namespace);
    return true;
  } catch (error) {
    // The operator needs no permission for namespaces, so 403 is not an error.
    return error instanceof ApiError && (error.kind === 'not_found' || error.kind === 'namespace_not_found')
      ? false
      : undefined;
  }
}

/** The part of an access review that is read. */
interface AccessReview {
  readonly status?: { readonly allowed?: boolean };
}

/**
 * Sends one access review per permission, so that wildcards, groups and authorizers other than RBAC are respected.
 *
 * @param serviceAccount undefined: the account of the caller, which every account may review; reviewing another account
 *   requires the permission to create SubjectAccessReviews
 */
export async function fetchPermissions(
  { client, namespace }: Cluster,
  serviceAccount: string | undefined,
): Promise<PermissionInfo[]> {
  const kind = serviceAccount === undefined ? 'SelfSubjectAccessReview' : 'SubjectAccessReview';
  const reviews = client.resource<AccessReview>({
    group: 'authorization.k8s.io',
    version: 'v1',
    plural: `${kind.toLowerCase()}s`,
  });
  const subject =
    serviceAccount === undefined
      ? {}
      : {
          user: serviceAccountUsername(namespace, serviceAccount),
          // The groups of every ServiceAccount: a review does not add them, and would miss permissions bound to them.
          groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
        };
  return await Promise.all(
    permissionsOf(OPERATOR_RBAC_RULES).map(async (permission) => {
      const { group, resource, verb, subresource } = permission;
      const { status } = await reviews.create({
        apiVersion: 'authorization.k8s.io/v1',
        kind,
        spec: { ...subject, resourceAttributes: { namespace, group, resource, verb, subresource } },
      });
      return { permission: formatPermission(permission), allowed: status?.allowed === true };
    }),
  );
}

function formatPermission({ verb, group, resource, subresource }: Permission): string {
  return `${verb} ${resource}${subresource === undefined ? '' : `/${subresource}`}.${group}`;
}

/** Returns the username of a ServiceAccount in the API server. */
export function serviceAccountUsername(namespace: string, serviceAccount: string): string {
  return `system:serviceaccount:${namespace}:${serviceAccount}`;
}

/** A Lease is renewed every 5 s, so one that does not change within this time is not being renewed. */
const LEASE_POLL_INTERVAL_MS = 7_000;

/**
 * Lists the replicas. If a Lease looks expired, the Leases are listed again after 7 s: a changed renewTime proves that the
 * replica is alive, while a comparison of two machines' clocks proves nothing.
 *
 * @param onWait called with the reason before the wait
 */
export async function fetchReplicas(
  cluster: Cluster,
  clock: Clock,
  signal: AbortSignal,
  onWait: (reason: string) => void,
): Promise<ReplicaInputs> {
  const first = await listReplicas(cluster, signal);
  const nowMs = clock.wallMs();
  let second = first;
  if (first.replicas.some((replica) => !isProbablyAlive(replica, nowMs))) {
    onWait(`a Lease looks expired; watching for ${LEASE_POLL_INTERVAL_MS / 1000} s whether it is renewed`);
    await new Promise<void>((resolve) => {
      const cancel = clock.setTimer(LEASE_POLL_INTERVAL_MS, resolve);
      // After an abort no check runs; the wait only needs to end.
      signal.addEventListener('abort', () => {
        cancel();
        resolve();
      });
    });
    second = await listReplicas(cluster, signal);
  }
  const previousRenewals = new Map(first.replicas.map(({ replica, renewedMs }) => [replica, renewedMs]));
  return {
    leader: second.leader,
    replicas: second.replicas.map((replica) => ({
      replica: replica.replica,
      renewedMs: replica.renewedMs,
      requiresPolicy: replica.requiresPolicy,
      alive: isProbablyAlive(replica, nowMs) || previousRenewals.get(replica.replica) !== replica.renewedMs,
    })),
  };
}

async function listReplicas({ leases }: Cluster, signal: AbortSignal): Promise<ReplicaList> {
  return replicasFromLeases(await listAll(leases, (lease) => lease, signal), LEADER_LEASE);
}

/**
 * Lists ReverseTunnel objects and slices, then reporter objects. A reporter object is created before its tunnels, so in
 * this order a missing reporter object is really missing. Only the reporter and the state of each tunnel are kept, as
 * there may be 1,000,000, and the initiators whose clocks are ahead.
 */
export async function fetchTunnelsAndReporters(
  cluster: Cluster,
  signal: AbortSignal,
): Promise<{ tunnels: TunnelObjectCounts; reporters: ReporterObject[] }> {
  const objectStates = await listAll(
    cluster.tunnels,
    ({ metadata, spec, status }) => ({
      reporter: spec.reporter,
      unknown: status?.state === 'Unknown',
      ...(metadata.annotations?.[OMITTED_CREATED_AT] === undefined ? {} : { aheadNode: spec.nodeID }),
    }),
    signal,
  );
  // A tunnel in both forms counts as an object and as an entry: each of them can be Unknown or orphaned.
  const entries = await listSlices(
    cluster,
    (slice) =>
      Array.from(tunnelsOfSlice(slice), ({ status }) => ({
        reporter: slice.spec.reporter,
        unknown: status.state === 'Unknown',
      })),
    signal,
  );
  const entryStates = entries.flat();
  const reporters = await listAll(cluster.reporters, (object) => object, signal);
  const knownReporters = new Set(reporters.map(({ spec }) => reporterKey(spec)));
  const orphaned = new Map<string, number>();
  const createdInFuture = new Map<string, number>();
  for (const { aheadNode } of objectStates)
    if (aheadNode !== undefined) createdInFuture.set(aheadNode, (createdInFuture.get(aheadNode) ?? 0) + 1);
  const tunnelStates = [...objectStates, ...entryStates];
  for (const { reporter } of tunnelStates) {
    if (knownReporters.has(reporterKey(reporter))) continue;
    const name = `${reporter.cluster}/${reporter.id}`;
    orphaned.set(name, (orphaned.get(name) ?? 0) + 1);
  }
  const connected = new Set(
    reporters.filter((reporter) => reporterState(reporter).isConnected).map(({ spec }) => reporterKey(spec)),
  );
  const unknown = tunnelStates.filter((tunnel) => tunnel.unknown);
  const returning = unknown.filter(({ reporter }) => connected.has(reporterKey(reporter))).length;
  const counts = {
    tunnels: tunnelStates.length,
    entries: entryStates.length,
    unknown: unknown.length - returning,
    returning,
  };
  return { tunnels: { ...counts, orphaned, createdInFuture }, reporters };
}

/** Lists the expectations of the namespace. The CRD must be installed. */
export async function fetchExpectations(
  { expectations }: Cluster,
  signal: AbortSignal,
): Promise<ExpectationInfo[]> {
  return await listAll(
    expectations,
    ({ metadata, status }) => {
      const ready = findCondition(status?.conditions, 'Ready');
      return { name: metadata.name, state: stateOf(status), conditionMessage: ready?.message ?? '' };
    },
    signal,
  );
}

/** Lists the policies of the namespace. The CRD must be installed. */
export async function fetchPolicies(
  { client, namespace }: Cluster,
  signal: AbortSignal,
): Promise<PolicyInfo[]> {
  const policies = client.resource<PolicyObject>(policyResource(namespace));
  return await listAll(
    policies,
    ({ metadata, status }) => {
      const accepted = findCondition(status?.conditions, 'Accepted');
      return { name: metadata.name, accepted: accepted?.status, conditionMessage: accepted?.message ?? '' };
    },
    signal,
  );
}
