import type { DisconnectPhase } from '../core/grace-timer.ts';
import type { Names } from '../core/names.ts';
import { Ownership, type WritePermission } from '../core/ownership.ts';
import type { TunnelAction } from '../core/plan.ts';
import { observeReporter, type ReporterObject } from '../core/reporter-object.ts';
import type { EnvoyMetadata, ReporterDisconnectReason } from '../core/reporter-status.ts';
import { reporterKey, type ReporterId } from '../core/tunnel.ts';
import { ReporterReconciler, type ReporterReconcilerOptions } from './reporter-reconciler.ts';
import { newEntry, type ReporterEntry } from './reporter-entry.ts';
import type { ApiFailure } from './tunnel-object-api.ts';
import type { WriteAuthorizer } from './write-authorizer.ts';
import { rfc3339 } from '../timestamps.ts';

/** An expiry delete is sent at most this long after a read that named this owner. */
const EXPIRY_READ_MAX_AGE_MS = 1000;
/** What is read so much later than a moment was not on its way by then; half an interval, if that is less. */
const FRESH_REPORT_AFTER_MS = 1000;

/** What the driver needs, and who this replica is. */
export interface ReporterControllerOptions extends Omit<ReporterReconcilerOptions, 'forget'> {
  /** This process: `--replica-id` and a suffix of this start. */
  readonly self: string;
  readonly names: Names;
  /** Nothing has to be remembered of a reporter any more. */
  readonly onReporterRemoved: (key: string) => void;
  /** Makes the state machine of one reporter; tests put one here that leaves a rule out. */
  readonly newOwnership?: (self: string, freshReportAfterMs: () => number) => Ownership;
}

/** What a report says about its reporter as a whole. */
export interface ReportSummary {
  readonly fullPush: boolean;
  readonly added: { readonly length: number };
  readonly rejected: { readonly count: number; readonly first: readonly { readonly message: string }[] };
}

/**
 * The reporters that this replica has to do with: tells their state machines (`core/ownership`) what happens, and
 * does what they decide: claims, reads, status writes, one call at a time for each reporter. The row writes ask here
 * whether they may go out.
 */
export class ReporterController implements WriteAuthorizer {
  readonly #options: ReporterControllerOptions;
  readonly #entries = new Map<string, ReporterEntry>();
  /** Sends the calls about the reporters' objects. */
  readonly reconciler: ReporterReconciler;

