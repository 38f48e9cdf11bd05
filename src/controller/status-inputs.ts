import type { FlappingTunnels } from '../core/flapping-tunnels.ts';
import type { Ledger } from '../core/ledger.ts';
import { deniedTunnelMessage } from '../core/policy-set.ts';
import type { TunnelCounts } from '../core/reporter-object.ts';
import type { RewrittenObjectsSummary, StatusInputs, SyncStatus } from '../core/reporter-status.ts';
import type { MirroredTunnels } from './mirrored-tunnels.ts';
import type { PendingWrites } from './pending-writes.ts';
import type { RewriteLimiter } from './rewrite-limiter.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import type { ControllerSettings } from './settings.ts';
import type { SliceAssignments } from './slice-assignments.ts';
import { sliceItemName, sliceNameOf } from './slice-item.ts';
import type { SlicePlanner } from './slice-planner.ts';
import type { Workqueue } from './workqueue.ts';
import type { WritePlanner } from './write-planner.ts';

/** What the status of a reporter is computed from, in addition to its entry. */
export interface StatusSources {
  readonly ledger: Ledger;
  /** The tunnels in either form. */
  readonly mirrored: MirroredTunnels;
  readonly planner: WritePlanner;
  readonly slicePlanner: SlicePlanner;
  readonly assignments: SliceAssignments;
  /** The queue of tunnels and slices. */
  readonly queue: Workqueue;
  readonly settings: ControllerSettings;
  readonly flapping: FlappingTunnels;
  /** Limits the attempts to write what admission rewrites. */
  readonly limiter: RewriteLimiter;
}

/** What the status shows now, as far as what it should report depends on that. */
export interface ShownSync {
  /** The reason of Synced if it implies that no object waits to be written. */
  readonly settled: 'UpToDate' | 'TunnelsRejected' | undefined;
  /** True if a settled status may report now that objects have waited for long. */
  readonly reportsBacklog: boolean;
}

/** For a status that this owner has not written yet. */
export const NOTHING_SHOWN: ShownSync = { settled: undefined, reportsBacklog: true };

/** Returns what the status of a reporter should report now. */
export function collectStatusInputs(
  entry: ReporterEntry,
  sources: StatusSources,
  nowMs: number,
  shown: ShownSync,
): StatusInputs {
  const { stream } = entry;
  const { disconnects } = entry.status;
  const conflict = entry.streamFlaps.isConflict(nowMs);
  const flapping = sources.flapping.summary(entry.key, nowMs);
  if (stream === undefined) {
    return {
      connected: entry.disconnectReason,
      synced: { reason: 'UpToDate' },
      conflict,
      flapping,
      connectedSince: undefined,
      lastFullPush: undefined,
      tunnels: undefined,
      reportIntervalSeconds: undefined,
      envoy: undefined,
      disconnects,
    };
  }
  const { unwritten, limited, extra } = diffObjects(entry, sources);
  return {
    connected: 'StreamOpen',
    synced: syncStatus(entry, sources, unwritten > 0 || extra, shown),
    conflict,
    flapping,
    connectedSince: stream.connectedSince,
    lastFullPush: stream.lastFullPush,
    tunnels: countTunnels(entry, sources, unwritten + limited),
    reportIntervalSeconds: sources.settings.reportIntervalMs / 1000,
    envoy: stream.envoy,
    disconnects,
  };
}

/** The differences between the reported tunnels of a reporter and what the API shows. */
interface ObjectsDiff {
  /** Tunnels that are not shown as they should be, except flapping ones whose next write is delayed. */
  readonly unwritten: number;
  /** Those flapping tunnels. */
  readonly limited: number;
  /** True if there are objects or entries that must be removed. */
  readonly extra: boolean;
}

/**
 * Compares the reported tunnels of a reporter with its objects, which do not differ unless writes wait: only the tunnels
 * of waiting writes are compared. While writes are skipped, missing objects are only estimated from the totals: all
 * tunnels will be compared anyway, and a comparison of 100,000 tunnels delays every stream.
 */
function diffObjects({ key, pendingWrites }: ReporterEntry, sources: StatusSources): ObjectsDiff {
  const { ledger, queue, mirrored } = sources;
  const isSkipping = pendingWrites.skippedSinceMs !== undefined;
  const pending = queue.pending(key);
  if (pending === 0 && !isSkipping) return { unwritten: 0, limited: 0, extra: false };
  const missing = ledger.tunnelCount(key) - ledger.deniedCount(key) - mirrored.tunnelCount(key);
  if (isSkipping && missing > 0) return { unwritten: missing, limited: 0, extra: false };
  const limited = countLimited(key, pendingWrites, sources);
  if (pending <= pendingWrites.limitedCount && !isSkipping) return { unwritten: 0, limited, extra: false };
  let unwritten = 0;
  let extra = false;
  for (const name of isSkipping ? allNames(key, sources) : pendingNames(key, sources)) {
    if (isLimited(key, name, pendingWrites, sources) || !needsWrite(key, name, sources)) continue;
    if (ledger.tunnel(key, name) === undefined) extra = true;
    else unwritten += 1;
    if (isSkipping) return { unwritten, limited, extra };
  }
  // Those of a large report come into the queue over several ticks.
  return { unwritten: Math.max(unwritten, missing - limited), limited, extra };
}

