import type { Condition } from '../core/kubernetes.ts';
import type { ReporterDisconnect, ReporterStatus } from '../core/reporter-object.ts';
import { MAX_RECENT_DISCONNECTS, statusChange, type StatusInputs } from '../core/reporter-status.ts';
import type { RewrittenField } from '../core/rewrite.ts';
import { delayMs, newBucket, take, type Rate } from '../core/token-bucket.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import { OWN_OBJECT } from './rewritten-objects.ts';
import { collectStatusInputs, rewrittenSummary, type StatusSources } from './status-inputs.ts';

/**
 * A status in which only counts or messages changed is written at most once per 200 ms times the number of reporters of
 * this replica, so that 50 to 600 reporters cause 5 of these writes per second on average. Each costs the API server as
 * much as two objects: those of 500 reporters that are filled at the same time would take the time of 1,000 objects every
 * 10 s.
 */
const COUNTS_INTERVAL_PER_REPORTER_MS = 200;
const MIN_COUNTS_INTERVAL_MS = 10_000;
const MAX_COUNTS_INTERVAL_MS = 120_000;
/** While writes wait, the tunnels of a reporter are compared with its objects at most this often. */
const COMPARE_INTERVAL_MS = 10_000;
/** Status writes of one reporter: 5 at once, then one per 2 s, because a user may keep editing the status. */
const STATUS_WRITE_RATE: Rate = { burst: 5, perSecond: 0.5 };

/** The reasons of Synced that are written without waiting for the counts. */
const URGENT_REASONS = ['WritesRejected', 'RewrittenByAdmission', 'RemovalsHeld'] as const;

/** A status write that admission rewrote. */
export interface RewrittenStatus extends RewrittenField {
  /** The conditions that were written. */
  readonly conditions: readonly Condition[];
  /** When the status may be written again without a change of a condition, monotonic ms. */
  readonly retryAtMs: number;
}

/** What a status that was written contained, as far as the next one depends on it. */
type WrittenInputs = Pick<StatusInputs, 'synced' | 'conflict' | 'flapping' | 'disconnects'>;

/** The state of a reporter's status writes. */
export class StatusState {
  readonly #bucket = newBucket();
  #isDirty = false;
  /** Defined if admission rewrote the last write. Written by `ReporterReconciler`. */
  rewritten: RewrittenStatus | undefined;
  #writtenMs = Number.NEGATIVE_INFINITY;
  #comparedMs = Number.NEGATIVE_INFINITY;
  #disconnects: readonly ReporterDisconnect[] = [];

  /** Ends of streams that are not written yet, the newest first: at most as many as a status contains. */
  get disconnects(): readonly ReporterDisconnect[] {
    return this.#disconnects;
  }

  /** Records the end of a stream, which is written together with the next change of the status. */
  recordDisconnect(disconnect: ReporterDisconnect): void {
    this.#disconnects = [disconnect, ...this.#disconnects].slice(0, MAX_RECENT_DISCONNECTS);
  }

  /** True if the status may differ from what it should be. */
  get isDirty(): boolean {
    return this.#isDirty;
  }

  /** Returns when changed counts may be written, monotonic ms. */
  countsDueMs(reporterCount: number): number {
    const intervalMs = reporterCount * COUNTS_INTERVAL_PER_REPORTER_MS;
    return this.#writtenMs + Math.min(Math.max(intervalMs, MIN_COUNTS_INTERVAL_MS), MAX_COUNTS_INTERVAL_MS);
  }

