import { findCondition } from '../core/kubernetes.ts';
import type { ReporterStatus } from '../core/reporter-object.ts';
import { statusChange, type StatusInputs } from '../core/reporter-status.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import { OWN_OBJECT } from './rewritten-objects.ts';
import { STATUS_RETRY_MS, type StatusBudget } from './status-budget.ts';
import {
  collectStatusInputs,
  rewrittenSummary,
  type ShownSync,
  type StatusSources,
} from './status-inputs.ts';

/** The reasons of Synced that are written without waiting for the counts. */
const URGENT_REASONS = ['WritesRejected', 'RewrittenByAdmission', 'RemovalsHeld'] as const;

/** What to do about the status of a reporter. */
export type StatusAction =
  | { readonly type: 'write'; readonly inputs: StatusInputs }
  /** Evaluate again at `atMs`; undefined: after the next event. */
  | { readonly type: 'wait'; readonly atMs: number | undefined };

/** What the decision depends on, in addition to the entry and the status. */
export interface StatusScheduleSources extends StatusSources {
  readonly registry: Pick<ReporterRegistry, 'size'>;
  readonly statusBudget: StatusBudget;
}

/**
 * Decides whether the status of a reporter must be written: immediately if its meaning changed, with a delay if only
 * counts changed. Takes a write that it returns from the reporter's rate, and from the budget if it could have waited.
 *
 * @param before the status as last seen
 */
export function nextStatusWrite(
  entry: ReporterEntry,
  before: ReporterStatus | undefined,
  sources: StatusScheduleSources,
  nowMs: number,
): StatusAction {
  const { status, pendingWrites } = entry;
  const pending = sources.queue.pending(entry.key);
  const settled = settledReason(before);
  const wasSettled = settled !== undefined;
  const oldMs = pendingWrites.updateBacklog(pending, nowMs);
  const hasBudget = sources.statusBudget.isAvailable(sources.registry.size, nowMs);
  const reportsBacklog = nowMs >= oldMs && (pendingWrites.mayReportBacklog || hasBudget);
  const waitsForReport = wasSettled && nowMs >= oldMs && !reportsBacklog;
  const backlog = { pending, oldMs, waitsForReport, hasBudget };
  // With pending writes, even rejected ones, counting takes a comparison of each tunnel: not for every change.
  if (pending > 0 && entry.stream !== undefined && !showsOtherReason(entry, before, sources, nowMs)) {
    const compareMs = comparisonMs(entry, wasSettled, backlog, nowMs);
    if (nowMs < compareMs) return { type: 'wait', atMs: compareMs };
  }
  const inputs = collectStatusInputs(entry, sources, nowMs, { settled, reportsBacklog });
  const { rewritten } = status;
  if (rewritten !== undefined && statusChange(inputs, rewritten) !== 'conditions') {
    // Even if nothing differs: only the response to a write shows whether it is rewritten.
    if (nowMs < rewritten.retryAtMs) return { type: 'wait', atMs: rewritten.retryAtMs };
    const delayMs = sources.limiter.delayMs(entry.pendingWrites.rewritten, OWN_OBJECT, nowMs);
    return delayMs > 0 ? { type: 'wait', atMs: nowMs + delayMs } : { type: 'write', inputs };
  }
  const change = statusChange(inputs, before);
  if (change === 'none') return { type: 'wait', atMs: unchangedUntilMs(entry, sources, backlog, nowMs) };
  if (change === 'counts') {
    const atMs = countsMs(entry, sources, backlog, nowMs);
    if (nowMs < atMs) return { type: 'wait', atMs };
  }
  const waitMs = status.tryTake(nowMs);
  if (waitMs > 0) return { type: 'wait', atMs: nowMs + waitMs };
  const isReport = wasSettled && inputs.synced.reason === 'SyncInProgress';
  if (change === 'counts' || (isReport && !pendingWrites.mayReportBacklog))
    sources.statusBudget.take(sources.registry.size, nowMs);
  // If the write fails, it is repeated without another delay.
  if (isReport) pendingWrites.mayReportBacklog = true;
  return { type: 'write', inputs };
}

/** The writes of a reporter that wait. */
interface Backlog {
  readonly pending: number;
  /** When they have waited for long, monotonic ms; Infinity if none waits for a worker. */
  readonly oldMs: number;
  /** True if they have waited for long, and the status may not report that yet. */
  readonly waitsForReport: boolean;
  /** True if the status may be written although that could wait. */
  readonly hasBudget: boolean;
}

