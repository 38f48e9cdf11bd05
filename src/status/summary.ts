import type { ReporterObject } from '../core/reporter-object.ts';
import type { TunnelObject } from '../core/tunnel-object.ts';
import { reporterKey } from '../core/tunnel.ts';
import { compareStrings, isProbablyAlive, type ReplicaList } from '../cli/replicas.ts';

/** A row, as far as the summary counts it: kept small, as there may be 100,000. */
export interface TunnelSummary {
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /** As `reporterKey` gives it. */
  readonly reporter: string;
  /** Its reporter has been lost for longer than `--unknown-after`. */
  readonly unknown: boolean;
}

/** What is kept of a row. */
export function summarizeTunnel({ spec, status }: TunnelObject): TunnelSummary {
  return {
    tenantID: spec.tenantID,
    clusterID: spec.clusterID,
    nodeID: spec.nodeID,
    reporter: reporterKey(spec.reporter),
    unknown: status?.state === 'Unknown',
  };
}

/** The fleet at one moment, as far as the API server shows it. */
export interface FleetSnapshot {
  readonly objects: Iterable<TunnelSummary>;
  readonly reporters: Iterable<ReporterObject>;
  readonly replicas: ReplicaList;
  /** Wall clock of whoever asks, in milliseconds since 1970. */
  readonly nowMs: number;
}

/** One process of the operator, with what it owns. */
export interface ReplicaSummary {
  readonly replica: string;
  readonly leader: boolean;
  /** By this machine's clock against the replica's. */
  readonly alive: boolean;
  readonly renewedAgoMs: number | undefined;
  /** Reporters whose rows it writes, and their tunnels. */
  readonly reporters: number;
  readonly tunnels: number;
}

/** One reporting Envoy. */
export interface ReporterSummary {
  readonly id: string;
  readonly cluster: string;
  readonly connected: string;
  readonly synced: string;
  /** Tunnels that it says it holds; up to 10 s old, as `pending` is. */
  readonly reported: number;
  readonly objects: number;
  /** Reported tunnels that are neither written nor rejected. */
  readonly pending: number;
  readonly owner: string;
  /** Why it is not as it should be, and since when; "" when it is. */
  readonly note: string;
  readonly noteSinceMs: number | undefined;
}

/** One tenant, over all reporters. */
export interface TenantSummary {
  readonly tenant: string;
  readonly tunnels: number;
  readonly unknown: number;
  /** Distinct initiators: a node with tunnels to two reporters counts once. */
  readonly nodes: number;
  readonly reporters: number;
}

/** The fleet at a glance; lists are complete, and sorted by size or name. */
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
  };
  readonly replicas: readonly ReplicaSummary[];
  readonly reporters: readonly ReporterSummary[];
  readonly tenants: readonly TenantSummary[];
}

/** Counts the fleet. Rows and reporters are two lists: while much changes they may be moments apart. */
export function summarize({ objects, reporters, replicas, nowMs }: FleetSnapshot): FleetSummary {
  const { tenants, objectCounts, tunnels, unknown } = countTunnels(objects);
  const reporterSummaries = Array.from(reporters, (replica) => summarizeReporter(replica, objectCounts));
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
    },
    replicas: replicaSummaries,
    reporters: reporterSummaries,
    tenants,
  };
}

/**
 * One pass over what may be 500,000 rows. In memory stays a count a reporter and tenant, and a set of a tenant's nodes.
 * Tenants with most tunnels stand first, as the screen shows only some.
 */
function countTunnels(rows: Iterable<TunnelSummary>) {
  const objectCounts = new Map<string, number>();
  const counts = new Map<
    string,
    { tunnels: number; unknown: number; nodes: Set<string>; reporters: Set<string> }
  >();
  let tunnels = 0;
  let unknown = 0;
  for (const tunnel of rows) {
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

/** What the object says of itself, and how many rows name it. Of an object that nobody has claimed all is Unknown. */
function summarizeReporter(
  { spec, status }: ReporterObject,
  objectCounts: ReadonlyMap<string, number>,
): ReporterSummary {
  const condition = (type: string) => status?.conditions?.find((candidate) => candidate.type === type);
  const connected = condition('Connected');
  const synced = condition('Synced');
  const conflict = condition('IdentityConflict');
  // The first that is wrong explains those after it.
  const failing =
    conflict?.status === 'True'
      ? conflict
      : [connected, synced].find((candidate) => candidate?.status !== 'True');
  const { reported = 0, applied = 0, rejected = 0 } = status?.tunnels ?? {};
  const sinceMs = Date.parse(failing?.lastTransitionTime ?? '');
  return {
    id: spec.id,
    cluster: spec.cluster,
    connected: connected?.status ?? 'Unknown',
    synced: synced?.status ?? 'Unknown',
    reported,
    objects: objectCounts.get(reporterKey(spec)) ?? 0,
    // Of one that is not connected nobody says that a tunnel still has to become a row.
    pending: connected?.status === 'True' ? Math.max(0, reported - applied - rejected) : 0,
    owner: status?.owner?.replica ?? '',
    note: failing === conflict && conflict !== undefined ? conflict.type : (failing?.reason ?? ''),
    // The CRD's default says 1970: nobody has said anything yet.
    noteSinceMs: sinceMs > 0 ? sinceMs : undefined,
  };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, value) => total + value, 0);
}