  /**
   * Returns when the tunnels are compared with the objects next while writes wait, monotonic ms.
   *
   * @param backlogMs when the writes have waited for long, after which they are compared once without a delay
   */
  compareDueMs(backlogMs: number): number {
    const intervalEndsMs = Math.max(this.#writtenMs, this.#comparedMs) + COMPARE_INTERVAL_MS;
    return this.#comparedMs < backlogMs ? Math.min(backlogMs, intervalEndsMs) : intervalEndsMs;
  }

  /** Records a comparison after which no write is due. */
  compared(nowMs: number): void {
    this.#comparedMs = nowMs;
  }

  /** Records that something changed that the status may report. */
  markDirty(): void {
    this.#isDirty = true;
  }

  /** Records that the status is up to date, or that it will only change with the passing of time. */
  settle(stillChanges: boolean): void {
    this.#isDirty = stillChanges;
  }

  /** Records a write. Events during the write leave the state dirty, and `statusChange` decides about them. */
  written(inputs: WrittenInputs, nowMs: number): void {
    this.#writtenMs = nowMs;
    this.#disconnects = this.#disconnects.filter((disconnect) => !inputs.disconnects.includes(disconnect));
    const { synced, conflict, flapping } = inputs;
    if (synced.reason !== 'UpToDate' || conflict || flapping !== undefined) this.#isDirty = true;
  }

  /** Takes one write from the reporter's rate. Returns how long to wait instead, in ms, if it is used up. */
  tryTake(nowMs: number): number {
    const waitMs = delayMs(this.#bucket, STATUS_WRITE_RATE, nowMs);
    if (waitMs === 0) take(this.#bucket, STATUS_WRITE_RATE, nowMs);
    return waitMs;
  }
}

/** What to do about the status of a reporter. */
export type StatusAction =
  | { readonly type: 'write'; readonly inputs: StatusInputs }
  /** Evaluate again at `atMs`; undefined: after the next event. */
  | { readonly type: 'wait'; readonly atMs: number | undefined };

/** What the decision depends on, in addition to the entry and the status. */
export interface StatusScheduleSources extends StatusSources {
  readonly registry: Pick<ReporterRegistry, 'size'>;
}

/**
 * Decides whether the status of a reporter must be written: immediately if its meaning changed, with a delay if only
 * counts changed. Takes a write that it returns from the reporter's rate.
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
  const syncedCondition = before?.conditions?.find(({ type }) => type === 'Synced');
  const wasSynced = syncedCondition?.status === 'True';
  const shownReason = URGENT_REASONS.find((reason) => reason === syncedCondition?.reason);
  const hasFlapping = sources.flapping.hasFlapping(entry.key, nowMs);
  const showsFlapping = before?.conditions?.some(({ type }) => type === 'Flapping') === true;
  const reasonChanged = urgentReason(entry, sources) !== shownReason || showsFlapping !== hasFlapping;
  const pending = sources.queue.pending(entry.key);
  const backlogMs = pendingWrites.updateBacklog(pending, nowMs);
  // With pending writes, even rejected ones, counting takes a comparison of each tunnel: not for every change.
  if (pending > 0 && entry.stream !== undefined && !reasonChanged) {
    // The end of all writes is an event, and counts from before it would need a second write.
    const isBrief = wasSynced && pendingWrites.blockedCount === 0 && nowMs < backlogMs;
    const nextMs = isBrief ? backlogMs : status.compareDueMs(wasSynced ? backlogMs : Infinity);
    if (nowMs < nextMs) return { type: 'wait', atMs: nextMs };
  }
  const inputs = collectStatusInputs(entry, sources, nowMs, wasSynced);
  const { rewritten } = status;
  if (rewritten !== undefined && statusChange(inputs, rewritten) !== 'conditions') {
    // Even if nothing differs: only the response to a write shows whether it is rewritten.
    if (nowMs < rewritten.retryAtMs) return { type: 'wait', atMs: rewritten.retryAtMs };
    const waitMs = sources.limiter.delayMs(pendingWrites.rewritten, OWN_OBJECT, nowMs);
    return waitMs > 0 ? { type: 'wait', atMs: nowMs + waitMs } : { type: 'write', inputs };
  }
  const change = statusChange(inputs, before);
  // No event announces what changes with the passing of time alone.
  const conflictEndsMs = entry.streamFlaps.conflictEndsMs(nowMs);
  const flappingEndsMs = sources.flapping.nextEndMs(entry.key, nowMs);
  const endMs = earlier(conflictEndsMs, flappingEndsMs);
  if (change === 'none') {
    status.settle(pending > 0 || endMs !== undefined);
    if (pending === 0) return { type: 'wait', atMs: endMs };
    status.compared(nowMs);
    return { type: 'wait', atMs: status.compareDueMs(backlogMs) };
  }
  if (change === 'counts') {
    const countsDueMs = status.countsDueMs(sources.registry.size);
    if (nowMs < countsDueMs) {
      if (pending > 0) status.compared(nowMs);
      const compareMs = pending > 0 ? status.compareDueMs(backlogMs) : Infinity;
      return { type: 'wait', atMs: Math.min(countsDueMs, compareMs, endMs ?? Infinity) };
    }
    const slotMs = hasFlapping ? sources.flapping.statusDelayMs(entry.key, nowMs) : 0;
    if (slotMs > 0) {
      const thresholdMs = nowMs < backlogMs ? backlogMs : Infinity;
      return { type: 'wait', atMs: Math.min(nowMs + slotMs, thresholdMs, endMs ?? Infinity) };
    }
  }
  const waitMs = status.tryTake(nowMs);
  return waitMs > 0 ? { type: 'wait', atMs: nowMs + waitMs } : { type: 'write', inputs };
}

/** Returns the earlier of two times that may be undefined. */
function earlier(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? (a ?? b) : Math.min(a, b);
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