/** Returns the reason of Synced if it implies that no object waits to be written. */
function settledReason(status: ReporterStatus | undefined): ShownSync['settled'] {
  const synced = findCondition(status?.conditions, 'Synced');
  if (synced?.status === 'True') return 'UpToDate';
  return synced?.reason === 'TunnelsRejected' ? 'TunnelsRejected' : undefined;
}

/** Returns true if the status shows other urgent reasons, or flapping, than there are. */
function showsOtherReason(
  entry: ReporterEntry,
  before: ReporterStatus | undefined,
  sources: StatusScheduleSources,
  nowMs: number,
): boolean {
  const synced = findCondition(before?.conditions, 'Synced');
  const shown = URGENT_REASONS.find((reason) => reason === synced?.reason);
  const showsFlapping = before?.conditions?.some(({ type }) => type === 'Flapping') === true;
  return (
    urgentReason(entry, sources) !== shown || showsFlapping !== sources.flapping.hasFlapping(entry.key, nowMs)
  );
}

/** Returns when the tunnels of a reporter with pending writes are compared with its objects, monotonic ms. */
function comparisonMs(
  { status, pendingWrites }: ReporterEntry,
  wasSettled: boolean,
  backlog: Backlog,
  nowMs: number,
): number {
  // The end of all writes is an event, and counts from before it would need a second write.
  const isBrief = wasSettled && pendingWrites.blockedCount === 0 && nowMs < backlog.oldMs;
  return isBrief ? backlog.oldMs : status.compareDueMs(wasSettled ? backlog.oldMs : Infinity);
}

/** Records that nothing differs. Returns when that may change without an event, monotonic ms; undefined: never. */
function unchangedUntilMs(
  entry: ReporterEntry,
  sources: StatusScheduleSources,
  { pending, oldMs }: Backlog,
  nowMs: number,
): number | undefined {
  const { status } = entry;
  const endMs = nextEndMs(entry, sources, nowMs);
  status.settle(pending > 0 || endMs !== undefined);
  if (pending === 0) return endMs;
  status.compared(nowMs);
  return status.compareDueMs(oldMs);
}

/** Returns when a status of which only counts changed is written, or considered again; `nowMs` or earlier: now. */
function countsMs(
  entry: ReporterEntry,
  sources: StatusScheduleSources,
  { pending, oldMs, waitsForReport, hasBudget }: Backlog,
  nowMs: number,
): number {
  const { status, key } = entry;
  const endMs = nextEndMs(entry, sources, nowMs) ?? Infinity;
  // The report of the backlog will contain the counts.
  const dueMs = waitsForReport
    ? Infinity
    : Math.max(status.countsDueMs, hasBudget ? nowMs : nowMs + STATUS_RETRY_MS);
  if (nowMs < dueMs) {
    if (pending > 0) status.compared(nowMs);
    const compareMs = pending > 0 ? status.compareDueMs(oldMs) : Infinity;
    return Math.min(dueMs, compareMs, endMs);
  }
  const slotMs = sources.flapping.statusDelayMs(key, nowMs);
  if (slotMs === 0) return nowMs;
  return Math.min(nowMs + slotMs, nowMs < oldMs ? oldMs : Infinity, endMs);
}

/** Returns when a conflict or the flapping of a tunnel ends, which no event announces. */
function nextEndMs(
  { key, streamFlaps }: ReporterEntry,
  { flapping }: StatusScheduleSources,
  nowMs: number,
): number | undefined {
  const conflictMs = streamFlaps.conflictEndsMs(nowMs);
  const flappingMs = flapping.nextEndMs(key, nowMs);
  return conflictMs === undefined || flappingMs === undefined
    ? (conflictMs ?? flappingMs)
    : Math.min(conflictMs, flappingMs);
}

/** Returns the reason of Synced if writes wait for something else than a worker; undefined if none does. */
function urgentReason(
  entry: ReporterEntry,
  { ledger }: StatusSources,
): (typeof URGENT_REASONS)[number] | undefined {
  if (entry.pendingWrites.rejectedCount > 0) return 'WritesRejected';
  if (rewrittenSummary(entry) !== undefined) return 'RewrittenByAdmission';
  return entry.stream !== undefined && ledger.heldRemovals(entry.key) !== undefined
    ? 'RemovalsHeld'
    : undefined;
}
