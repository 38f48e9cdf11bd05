import { MANAGED_BY_LABELS, type Names } from './names.ts';
import {
  Drift,
  reportedStatus,
  statusDrift,
  unknownStatus,
  type ObservedTunnel,
  type TunnelObjectStatus,
} from './tunnel-object.ts';
import { reporterKey, sameTunnel, type ReporterId, type Tunnel } from './tunnel.ts';

/** The most tunnels that a slice contains; the CRD limits the list to as many. */
export const MAX_SLICE_TUNNELS = 100;

/** A tunnel in a slice. The list is a map by `name`. */
export interface SliceEntry {
  readonly name: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /** As reported, even if it is in the future: no column of a slice shows it. */
  readonly createdAt?: string;
}

/** The tunnels of one reporter and one tenant; immutable except for the entries and their number. */
export interface SliceObjectSpec {
  readonly reporter: ReporterId;
  readonly tenantID: string;
  /** The number of entries, because a printer column cannot count them. */
  readonly tunnelCount?: number;
  readonly tunnels?: readonly SliceEntry[];
}

/** The state of the entries. Missing: the default of the CRD, which is that of reported tunnels. */
export interface SliceObjectStatus extends TunnelObjectStatus {
  /** The entries whose state differs from `state`. */
  readonly tunnels?: readonly SliceEntryState[];
}

/** The state of an entry that differs from that of its slice. */
export interface SliceEntryState {
  readonly name: string;
  readonly state: string;
}

/** The parts of a ReverseTunnelSlice that this project reads. */
export interface SliceObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly deletionTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly spec: SliceObjectSpec;
  readonly status?: SliceObjectStatus;
}

/** The desired slice, without what the API server adds. Its status is the default of the CRD. */
export interface SliceManifest {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly spec: Required<SliceObjectSpec>;
}

/** The mutable parts of a slice, for a merge patch, which replaces the list as a whole. */
export interface SlicePatch {
  readonly labels: Readonly<Record<string, string>>;
  readonly tunnelCount: number;
  readonly tunnels: readonly SliceEntry[];
}

/** The complete status of a slice, for a merge patch. */
export interface SliceStatusPatch extends TunnelObjectStatus {
  /** Null removes the list. */
  readonly tunnels: readonly SliceEntryState[] | null;
}

/** A slice as last observed. There is one per 100 tunnels at best, and its tunnels share the memory of those reported. */
export interface ObservedSlice {
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  /** The reporter; see `reporterKey`. */
  readonly key: string;
  readonly tenantID: string;
  /** The number at the end of the name; undefined if the name is not one that this project derives. */
  readonly ordinal: number | undefined;
  /** By tunnel name. */
  readonly entries: ReadonlyMap<string, Tunnel>;
  /** True if the state of the entries is Unknown, except for those in `exceptions`. */
  readonly isUnknown: boolean;
  /** Entries with the other state: Connected if `isUnknown`, Unknown if not. */
  readonly exceptions: ReadonlySet<string>;
  /** See `observeSlice`; never contains `unknown`. */
  readonly drift: Drift;
}

const NO_EXCEPTIONS: ReadonlySet<string> = new Set();

/** Returns the desired object for a slice. Entries are written in the given order. */
export function sliceManifest(
  names: Names,
  reporter: ReporterId,
  tenantID: string,
  ordinal: number,
  tunnels: Iterable<Tunnel>,
): SliceManifest {
  const { labels, ...content } = slicePatch(names, reporter, tenantID, tunnels);
  return {
    name: names.sliceObjectName(reporter, tenantID, ordinal),
    labels,
    // `cluster` is written even if it is empty: to the immutability rule, a missing field differs from "".
    spec: { reporter: { id: reporter.id, cluster: reporter.cluster }, tenantID, ...content },
  };
}

/** Returns the mutable parts of `sliceManifest`. */
export function slicePatch(
  names: Pick<Names, 'labelValue'>,
  reporter: ReporterId,
  tenantID: string,
  tunnels: Iterable<Tunnel>,
): SlicePatch {
  const entries: SliceEntry[] = [];
  for (const { name, clusterID, nodeID, createdAt } of tunnels)
    entries.push({ name, clusterID, nodeID, ...(createdAt === undefined ? {} : { createdAt }) });
  return {
    labels: sliceLabels(names, reporter, tenantID),
    tunnelCount: entries.length,
    tunnels: entries,
  };
}

/** Returns the labels that this project writes; other labels of a slice are ignored. */
export function sliceLabels(
  names: Pick<Names, 'labelValue'>,
  reporter: ReporterId,
  tenantID: string,
): Record<string, string> {
  return {
    'reverse-tunnel.io/tenant': names.labelValue(tenantID),
    'reverse-tunnel.io/reporter': names.labelValue(reporter.id),
    ...MANAGED_BY_LABELS,
  };
}

/**
 * Returns the status of a slice: Unknown if all of its entries are, otherwise Connected with the entries that are Unknown.
 *
 * @param unknown the names of the entries that are Unknown
 * @param size the number of entries
 */
export function sliceStatus(
  unknown: ReadonlySet<string>,
  size: number,
  transitionTime: string,
): SliceStatusPatch {
  if (size > 0 && unknown.size === size) return { ...unknownStatus(transitionTime), tunnels: null };
  const tunnels = Array.from(unknown, (name) => ({ name, state: 'Unknown' }));
  return { ...reportedStatus(transitionTime), tunnels: tunnels.length === 0 ? null : tunnels };
}

