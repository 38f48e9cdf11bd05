import type { ReporterStatus } from '../core/reporter-object.ts';
import { statusChange, type StatusInputs } from '../core/reporter-status.ts';
import { delayMs, take, type Rate } from '../core/token-bucket.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import { BACKLOG_THRESHOLD_MS, collectStatusInputs, type StatusInputsOptions } from './status-inputs.ts';

/** Changed counts alone are written no more often than this. */
const COUNTS_INTERVAL_MS = 10_000;
/** Status writes of one reporter beyond five at once come every 2 s: somebody may keep editing it. */
const STATUS_WRITE_RATE: Rate = { burst: 5, perSecond: 0.5 };

/** Whether a status is to be written now, and what it is to say. */
export type StatusAction =
  | { readonly type: 'write'; readonly inputs: StatusInputs }
  /** Looked at again at `atMs`; undefined: when something is told. */
  | { readonly type: 'wait'; readonly atMs: number | undefined };

/**
 * Decides about a reporter whose status may have to change: a change of meaning at once, changed counts in time. A write
 * that it gives is taken from what the reporter may have.
 *
 * @param before the status as last seen
 */
export function nextStatusWrite(
  entry: ReporterEntry,
  before: ReporterStatus | undefined,
  options: StatusInputsOptions,
  nowMs: number,
): StatusAction {
  const syncedCondition = before?.conditions?.find(({ type }) => type === 'Synced');
  const wasSynced = syncedCondition?.status === 'True';
  const rejectionsChanged =
    (entry.rejectedWrites !== undefined) !== (syncedCondition?.reason === 'WritesRejected');
  const countsMs = entry.statusWrittenMs + COUNTS_INTERVAL_MS;
  const pending = options.queue.pending(entry.key);
  const backlogMs = backlogAtMs(entry, pending, nowMs);
  // With rows on their way, refused ones too, only a look at each tunnel counts them: not for every change.
  if (pending > 0 && entry.stream !== undefined && !rejectionsChanged) {
    const nextMs = wasSynced && nowMs < backlogMs ? Math.min(backlogMs, countsMs) : countsMs;
    if (nowMs < nextMs) return { type: 'wait', atMs: nextMs };
  }
  const facts = collectStatusInputs(entry, options, nowMs, wasSynced);
  const change = statusChange(facts, before);
  if (change === 'none') {
    // Of what changes by the passing of time alone nobody tells.
    const endsMs = entry.flaps.conflictEndsMs(nowMs);
    entry.statusDirty = pending > 0 || endsMs !== undefined;
    const recheckMs = nowMs + COUNTS_INTERVAL_MS;
    if (pending === 0) return { type: 'wait', atMs: endsMs };
    return { type: 'wait', atMs: backlogMs === Infinity ? recheckMs : Math.max(backlogMs, recheckMs) };
  }
  if (change === 'counts' && nowMs < countsMs) return { type: 'wait', atMs: countsMs };
  const waitMs = delayMs(entry.statusBucket, STATUS_WRITE_RATE, nowMs);
  if (waitMs > 0) return { type: 'wait', atMs: nowMs + waitMs };
  take(entry.statusBucket, STATUS_WRITE_RATE, nowMs);
  return { type: 'write', inputs: facts };
}

/** When rows that wait are to be called a backlog; never where none waits but refused ones. */
function backlogAtMs(entry: ReporterEntry, pending: number, nowMs: number): number {
  if (pending <= (entry.rejectedWrites?.size ?? 0)) {
    entry.backlogSinceMs = undefined;
    return Number.POSITIVE_INFINITY;
  }
  entry.backlogSinceMs ??= nowMs;
  return entry.backlogSinceMs + BACKLOG_THRESHOLD_MS;
}