  constructor(options: ReporterControllerOptions) {
    this.#options = options;
    this.reconciler = new ReporterReconciler({ ...options, forget: (entry) => this.#forget(entry) });
  }

  entries(): Iterable<ReporterEntry> {
    return this.#entries.values();
  }

  entry(key: string): ReporterEntry | undefined {
    return this.#entries.get(key);
  }

  /**
   * A reporter has a new stream here, in place of an older one if there was one.
   *
   * @param isReconnect it was told to come back: no sign that another Envoy reports as this one
   */
  onStreamOpened(reporter: ReporterId, envoy: EnvoyMetadata, isReconnect: boolean): void {
    const entry = this.#getOrCreateEntry(reporter);
    const nowMs = this.#options.clock.monotonicMs();
    const replaces = entry.stream !== undefined && !isReconnect;
    if (replaces) this.#recordFlap(entry);
    entry.stream = {
      envoy,
      connectedSince: undefined,
      lastFullPush: undefined,
      rejected: 0,
      firstRejection: '',
    };
    entry.disconnected = undefined;
    entry.isOrphan = false;
    entry.ownership.onStreamOpened(nowMs, replaces ? entry.flaps.claimDelayMs(nowMs) : 0);
  }

  /** Its stream has ended, for a reason of its own and not of this replica's shutdown. */
  onStreamClosed(reporter: ReporterId, reason: ReporterDisconnectReason): void {
    const entry = this.#entries.get(reporterKey(reporter));
    if (entry === undefined) return;
    entry.stream = undefined;
    entry.disconnectReason = reason;
    entry.ownership.onStreamClosed();
    entry.statusDirty = true;
    if (entry.ownership.owns) {
      this.#options.events.record(entry.reporter, 'lost', `Stream closed: ${reason}`);
    }
    this.reconciler.reconcile(entry);
  }

  /** A report of the reporter has been folded. @param changed its rows may have to change */
  onReport(key: string, report: ReportSummary, changed: boolean): void {
    const entry = this.#entries.get(key);
    const stream = entry?.stream;
    if (entry === undefined || stream === undefined) return;
    const { clock, hasSynced } = this.#options;
    stream.connectedSince ??= this.#timestamp();
    if (report.fullPush) {
      const tunnels = report.added.length + report.rejected.count;
      stream.lastFullPush = { time: this.#timestamp(), tunnels };
      stream.rejected = 0;
      entry.statusDirty = true;
    }
    if (report.rejected.count > 0) {
      stream.rejected += report.rejected.count;
      stream.firstRejection = report.rejected.first[0]?.message ?? '';
      const note = `Rejected ${report.rejected.count} tunnels: ${stream.firstRejection}`;
      this.#options.events.record(entry.reporter, 'setAside', note);
      entry.statusDirty = true;
    }
    if (changed) entry.statusDirty = true;
    // Before everything is listed a claim could only guess what the object says: it is as if it were read then.
    if (hasSynced()) entry.ownership.onReport(clock.monotonicMs());
    else entry.claimPending = true;
    this.reconciler.reconcile(entry);
  }

  /** It may report something else than before: what its status says of tunnels rejected is another. */
  onGrantChanged(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    entry.statusDirty = true;
    this.reconciler.reconcile(entry);
  }

  /** Everything is listed, or this replica may write again: what has waited for it goes on. */
  resume(): void {
    const { clock, hasSynced } = this.#options;
    if (!hasSynced()) return;
    for (const entry of this.#entries.values()) {
      if (entry.claimPending) {
        entry.claimPending = false;
        entry.ownership.onReport(clock.monotonicMs());
      }
      this.reconciler.reconcile(entry);
    }
  }

  /** The object of a reporter is another than before, or gone. */
  onObjectChanged(key: string, after: ReporterObject | undefined, before: ReporterObject | undefined): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    const previous = before === undefined ? undefined : observeReporter(before);
    const current = after === undefined ? undefined : observeReporter(after);
    const moved =
      previous?.owner !== undefined &&
      current?.owner !== undefined &&
      previous.owner.replica !== current.owner.replica;
    // From an owner that is gone, or had nobody to serve, to another is no quarrel.
    if (
      moved &&
      previous.connected &&
      current.connected &&
      this.#options.fence.isServing(previous.owner.replica)
    ) {
      this.#recordFlap(entry);
    }
    const owned = entry.ownership.owns;
    entry.ownership.onObserved(current, this.#options.clock.monotonicMs());
    if (owned && !entry.ownership.owns) {
      this.#options.log.info(
        { reporter: entry.reporter, owner: current?.owner },
        'lost ownership of reporter',
      );
    }
    entry.statusDirty = true;
    this.reconciler.reconcile(entry);
  }

  /** Takes over what a dead owner left; `orphan`: rows without an object, which nobody may be waiting for. */
  takeOver(reporter: ReporterId, isOrphan: boolean): void {
    const entry = this.#getOrCreateEntry(reporter);
    if (entry.stream !== undefined) return;
    entry.isOrphan = isOrphan;
    entry.ownership.takeOver();
    this.reconciler.reconcile(entry);
  }

  /** Nothing of the reporter waits to be written any more. */
  onQueueEmptied(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    entry.backlogSinceMs = undefined;
    entry.statusDirty = true;
    this.reconciler.reconcile(entry);
  }

  canWrite(key: string): boolean {
    const entry = this.#entries.get(key);
    return entry !== undefined && entry.ownership.owns && this.#options.fence.canWrite();
  }

  reporter(key: string): ReporterId | undefined {
    return this.#entries.get(key)?.reporter;
  }

  phase(key: string): DisconnectPhase | undefined {
    return this.#entries.get(key)?.disconnected?.phase;
  }

  authorize(key: string, write: TunnelAction['type']): WritePermission {
    const entry = this.#entries.get(key);
    const { fence, clock } = this.#options;
    if (entry === undefined || !fence.canWrite()) return 'deny';
    if (write === 'expire') return entry.ownership.canExpire(clock.monotonicMs(), EXPIRY_READ_MAX_AGE_MS);
    return write === 'delete' ? entry.ownership.canDelete(clock.monotonicMs()) : entry.ownership.canWrite();
  }

  externalChange(key: string): void {
    this.#entries.get(key)?.ownership.externalChange();
  }

  writeSkipped(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    if (this.canWrite(key)) {
      entry.deletionsDeferred = true;
      this.reconciler.reconcile(entry);
    } else entry.writesSkippedSinceMs ??= this.#options.clock.monotonicMs();
  }

  writeRejected(key: string, tunnelName: string, answer: string | undefined): void {
    const entry = this.#entries.get(key);
    if (entry === undefined || (answer === undefined && entry.rejectedWrites === undefined)) return;
    entry.statusDirty = true;
    if (answer === undefined) {
      entry.rejectedWrites?.delete(tunnelName);
      this.#endBacklog(entry, this.#options.queue.pending(key) - 1);
      if (entry.rejectedWrites?.size === 0) entry.rejectedWrites = undefined;
    } else {
      const first = entry.rejectedWrites === undefined;
      entry.rejectedWrites ??= new Set();
      entry.rejectedWrites.add(tunnelName);
      entry.lastRejection = answer;
      this.#endBacklog(entry, this.#options.queue.pending(key));
      if (first) this.reconciler.reconcile(entry);
    }
  }

  liveRead(key: string): Promise<ApiFailure | undefined> {
    const entry = this.#entries.get(key);
    if (entry === undefined) return Promise.resolve(undefined);
    return this.reconciler.liveRead(entry);
  }

  /** Sends nothing more and leaves no timer. */
  stop(): void {
    this.reconciler.stop();
    for (const entry of this.#entries.values()) entry.cancelWake?.();
  }

  /**
   * Where none but refused rows wait, what comes next is no part of what waited before.
   *
   * @param waiting rows that wait, without the one whose worker says that it need not any more
   */
  #endBacklog(entry: ReporterEntry, waiting: number): void {
    if (waiting <= (entry.rejectedWrites?.size ?? 0)) entry.backlogSinceMs = undefined;
  }

  #recordFlap(entry: ReporterEntry): void {
    const { clock, events, log, metrics } = this.#options;
    if (!entry.flaps.record(clock.monotonicMs())) return;
    entry.statusDirty = true;
    metrics.identityConflicts.inc();
    log.warn(
      { reporter: entry.reporter },
      'two Envoys appear to report under the same node.cluster and node.id; their streams keep superseding each other',
    );
    events.record(
      entry.reporter,
      'conflict',
      'Two Envoys appear to report under this node.cluster and node.id',
    );
  }

  #getOrCreateEntry(reporter: ReporterId): ReporterEntry {
    const key = reporterKey(reporter);
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      const { self, names, cache, clock, reportIntervalMs, newOwnership } = this.#options;
      const freshReportAfterMs = (): number => Math.min(FRESH_REPORT_AFTER_MS, reportIntervalMs() / 2);
      const ownership = newOwnership?.(self, freshReportAfterMs) ?? new Ownership(self, freshReportAfterMs);
      const object = cache.get(key);
      ownership.onObserved(object === undefined ? undefined : observeReporter(object), clock.monotonicMs());
      entry = newEntry(key, reporter, names.reporterObjectName(reporter), ownership);
      this.#entries.set(key, entry);
    }
    return entry;
  }

  #forget(entry: ReporterEntry): void {
    entry.cancelWake?.();
    this.#entries.delete(entry.key);
    // It is another replica's now, or gone; if it comes back, it says anew what it holds.
    this.#options.onReporterRemoved(entry.key);
  }

  #timestamp(): string {
    return rfc3339(this.#options.clock.wallMs());
  }
}