/** Returns the reporter of a slice from its spec. */
export function sliceReporterKey({ spec: { reporter } }: SliceObject): string {
  return reporterKey(reporter);
}

/**
 * Converts an object of the API to an observed slice. Its drift is
 * - `name`: the name is not derived from the spec.
 * - `labels`: a label is missing or different, or `tunnelCount` is wrong.
 * - `status`: the status is not one that this project writes for these entries.
 * - `terminating`: the slice is being deleted, and no tunnel is added to it.
 * - `closed`: it is kept by a finalizer, and its status shows that all of its tunnels are gone; `status` is set as well.
 *
 * @param shared returns the tunnel of the reporter whose memory is shared if it equals the entry
 * @param sent the manifest, if the object is the response to its creation: its name and labels are then not derived again
 */
export function observeSlice(
  names: Names,
  object: SliceObject,
  shared: (tunnelName: string) => Tunnel | undefined,
  sent?: SliceManifest,
): ObservedSlice {
  const { metadata, spec, status } = object;
  const entries = observeEntries(spec, shared);
  const ordinal = observeOrdinal(names, object, sent);
  const observedStatus = observeStatus(entries, status);
  const labels =
    sent !== undefined && sent.name === metadata.name
      ? sent.labels
      : sliceLabels(names, spec.reporter, spec.tenantID);
  let labelsMatch = spec.tunnelCount === undefined || spec.tunnelCount === entries.size;
  for (const label in labels) if (metadata.labels?.[label] !== labels[label]) labelsMatch = false;
  return {
    name: metadata.name,
    uid: metadata.uid,
    resourceVersion: metadata.resourceVersion,
    key: sliceReporterKey(object),
    tenantID: spec.tenantID,
    ordinal,
    entries,
    isUnknown: observedStatus.isUnknown,
    exceptions: observedStatus.exceptions,
    drift:
      (ordinal === undefined ? Drift.name : 0) |
      (labelsMatch ? 0 : Drift.labels) |
      observedStatus.drift |
      (metadata.deletionTimestamp === undefined ? 0 : Drift.terminating),
  };
}

/** Texts that occur in many entries share their memory, because there are up to millions of entries. */
function observeEntries(
  { tenantID, tunnels = [] }: SliceObjectSpec,
  shared: (tunnelName: string) => Tunnel | undefined,
): Map<string, Tunnel> {
  const entries = new Map<string, Tunnel>();
  let previousCluster = '';
  for (const entry of tunnels) {
    const { name, createdAt } = entry;
    const clusterID = entry.clusterID === previousCluster ? previousCluster : entry.clusterID;
    previousCluster = clusterID;
    const nodeID = entry.nodeID === name ? name : entry.nodeID;
    const tunnel: Tunnel = { name, tenantID, clusterID, nodeID, createdAt };
    const known = shared(name);
    const stored = known !== undefined && sameTunnel(known, tunnel) ? known : tunnel;
    entries.set(stored.name, stored);
  }
  return entries;
}

function observeOrdinal(
  names: Names,
  { metadata, spec }: SliceObject,
  sent?: SliceManifest,
): number | undefined {
  const { name } = metadata;
  const digits = /-(0|[1-9][0-9]{0,6})$/.exec(name)?.[1];
  if (digits === undefined) return undefined;
  const ordinal = Number(digits);
  if (sent?.name === name && sent.spec.tenantID === spec.tenantID) return ordinal;
  return names.sliceObjectName(spec.reporter, spec.tenantID, ordinal) === name ? ordinal : undefined;
}

function observeStatus(
  entries: ReadonlyMap<string, Tunnel>,
  status: SliceObjectStatus | undefined,
): { isUnknown: boolean; exceptions: ReadonlySet<string>; drift: Drift } {
  const isUnknown = status?.state === 'Unknown';
  const drift = statusDrift(status);
  const listed = status?.tunnels ?? [];
  if (listed.length === 0) {
    const isDesired = (drift & Drift.unknown) !== 0;
    return { isUnknown, exceptions: NO_EXCEPTIONS, drift: isDesired ? 0 : drift };
  }
  const exceptions = new Set<string>();
  for (const { name, state } of listed)
    if (entries.has(name) && (state === 'Unknown') !== isUnknown) exceptions.add(name);
  // Only a Connected slice has exceptions; see `sliceStatus`.
  const isDesired = drift === 0 && exceptions.size === listed.length;
  return {
    isUnknown,
    exceptions: exceptions.size === 0 ? NO_EXCEPTIONS : exceptions,
    drift: isDesired ? 0 : Drift.status,
  };
}

/** Returns true if the state of an entry of a slice is Unknown. */
export function isEntryUnknown({ isUnknown, exceptions }: ObservedSlice, tunnelName: string): boolean {
  return exceptions.size === 0 ? isUnknown : exceptions.has(tunnelName) !== isUnknown;
}

/**
 * Returns an entry in the form of an observed ReverseTunnel object, for whatever counts tunnels in either form. Name, uid
 * and version are those of the slice.
 */
export function observedEntry(slice: ObservedSlice, tunnelName: string): ObservedTunnel | undefined {
  const tunnel = slice.entries.get(tunnelName);
  if (tunnel === undefined) return undefined;
  const unknown = isEntryUnknown(slice, tunnelName) ? Drift.status | Drift.unknown : 0;
  const closed = (slice.drift & Drift.closed) === 0 ? 0 : Drift.status | Drift.closed;
  return {
    name: slice.name,
    uid: slice.uid,
    resourceVersion: slice.resourceVersion,
    tunnel,
    drift: (slice.drift & Drift.terminating) | unknown | closed,
  };
}
