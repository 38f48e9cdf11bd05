import type { ExpectationObject } from '../core/expectation-object.ts';
import { stateOf, type ExpectationState } from '../core/expectation-status.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import type { TunnelObject } from '../core/tunnel-object.ts';
import { reporterKey } from '../core/tunnel.ts';
import { compareStrings } from '../cli/format.ts';
import { isProbablyAlive, type ReplicaList } from '../cli/replicas.ts';
import { reporterState } from '../cli/reporter-state.ts';

/** The counted fields of a ReverseTunnel object. It is small, as there may be 500,000. */
export interface TunnelSummary {
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /** Key of the reporter, see `reporterKey`. */
  readonly reporter: string;
  /** The reporter has been disconnected for longer than `--unknown-after`. */
  readonly unknown: boolean;
}

/** Returns the counted fields of a ReverseTunnel object. */
export function summarizeTunnel({ spec, status }: TunnelObject): TunnelSummary {
  return {
    tenantID: spec.tenantID,
    clusterID: spec.clusterID,
    nodeID: spec.nodeID,
    reporter: reporterKey(spec.reporter),
    unknown: status?.state === 'Unknown',
  };
}

/** The objects of a fleet at one point in time, as read from the API server. */
export interface FleetSnapshot {
  readonly objects: Iterable<TunnelSummary>;
  readonly reporters: Iterable<ReporterObject>;
  /** Default: none. */
  readonly expectations?: Iterable<ExpectationObject>;
  readonly replicas: ReplicaList;
  /** Wall clock of this machine, in milliseconds since 1970. */
  readonly nowMs: number;
}

/** One operator process and the reporters that it owns. */
export interface ReplicaSummary {
  readonly replica: string;
  readonly leader: boolean;
  /** See `isProbablyAlive`. */
  readonly alive: boolean;
  readonly renewedAgoMs: number | undefined;
  /** Number of owned reporters, and of the tunnels that they report. */
  readonly reporters: number;
  readonly tunnels: number;
}

/** One reporting Envoy. */
export interface ReporterSummary {
  readonly id: string;
  readonly cluster: string;
  readonly connected: string;
  readonly synced: string;
  /** Number of reported tunnels. Like `pending`, it is up to 10 s old. */
  readonly reported: number;
  readonly objects: number;
  /** Number of reported tunnels that are neither written nor rejected. */
  readonly pending: number;
  readonly owner: string;
  /** Why the reporter is unhealthy: a condition or its reason; "" if it is healthy. */
  readonly note: string;
  /** The message of that condition if it is about held removals or flapping tunnels; "" otherwise. */
  readonly details: string;
  /** When that condition last changed, in milliseconds since 1970; undefined if unknown. */
  readonly noteSinceMs: number | undefined;
}

/** One expectation, as its status shows it. */
export interface ExpectationSummary {
  readonly name: string;
  readonly state: ExpectationState;
  readonly reason: string;
  readonly message: string;
  readonly tunnels: number;
  readonly reporters: number;
  readonly unknown: number;
  readonly missing: number;
  /** The first of the missing nodes, at most 20. */
  readonly missingNodes: readonly string[];
  /** Since when it has been in this state, in milliseconds since 1970; undefined before the first evaluation. */
  readonly sinceMs: number | undefined;
}

/** One tenant, across all reporters. */
export interface TenantSummary {
  readonly tenant: string;
  readonly tunnels: number;
  readonly unknown: number;
  /** Number of distinct initiators: a node with tunnels to two reporters counts once. */
  readonly nodes: number;
  readonly reporters: number;
}

/**
 * The fleet in numbers. Replicas and reporters are sorted by name, tenants by their number of tunnels, expectations by
 * their state (unsatisfied ones first) and name.
 */
export interface FleetSummary {
  readonly totals: {
    readonly tunnels: number;
    readonly unknown: number;
    readonly tenants: number;
    readonly reporters: number;
    readonly connected: number;
    readonly synced: number;
    readonly pending: number;
    readonly replicas: number;
    readonly alive: number;
    readonly expectations: number;
    /** Expectations that are unsatisfied or invalid. */
    readonly unsatisfied: number;
  };
  readonly expectations: readonly ExpectationSummary[];
  readonly replicas: readonly ReplicaSummary[];
  readonly reporters: readonly ReporterSummary[];
  readonly tenants: readonly TenantSummary[];
}

/**
 * Counts the objects of a fleet. ReverseTunnels and reporters come from two lists, which can be slightly apart in time.
 */
