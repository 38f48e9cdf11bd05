import type { ExpectationObject } from '../core/expectation-object.ts';
import { stateOf, type ExpectationState } from '../core/expectation-status.ts';
import { findCondition } from '../core/kubernetes.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import type { TunnelObject } from '../core/tunnel-object.ts';
import { parseReporterKey, reporterKey, type ReporterId } from '../core/tunnel.ts';
import type { SliceObject } from '../core/slice-object.ts';
import { compareStrings } from '../cli/format.ts';
import { isProbablyAlive, type ReplicaList } from '../cli/replicas.ts';
import { reporterState } from '../cli/reporter-state.ts';
import { tunnelsOfSlice } from '../cli/slice-tunnels.ts';

/** The counted fields of a tunnel in either form. It is small, as there may be 1,000,000. */
export interface TunnelSummary {
  /** Unique within the reporter. */
  readonly name: string;
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /** Key of the reporter, see `reporterKey`. */
  readonly reporter: string;
  /** The reporter has been disconnected for longer than `--unknown-after`. */
  readonly unknown: boolean;
}

/** Returns the counted fields of a ReverseTunnel object. */
export function summarizeTunnel({ spec, status }: Pick<TunnelObject, 'spec' | 'status'>): TunnelSummary {
  return {
    name: spec.tunnelName,
    tenantID: spec.tenantID,
    clusterID: spec.clusterID,
    nodeID: spec.nodeID,
    reporter: reporterKey(spec.reporter),
    unknown: status?.state === 'Unknown',
  };
}

/** Returns the counted fields of the entries of a slice, which share the texts that are equal for all of them. */
export function summarizeSlice(slice: SliceObject): TunnelSummary[] {
  const reporter = reporterKey(slice.spec.reporter);
  return Array.from(tunnelsOfSlice(slice), (tunnel) => ({ ...summarizeTunnel(tunnel), reporter }));
}

/** The objects of a fleet at one point in time, as read from the API server. */
export interface FleetSnapshot {
  readonly objects: Iterable<TunnelSummary>;
  /** The entries of each slice. Default: none. */
  readonly slices?: Iterable<readonly TunnelSummary[]>;
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
  /** Number of reported tunnels. Like `pending`, it can be 10 s old or more. */
  readonly reported: number;
  readonly objects: number;
  /** Number of tunnels that are entries of slices. */
  readonly entries: number;
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
    /** Each tunnel counts once, whatever its form is. */
    readonly tunnels: number;
    readonly unknown: number;
    /** Number of ReverseTunnel objects. */
    readonly objects: number;
    /** Number of tunnels that are entries of slices. */
    readonly entries: number;
    /** Number of tunnels that are objects and entries, as during a migration. */
    readonly inBothForms: number;
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
  /** The first tunnels that are objects and entries, at most 100. */
  readonly inBothForms: readonly TunnelInBothForms[];
}

/** A tunnel that is an object and an entry of a slice. */
export interface TunnelInBothForms {
  readonly reporter: ReporterId;
  readonly tunnel: string;
}

/** Maximum of `FleetSummary.inBothForms`. */
const MAX_NAMED_TUNNELS = 100;

/**
 * Counts the objects of a fleet. ReverseTunnels and reporters come from two lists, which can be slightly apart in time.
 */
export function summarize({
  objects,
  slices = [],
  reporters,
  expectations = [],
  replicas,
  nowMs,
}: FleetSnapshot): FleetSummary {
  const expectationSummaries = Array.from(expectations, summarizeExpectation).toSorted(
    (a, b) => STATE_ORDER.indexOf(a.state) - STATE_ORDER.indexOf(b.state) || compareStrings(a.name, b.name),
  );
  const counts = countTunnels(objects, slices);
  const { tenants, tunnels, unknown } = counts;
  const reporterSummaries = Array.from(reporters, (reporter) => summarizeReporter(reporter, counts));
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
      objects: sum([...counts.objects.values()]),
      entries: sum([...counts.entries.values()]),
      inBothForms: counts.inBothForms,
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
    inBothForms: counts.namedInBothForms.map(({ reporter, name }) => ({
      reporter: parseReporterKey(reporter),
      tunnel: name,
    })),
  };
}

