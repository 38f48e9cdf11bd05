import type { ReporterObject } from '../core/reporter-object.ts';
import type { RowObject } from '../core/row.ts';
import { reporterKey } from '../core/tunnel.ts';
import { compareText, looksAlive, type ReplicasShown } from '../inspect/replicas.ts';

/** A row, as far as the summary counts it: kept small, as there may be 100,000. */
export interface RowCounted {
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /** As `reporterKey` gives it. */
  readonly reporter: string;
  /** Its reporter has been lost for longer than `--unknown-after`. */
  readonly unknown: boolean;
}

/** What is kept of a row. */
export function countedRow({ spec, status }: RowObject): RowCounted {
  return {
    tenantID: spec.tenantID,
    clusterID: spec.clusterID,
    nodeID: spec.nodeID,
    reporter: reporterKey(spec.reporter),
    unknown: status?.state === 'Unknown',
  };
}

/** The fleet at one moment, as far as the API server shows it. */
export interface FleetFacts {
  readonly rows: Iterable<RowCounted>;
  readonly reporters: Iterable<ReporterObject>;
  readonly replicas: ReplicasShown;
  /** Wall clock of whoever asks, in milliseconds since 1970. */
  readonly nowMs: number;
}

/** One process of the operator, with what it owns. */
export interface ReplicaLine {
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
export interface ReporterLine {
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
export interface TenantLine {
  readonly tenant: string;
  readonly tunnels: number;
  readonly unknown: number;
  /** Distinct initiators: a node with tunnels to two reporters counts once. */
  readonly nodes: number;
  readonly reporters: number;
}

/** The fleet at a glance; lists are complete, and sorted by size or name. */
export interface Summary {
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
  readonly replicas: readonly ReplicaLine[];
  readonly reporters: readonly ReporterLine[];
  readonly tenants: readonly TenantLine[];
}

/** Counts the fleet. Rows and reporters are two lists: while much changes they may be moments apart. */
export function summarize({ rows, reporters, replicas, nowMs }: FleetFacts): Summary {
  const { tenants, rowsOf, tunnels, unknown } = countRows(rows);
  const reporterLines = Array.from(reporters, (one) => reporterLine(one, rowsOf));
  reporterLines.sort((a, b) => compareText(a.cluster, b.cluster) || compareText(a.id, b.id));
  const replicaLines = replicas.replicas.map((one): ReplicaLine => {
    const owned = reporterLines.filter(({ owner }) => owner === one.replica);
    return {
      replica: one.replica,
      leader: one.replica === replicas.leader,
      alive: looksAlive(one, nowMs),
      renewedAgoMs: one.renewedMs === undefined ? undefined : nowMs - one.renewedMs,
      reporters: owned.length,
      tunnels: sum(owned.map(({ reported }) => reported)),
    };
  });
  return {
    totals: {
      tunnels,
      unknown,
      tenants: tenants.length,
      reporters: reporterLines.length,
      connected: reporterLines.filter(({ connected }) => connected === 'True').length,
      synced: reporterLines.filter(({ synced }) => synced === 'True').length,
      pending: sum(reporterLines.map(({ pending }) => pending)),
      replicas: replicaLines.length,
      alive: replicaLines.filter(({ alive }) => alive).length,
    },
    replicas: replicaLines,
    reporters: reporterLines,
    tenants,
  };
}

/**
 * One pass over what may be 500,000 rows. In memory stays a count a reporter and tenant, and a set of a tenant's nodes.
 * Tenants with most tunnels stand first, as the screen shows only some.
 */
function countRows(rows: Iterable<RowCounted>) {
  const rowsOf = new Map<string, number>();
  const counts = new Map<
    string,
    { tunnels: number; unknown: number; nodes: Set<string>; reporters: Set<string> }
  >();
  let tunnels = 0;
  let unknown = 0;
  for (const row of rows) {
    tunnels += 1;
    if (row.unknown) unknown += 1;
    rowsOf.set(row.reporter, (rowsOf.get(row.reporter) ?? 0) + 1);
    let tenant = counts.get(row.tenantID);
    if (tenant === undefined) {
      tenant = { tunnels: 0, unknown: 0, nodes: new Set(), reporters: new Set() };
      counts.set(row.tenantID, tenant);
    }
    tenant.tunnels += 1;
    if (row.unknown) tenant.unknown += 1;
    tenant.nodes.add(reporterKey({ cluster: row.clusterID, id: row.nodeID }));
    tenant.reporters.add(row.reporter);
  }
  const tenants = Array.from(counts, ([tenant, count]) => ({
    tenant,
    tunnels: count.tunnels,
    unknown: count.unknown,
    nodes: count.nodes.size,
    reporters: count.reporters.size,
  }));
  tenants.sort((a, b) => b.tunnels - a.tunnels || compareText(a.tenant, b.tenant));
  return { tenants, rowsOf, tunnels, unknown };
}

/** What the object says of itself, and how many rows name it. Of an object that nobody has claimed all is Unknown. */
function reporterLine({ spec, status }: ReporterObject, rowsOf: ReadonlyMap<string, number>): ReporterLine {
  const condition = (type: string) => status?.conditions?.find((one) => one.type === type);
  const connected = condition('Connected');
  const synced = condition('Synced');
  const conflict = condition('IdentityConflict');
  // The first that is wrong explains those after it.
  const wrong =
    conflict?.status === 'True' ? conflict : [connected, synced].find((one) => one?.status !== 'True');
  const { reported = 0, applied = 0, rejected = 0 } = status?.tunnels ?? {};
  const sinceMs = Date.parse(wrong?.lastTransitionTime ?? '');
  return {
    id: spec.id,
    cluster: spec.cluster,
    connected: connected?.status ?? 'Unknown',
    synced: synced?.status ?? 'Unknown',
    reported,
    objects: rowsOf.get(reporterKey(spec)) ?? 0,
    // Of one that is not connected nobody says that a tunnel still has to become a row.
    pending: connected?.status === 'True' ? Math.max(0, reported - applied - rejected) : 0,
    owner: status?.owner?.replica ?? '',
    note: wrong === conflict && conflict !== undefined ? conflict.type : (wrong?.reason ?? ''),
    // The CRD's default says 1970: nobody has said anything yet.
    noteSinceMs: sinceMs > 0 ? sinceMs : undefined,
  };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0);
}