export function summarize({
  objects,
  reporters,
  expectations = [],
  replicas,
  nowMs,
}: FleetSnapshot): FleetSummary {
  const expectationSummaries = Array.from(expectations, summarizeExpectation).toSorted(
    (a, b) => STATE_ORDER.indexOf(a.state) - STATE_ORDER.indexOf(b.state) || compareStrings(a.name, b.name),
  );
  const { tenants, objectCounts, tunnels, unknown } = countTunnels(objects);
  const reporterSummaries = Array.from(reporters, (reporter) => summarizeReporter(reporter, objectCounts));
  reporterSummaries.sort((a, b) => compareStrings(a.cluster, b.cluster) || compareStrings(a.id, b.id));
  const replicaSummaries = replicas.replicas.map((replica): ReplicaSummary => {
    const owned = reporterSummaries.filter(({ owner }) => owner === replica.replica);
    return {
      replica: replica.replica,
      leader: replica.replica === replicas.leader,
      alive: isProbablyAlive(replica, nowMs),
      renewedAgoMs: replica.renewedMs === undefined ? undefined : nowMs - replica.renewedMs,
      reporters: owned.length,
      tunnels: sum(owned.map(({ reported }) => reported)),
    };
  });
  return {
    totals: {
      tunnels,
      unknown,
      tenants: tenants.length,
      reporters: reporterSummaries.length,
      connected: reporterSummaries.filter(({ connected }) => connected === 'True').length,
      synced: reporterSummaries.filter(({ synced }) => synced === 'True').length,
      pending: sum(reporterSummaries.map(({ pending }) => pending)),
      replicas: replicaSummaries.length,
      alive: replicaSummaries.filter(({ alive }) => alive).length,
      expectations: expectationSummaries.length,
      unsatisfied: expectationSummaries.filter(({ state }) => state === 'unsatisfied' || state === 'invalid')
        .length,
    },
    expectations: expectationSummaries,
    replicas: replicaSummaries,
    reporters: reporterSummaries,
    tenants,
  };
}

/**
 * Counts tunnels in one pass over up to 500,000 objects. Memory use is one counter per reporter and tenant, and one set
 * entry per node. Tenants are sorted by number of tunnels, as the text output is cut off.
 */
function countTunnels(objects: Iterable<TunnelSummary>) {
  const objectCounts = new Map<string, number>();
  const counts = new Map<
    string,
    { tunnels: number; unknown: number; nodes: Set<string>; reporters: Set<string> }
  >();
  let tunnels = 0;
  let unknown = 0;
  for (const tunnel of objects) {
    tunnels += 1;
    if (tunnel.unknown) unknown += 1;
    objectCounts.set(tunnel.reporter, (objectCounts.get(tunnel.reporter) ?? 0) + 1);
    let tenant = counts.get(tunnel.tenantID);
    if (tenant === undefined) {
      tenant = { tunnels: 0, unknown: 0, nodes: new Set(), reporters: new Set() };
      counts.set(tunnel.tenantID, tenant);
    }
    tenant.tunnels += 1;
    if (tunnel.unknown) tenant.unknown += 1;
    tenant.nodes.add(reporterKey({ cluster: tunnel.clusterID, id: tunnel.nodeID }));
    tenant.reporters.add(tunnel.reporter);
  }
  const tenants = Array.from(counts, ([tenant, count]) => ({
    tenant,
    tunnels: count.tunnels,
    unknown: count.unknown,
    nodes: count.nodes.size,
    reporters: count.reporters.size,
  }));
  tenants.sort((a, b) => b.tunnels - a.tunnels || compareStrings(a.tenant, b.tenant));
  return { tenants, objectCounts, tunnels, unknown };
}

/** Reasons of conditions whose messages are shown. */
const DETAILED_REASONS: ReadonlySet<string> = new Set(['RemovalsHeld', 'TunnelsFlapping']);

/** Summarizes the status of a reporter object. Before the first claim, all its conditions are Unknown. */
function summarizeReporter(
  reporter: ReporterObject,
  objectCounts: ReadonlyMap<string, number>,
): ReporterSummary {
  const { spec, status } = reporter;
  const { failing, hasConflict, pending } = reporterState(reporter);
  const statusOf = (type: string): string =>
    status?.conditions?.find((condition) => condition.type === type)?.status ?? 'Unknown';
  const sinceMs = Date.parse(failing?.lastTransitionTime ?? '');
  return {
    id: spec.id,
    cluster: spec.cluster,
    connected: statusOf('Connected'),
    synced: statusOf('Synced'),
    reported: status?.tunnels?.reported ?? 0,
    objects: objectCounts.get(reporterKey(spec)) ?? 0,
    pending,
    owner: status?.owner?.replica ?? '',
    note: (hasConflict ? failing?.type : failing?.reason) ?? '',
    details: DETAILED_REASONS.has(failing?.reason ?? '') ? (failing?.message ?? '') : '',
    // 1970 is the default in the CRD: no replica has written the condition yet.
    noteSinceMs: sinceMs > 0 ? sinceMs : undefined,
  };
}

/** The states by urgency. */
const STATE_ORDER: readonly ExpectationState[] = [
  'unsatisfied',
  'invalid',
  'unknown',
  'pending',
  'paused',
  'satisfied',
];

function summarizeExpectation({ metadata, status }: ExpectationObject): ExpectationSummary {
  const ready = status?.conditions?.find(({ type }) => type === 'Ready');
  const sinceMs = Date.parse(status?.since ?? '');
  return {
    name: metadata.name,
    state: stateOf(status) ?? 'pending',
    reason: ready?.reason ?? 'Pending',
    message: ready?.message ?? '',
    tunnels: status?.tunnels ?? 0,
    reporters: status?.reporters ?? 0,
    unknown: status?.unknown ?? 0,
    missing: status?.missing ?? 0,
    missingNodes: status?.missingNodes ?? [],
    sinceMs: Number.isNaN(sinceMs) ? undefined : sinceMs,
  };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, value) => total + value, 0);
}
