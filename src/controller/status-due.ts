import type { Rate } from '../core/policy.ts';
import type { ReporterStatus } from '../core/reporter-object.ts';
import { statusChange, type ReporterFacts } from '../core/reporter-status.ts';
import { takeToken, untilTokenMs } from '../core/token-bucket.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import { BACKLOG_MS, factsOf, type FactsParts } from './reporter-facts.ts';

/** Changed counts alone are written no more often than this. */
const COUNTS_EVERY_MS = 10_000;
/** Status writes of one reporter beyond five at once come every 2 s: somebody may keep editing it. */
const STATUS_WRITES: Rate = { burst: 5, perSecond: 0.5 };

/** Whether a status is to be written now, and what it is to say. */
export type DueStatus =
  | { readonly do: 'write'; readonly facts: ReporterFacts }
  /** Looked at again at `atMs`; undefined: when something is told. */
  | { readonly do: 'wait'; readonly atMs: number | undefined };

/**
 * Decides about a reporter whose status may have to change: a change of meaning at once, changed counts in time. A write
 * that it gives is taken from what the reporter may have.
 *
 * @param before the status as last seen
 */
export function dueStatus(
  entry: ReporterEntry,
  before: ReporterStatus | undefined,
  parts: FactsParts,
  nowMs: number,
): DueStatus {
  const said = before?.conditions?.find(({ type }) => type === 'Synced');
  const synced = said?.status === 'True';
  const news = (entry.refused !== undefined) !== (said?.reason === 'WritesRejected');
  const countsMs = entry.statusWrittenMs + COUNTS_EVERY_MS;
  const waiting = parts.queue.pending(entry.key);
  const backlogMs = backlogAtMs(entry, waiting, nowMs);
  // With rows on their way, refused ones too, only a look at each tunnel counts them: not for every change.
  if (waiting > 0 && entry.stream !== undefined && !news) {
    const nextMs = synced && nowMs < backlogMs ? Math.min(backlogMs, countsMs) : countsMs;
    if (nowMs < nextMs) return { do: 'wait', atMs: nextMs };
  }
  const facts = factsOf(entry, parts, nowMs, synced);
  const change = statusChange(facts, before);
  if (change === 'none') {
    // Of what changes by the passing of time alone nobody tells.
    const endsMs = entry.places.endsMs(nowMs);
    entry.touched = waiting > 0 || endsMs !== undefined;
    const againMs = nowMs + COUNTS_EVERY_MS;
    if (waiting === 0) return { do: 'wait', atMs: endsMs };
    return { do: 'wait', atMs: backlogMs === Infinity ? againMs : Math.max(backlogMs, againMs) };
  }
  if (change === 'counts' && nowMs < countsMs) return { do: 'wait', atMs: countsMs };
  const waitMs = untilTokenMs(entry.statusBucket, STATUS_WRITES, nowMs);
  if (waitMs > 0) return { do: 'wait', atMs: nowMs + waitMs };
  takeToken(entry.statusBucket, STATUS_WRITES, nowMs);
  return { do: 'write', facts };
}

/** When rows that wait are to be called a backlog; never where none waits but refused ones. */
function backlogAtMs(entry: ReporterEntry, waiting: number, nowMs: number): number {
  if (waiting <= (entry.refused?.size ?? 0)) {
    entry.backlogSinceMs = undefined;
    return Number.POSITIVE_INFINITY;
  }
  entry.backlogSinceMs ??= nowMs;
  return entry.backlogSinceMs + BACKLOG_MS;
}