/** Counts per reporter, by its key, and of all tunnels. */
interface TunnelCounts {
  readonly objects: ReadonlyMap<string, number>;
  readonly entries: ReadonlyMap<string, number>;
  readonly inBothForms: number;
  readonly namedInBothForms: readonly TunnelSummary[];
  readonly tunnels: number;
  readonly unknown: number;
  readonly tenants: readonly TenantSummary[];
}

/**
 * Counts up to 1,000,000 tunnels. Memory use is one counter per reporter and tenant, one set entry per node, and if there
 * are slices, one per tunnel. Tenants are sorted by number of tunnels, as the text output is cut off.
 */
function countTunnels(
  objects: Iterable<TunnelSummary>,
  slices: Iterable<readonly TunnelSummary[]>,
): TunnelCounts {
  const counts = new Map<
    string,
    { tunnels: number; unknown: number; nodes: Set<string>; reporters: Set<string> }
  >();
  let tunnels = 0;
  let unknown = 0;
  function count(tunnel: TunnelSummary): void {
    tunnels += 1;
    if (tunnel.unknown) unknown += 1;
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

  const objectCounts = new Map<string, number>();
  const objectNames = new TunnelNames();
  for (const tunnel of objects) {
    objectCounts.set(tunnel.reporter, (objectCounts.get(tunnel.reporter) ?? 0) + 1);
    objectNames.add(tunnel);
    count(tunnel);
  }
  const entryNames = new TunnelNames();
  const namedInBothForms: TunnelSummary[] = [];
  let inBothForms = 0;
  for (const entries of slices) {
    for (const tunnel of entries) {
      // While slices are merged, a tunnel can be in two of them.
      if (!entryNames.add(tunnel)) continue;
      if (objectNames.has(tunnel)) {
        inBothForms += 1;
        if (inBothForms <= MAX_NAMED_TUNNELS) namedInBothForms.push(tunnel);
      } else count(tunnel);
    }
  }
  const tenants = Array.from(counts, ([tenant, tenantCounts]) => ({
    tenant,
    tunnels: tenantCounts.tunnels,
    unknown: tenantCounts.unknown,
    nodes: tenantCounts.nodes.size,
    reporters: tenantCounts.reporters.size,
  }));
  tenants.sort((a, b) => b.tunnels - a.tunnels || compareStrings(a.tenant, b.tenant));
  return {
    objects: objectCounts,
    entries: entryNames.sizes(),
    inBothForms,
    namedInBothForms,
    tunnels,
    unknown,
    tenants,
  };
}

/** The tunnels of one form, by reporter and name. */
class TunnelNames {
  readonly #names = new Map<string, Set<string>>();

  /** Returns false if the tunnel has been added before. */
  add({ reporter, name }: TunnelSummary): boolean {
    const names = this.#names.get(reporter);
    if (names === undefined) {
      this.#names.set(reporter, new Set([name]));
      return true;
    }
    const sizeBefore = names.size;
    return names.add(name).size > sizeBefore;
  }

  has({ reporter, name }: TunnelSummary): boolean {
    return this.#names.get(reporter)?.has(name) === true;
  }

  sizes(): Map<string, number> {
    return new Map(Array.from(this.#names, ([reporter, { size }]) => [reporter, size]));
  }
}

/** Reasons of conditions whose messages are shown. */
const DETAILED_REASONS: ReadonlySet<string> = new Set(['RemovalsHeld', 'TunnelsFlapping']);

/** Summarizes the status of a reporter object. Before the first claim, all its conditions are Unknown. */
function summarizeReporter(
  reporter: ReporterObject,
  { objects, entries }: Pick<TunnelCounts, 'objects' | 'entries'>,
): ReporterSummary {
  const { spec, status } = reporter;
  const { failing, hasConflict, pending } = reporterState(reporter);
  const statusOf = (type: string): string => findCondition(status?.conditions, type)?.status ?? 'Unknown';
  const sinceMs = Date.parse(failing?.lastTransitionTime ?? '');
  return {
    id: spec.id,
    cluster: spec.cluster,
    connected: statusOf('Connected'),
    synced: statusOf('Synced'),
    reported: status?.tunnels?.reported ?? 0,
    objects: objects.get(reporterKey(spec)) ?? 0,
    entries: entries.get(reporterKey(spec)) ?? 0,
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
  const ready = findCondition(status?.conditions, 'Ready');
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
