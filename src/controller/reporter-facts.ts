import type { Ledger } from '../core/ledger.ts';
import { outsideMessage } from '../core/policy-violation.ts';
import type { TunnelCounts } from '../core/reporter-object.ts';
import type { ReporterFacts, SyncedFact } from '../core/reporter-status.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import type { Workqueue } from './workqueue.ts';

/** A backlog that is younger than this is no news: changes are always on their way. */
export const BACKLOG_MS = 10_000;

/** What is looked at to tell how a reporter and its rows stand. */
export interface FactsParts {
  readonly ledger: Ledger;
  readonly queue: Workqueue;
  /** True when the row of a tunnel is not as it is to be. */
  readonly isDue: (key: string, tunnelName: string) => boolean;
  /** Names of the reporter's tunnels that have a row. */
  readonly rowNames: (key: string) => Iterable<string>;
  /** How many of the reporter's tunnels have a row. */
  readonly rowCount: (key: string) => number;
  readonly reportIntervalMs: () => number;
}

/** What the status of a reporter is to say now. */
export function factsOf(
  entry: ReporterEntry,
  parts: FactsParts,
  nowMs: number,
  syncedNow: boolean,
): ReporterFacts {
  const { stream } = entry;
  const conflict = entry.places.conflict(nowMs);
  if (stream === undefined) {
    return {
      connected: entry.lostReason,
      synced: { reason: 'UpToDate' },
      conflict,
      connectedSince: undefined,
      lastFullPush: undefined,
      tunnels: undefined,
      reportIntervalSeconds: undefined,
      envoy: undefined,
    };
  }
  const { unwritten, extra } = differences(entry, parts);
  return {
    connected: 'StreamOpen',
    synced: syncedFact(entry, parts, nowMs, unwritten > 0 || extra, syncedNow),
    conflict,
    connectedSince: stream.connectedSince,
    lastFullPush: stream.lastFullPush,
    tunnels: counts(entry, parts, unwritten),
    reportIntervalSeconds: parts.reportIntervalMs() / 1000,
    envoy: stream.envoy,
  };
}

/**
 * How rows and ledger differ: not at all where nothing waits. Before the gate has opened, tunnels without a row are only
 * counted: all of them are about to be looked at anyway, and a look at 100,000 holds up every stream.
 */
function differences(
  entry: ReporterEntry,
  { ledger, queue, isDue, rowNames, rowCount }: FactsParts,
): { unwritten: number; extra: boolean } {
  const { key } = entry;
  const closed = entry.skippedSinceMs !== undefined;
  if (queue.pending(key) === 0 && !closed) return { unwritten: 0, extra: false };
  const without = ledger.tunnelCount(key) - ledger.outsideCount(key) - rowCount(key);
  if (closed && without > 0) return { unwritten: without, extra: false };
  let unwritten = 0;
  for (const name of ledger.tunnelNames(key)) {
    if (!isDue(key, name)) continue;
    unwritten += 1;
    if (closed) return { unwritten, extra: false };
  }
  if (unwritten > 0) return { unwritten, extra: false };
  for (const name of rowNames(key)) if (isDue(key, name)) return { unwritten, extra: true };
  return { unwritten, extra: false };
}

function counts({ key, stream }: ReporterEntry, { ledger }: FactsParts, unwritten: number): TunnelCounts {
  const held = ledger.tunnelCount(key);
  const invalid = stream?.rejected ?? 0;
  const outside = ledger.outsideCount(key);
  return {
    reported: held + invalid,
    applied: Math.max(0, held - outside - unwritten),
    rejected: invalid + outside,
  };
}

function syncedFact(
  entry: ReporterEntry,
  { ledger, queue }: FactsParts,
  nowMs: number,
  differ: boolean,
  syncedNow: boolean,
): SyncedFact {
  const { key, stream, refused } = entry;
  if (refused !== undefined && refused.size > 0) {
    return { reason: 'WritesRejected', rows: refused.size, answer: entry.refusedAnswer };
  }
  if (!ledger.isComplete(key)) return { reason: 'AwaitingFullPush' };
  const waits = differ || queue.pending(key) > 0 || entry.collectLater;
  const old = entry.backlogSinceMs !== undefined && nowMs - entry.backlogSinceMs >= BACKLOG_MS;
  // From not synced to synced only when nothing waits; and back only when something has waited for long.
  if (waits && (old || !syncedNow)) return { reason: 'SyncInProgress' };
  const outside = ledger.firstOutside(key);
  const tunnels = (stream?.rejected ?? 0) + ledger.outsideCount(key);
  if (stream !== undefined && tunnels > 0) {
    // What breaks the contract is a fault of the reporter; what policy does not allow may be meant so.
    const first =
      stream.rejected === 0 && outside !== undefined ? outsideMessage(outside) : stream.firstRejected;
    return { reason: 'TunnelsRejected', tunnels, first };
  }
  return { reason: 'UpToDate' };
}
