import type { Ledger } from '../core/ledger.ts';
import { deniedTunnelMessage } from '../core/policy-set.ts';
import type { TunnelCounts } from '../core/reporter-object.ts';
import type { StatusInputs, SyncStatus } from '../core/reporter-status.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import type { Workqueue } from './workqueue.ts';

/** A backlog that is younger than this is no news: changes are always on their way. */
export const BACKLOG_THRESHOLD_MS = 10_000;

/** What is looked at to tell how a reporter and its rows stand. */
export interface StatusInputsOptions {
  readonly ledger: Ledger;
  readonly queue: Workqueue;
  /** True when the row of a tunnel is not as it is to be. */
  readonly needsWrite: (key: string, tunnelName: string) => boolean;
  /** Names of the reporter's tunnels that have a row. */
  readonly objectNames: (key: string) => Iterable<string>;
  /** How many of the reporter's tunnels have a row. */
  readonly objectCount: (key: string) => number;
  readonly reportIntervalMs: () => number;
}

/** What the status of a reporter is to say now. */
export function collectStatusInputs(
  entry: ReporterEntry,
  options: StatusInputsOptions,
  nowMs: number,
  syncedNow: boolean,
): StatusInputs {
  const { stream } = entry;
  const conflict = entry.flaps.isConflict(nowMs);
  if (stream === undefined) {
    return {
      connected: entry.disconnectReason,
      synced: { reason: 'UpToDate' },
      conflict,
      connectedSince: undefined,
      lastFullPush: undefined,
      tunnels: undefined,
      reportIntervalSeconds: undefined,
      envoy: undefined,
    };
  }
  const { unwritten, extra } = diffObjects(entry, options);
  return {
    connected: 'StreamOpen',
    synced: syncStatus(entry, options, nowMs, unwritten > 0 || extra, syncedNow),
    conflict,
    connectedSince: stream.connectedSince,
    lastFullPush: stream.lastFullPush,
    tunnels: countTunnels(entry, options, unwritten),
    reportIntervalSeconds: options.reportIntervalMs() / 1000,
    envoy: stream.envoy,
  };
}

/**
 * How rows and ledger differ: not at all where nothing waits. Before the gate has opened, tunnels without a row are only
 * counted: all of them are about to be looked at anyway, and a look at 100,000 holds up every stream.
 */
function diffObjects(
  entry: ReporterEntry,
  { ledger, queue, needsWrite, objectNames, objectCount }: StatusInputsOptions,
): { unwritten: number; extra: boolean } {
  const { key } = entry;
  const isClosed = entry.writesSkippedSinceMs !== undefined;
  if (queue.pending(key) === 0 && !isClosed) return { unwritten: 0, extra: false };
  const missing = ledger.tunnelCount(key) - ledger.deniedCount(key) - objectCount(key);
  if (isClosed && missing > 0) return { unwritten: missing, extra: false };
  let unwritten = 0;
  for (const name of ledger.tunnelNames(key)) {
    if (!needsWrite(key, name)) continue;
    unwritten += 1;
    if (isClosed) return { unwritten, extra: false };
  }
  if (unwritten > 0) return { unwritten, extra: false };
  for (const name of objectNames(key)) if (needsWrite(key, name)) return { unwritten, extra: true };
  return { unwritten, extra: false };
}

function countTunnels(
  { key, stream }: ReporterEntry,
  { ledger }: StatusInputsOptions,
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

function syncStatus(
  entry: ReporterEntry,
  { ledger, queue }: StatusInputsOptions,
  nowMs: number,
  hasDiff: boolean,
  syncedNow: boolean,
): SyncStatus {
  const { key, stream, rejectedWrites } = entry;
  if (rejectedWrites !== undefined && rejectedWrites.size > 0) {
    return { reason: 'WritesRejected', objects: rejectedWrites.size, answer: entry.lastRejection };
  }
  if (!ledger.isComplete(key)) return { reason: 'AwaitingFullPush' };
  const isPending = hasDiff || queue.pending(key) > 0 || entry.deletionsDeferred;
  const isOld = entry.backlogSinceMs !== undefined && nowMs - entry.backlogSinceMs >= BACKLOG_THRESHOLD_MS;
  // From not synced to synced only when nothing waits; and back only when something has waited for long.
  if (isPending && (isOld || !syncedNow)) return { reason: 'SyncInProgress' };
  const denied = ledger.firstDenied(key);
  const tunnels = (stream?.rejected ?? 0) + ledger.deniedCount(key);
  if (stream !== undefined && tunnels > 0) {
    // What breaks the contract is a fault of the reporter; what policy does not allow may be meant so.
    const first =
      stream.rejected === 0 && denied !== undefined ? deniedTunnelMessage(denied) : stream.firstRejection;
    return { reason: 'TunnelsRejected', tunnels, first };
  }
  return { reason: 'UpToDate' };
}