/** Yields the names of the tunnels that a reporter reports, and of those that the API shows; some of them twice. */
function* allNames(key: string, { ledger, mirrored }: StatusSources): Iterable<string> {
  yield* ledger.tunnelNames(key);
  yield* mirrored.tunnelNames(key);
}

/** Returns the names of the tunnels that waiting writes may change. */
function pendingNames(key: string, { queue, slicePlanner }: StatusSources): Set<string> {
  const names = new Set<string>();
  for (const itemName of queue.pendingNames(key)) {
    const sliceName = sliceNameOf(itemName);
    if (sliceName === undefined) names.add(itemName);
    else for (const name of slicePlanner.namesIn(key, sliceName)) names.add(name);
  }
  return names;
}

/** Returns true if a tunnel is not shown as it should be, in the form of an object or in slices. */
function needsWrite(key: string, name: string, { planner, slicePlanner }: StatusSources): boolean {
  return planner.needsWrite(key, name) || (slicePlanner.isUsed(key) && slicePlanner.needsWrite(key, name));
}

/** Returns true if the next write of a tunnel, or of its slice, is delayed because it flaps. */
function isLimited(
  key: string,
  name: string,
  pendingWrites: PendingWrites,
  { assignments }: StatusSources,
): boolean {
  if (pendingWrites.limitedCount === 0) return false;
  const sliceName = assignments.known(key)?.sliceOf(name);
  return (
    pendingWrites.isLimited(name) ||
    (sliceName !== undefined && pendingWrites.isLimited(sliceItemName(sliceName)))
  );
}

/** Counts the reported tunnels that are not shown as they should be because their next write is delayed. */
function countLimited(key: string, pendingWrites: PendingWrites, sources: StatusSources): number {
  const { ledger, slicePlanner } = sources;
  let count = 0;
  for (const itemName of pendingWrites.limitedNames()) {
    const sliceName = sliceNameOf(itemName);
    const names = sliceName === undefined ? [itemName] : slicePlanner.namesIn(key, sliceName);
    for (const name of names)
      if (ledger.tunnel(key, name) !== undefined && needsWrite(key, name, sources)) count += 1;
  }
  return count;
}

function countTunnels(
  { key, stream }: ReporterEntry,
  { ledger }: StatusSources,
  unwritten: number,
): TunnelCounts {
  const reported = ledger.tunnelCount(key);
  const invalid = stream?.rejected ?? 0;
  const denied = ledger.deniedCount(key);
  return {
    reported: reported + invalid,
    applied: Math.max(0, reported - denied - unwritten),
    rejected: invalid + denied,
  };
}

/** Returns what admission rewrites of a reporter's objects and of its own object; undefined if nothing. */
export function rewrittenSummary({
  pendingWrites,
  status,
  objectName,
}: ReporterEntry): RewrittenObjectsSummary | undefined {
  const { first, size } = pendingWrites.rewritten;
  if (first !== undefined) return { ...first, objects: size };
  return status.rewritten === undefined ? undefined : { ...status.rewritten, objects: 0, objectName };
}

function syncStatus(
  entry: ReporterEntry,
  { ledger, queue }: StatusSources,
  hasDiff: boolean,
  { settled, reportsBacklog }: ShownSync,
): SyncStatus {
  const { key, stream, pendingWrites } = entry;
  const { rejectedCount, lastRejection, deletionsDeferred } = pendingWrites;
  if (rejectedCount > 0) {
    return { reason: 'WritesRejected', objects: rejectedCount, answer: lastRejection };
  }
  const rewritten = rewrittenSummary(entry);
  if (rewritten !== undefined) return { reason: 'RewrittenByAdmission', ...rewritten };
  if (!ledger.isComplete(key)) return { reason: 'AwaitingFullPush' };
  const held = ledger.heldRemovals(key);
  if (held !== undefined)
    return { reason: 'RemovalsHeld', objects: held.size, until: entry.removalsHeldUntil };
  // The condition Flapping reports the writes for flapping tunnels, which would otherwise make this one flap as well.
  const isPending = hasDiff || queue.pending(key) > pendingWrites.limitedCount || deletionsDeferred;
  // Becomes settled only without waiting writes, and is so until writes have waited for long.
  if (isPending && (settled === undefined || reportsBacklog)) return { reason: 'SyncInProgress' };
  const denied = ledger.firstDenied(key);
  const tunnels = (stream?.rejected ?? 0) + ledger.deniedCount(key);
  if (stream !== undefined && tunnels > 0) {
    // Invalid tunnels are an error of the reporter; tunnels that a policy denies may be intended.
    const first =
      stream.rejected === 0 && denied !== undefined ? deniedTunnelMessage(denied) : stream.firstRejection;
    return { reason: 'TunnelsRejected', tunnels, first };
  }
  return { reason: isPending && settled !== 'UpToDate' ? 'SyncInProgress' : 'UpToDate' };
}
