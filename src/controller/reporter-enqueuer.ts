import type { Clock } from '../clock.ts';
import { observeReporter, type ReporterObject } from '../core/reporter-object.ts';
import type { EnvoyMetadata, ReporterDisconnectReason } from '../core/reporter-status.ts';
import { reporterKey, type ReporterId } from '../core/tunnel.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { rfc3339 } from '../timestamps.ts';
import type { Readiness } from './readiness.ts';
import type { ReporterEntry, StreamInfo } from './reporter-entry.ts';
import type { EventRecorder } from './event-recorder.ts';
import { OWN_OBJECT } from './rewritten-objects.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { Workqueue } from './workqueue.ts';
import type { WriteFence } from './write-fence.ts';

/** What a report contains about its reporter as a whole. */
export interface ReportSummary {
  readonly fullPush: boolean;
  readonly added: { readonly length: number };
  readonly rejected: { readonly count: number; readonly first: readonly { readonly message: string }[] };
}

export interface ReporterEnqueuerOptions {
  readonly registry: ReporterRegistry;
  /** The queue of reporters. */
  readonly queue: Workqueue;
  readonly fence: WriteFence;
  readonly readiness: Readiness;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

/**
 * Turns events about reporters (streams, reports, changes of their objects) into facts for their state machines
 * (`src/core/ownership.ts`), and queues the reporters for reconciliation. Claims and live reads have high priority.
 */
export class ReporterEnqueuer {
  readonly #options: ReporterEnqueuerOptions;

  constructor(options: ReporterEnqueuerOptions) {
    this.#options = options;
  }

  /** Queues a reporter, or removes it if nothing about it must be remembered. */
  enqueue(entry: ReporterEntry): void {
    const { registry, queue, clock, metrics } = this.#options;
    const { ownership, key } = entry;
    registry.trackDisconnect(entry);
    if (ownership.isIdle && !queue.isActive(key, OWN_OBJECT)) {
      registry.remove(entry);
      queue.forget(key);
      return;
    }
    const nowMs = clock.monotonicMs();
    const isUrgent = this.#canAct && ownership.decide(nowMs).type !== 'wait';
    queue.add(key, OWN_OBJECT, nowMs, isUrgent ? 'high' : 'normal');
    metrics.workqueueAdds.inc({ name: 'reporters' });
  }

  /** Returns true while the reporter's object is being reconciled or waits for that. */
  isActive(entry: ReporterEntry): boolean {
    return this.#options.queue.isActive(entry.key, OWN_OBJECT);
  }

  /**
   * Records a new stream of a reporter, which replaces the previous one, if any.
   *
   * @param isReconnect true if the reporter was asked to reconnect, so the replacement does not indicate a second Envoy
   */
  streamOpened(reporter: ReporterId, envoy: EnvoyMetadata, isReconnect: boolean): void {
    const { registry, clock } = this.#options;
    const entry = registry.getOrCreate(reporter);
    const nowMs = clock.monotonicMs();
    const replaces = entry.stream !== undefined && !isReconnect;
    if (replaces) this.#recordFlap(entry);
    entry.stream = {
      envoy,
      connectedSince: undefined,
      connectedMs: undefined,
      lastFullPush: undefined,
      rejected: 0,
      firstRejection: '',
    };
    entry.isOrphan = false;
    entry.ownership.onStreamOpened(nowMs, replaces ? entry.streamFlaps.claimDelayMs(nowMs) : 0);
    registry.trackDisconnect(entry);
  }

  /** Records the end of a reporter's stream, except at shutdown. */
  streamClosed(reporter: ReporterId, reason: ReporterDisconnectReason): void {
    const entry = this.#options.registry.entry(reporterKey(reporter));
    if (entry === undefined) return;
    this.#recordDisconnect(entry, reason);
    entry.stream = undefined;
    entry.disconnectReason = reason;
    entry.ownership.onStreamClosed();
    entry.status.markDirty();
    if (entry.ownership.owns) {
      this.#options.events.record(entry.reporter, 'disconnected', `Stream closed: ${reason}`);
    }
    this.enqueue(entry);
  }

  /**
   * Records a report that was applied.
   *
   * @param changed true if objects may have to change
   */
  reportReceived(key: string, report: ReportSummary, changed: boolean): void {
    const { registry, readiness, events, clock } = this.#options;
    const entry = registry.entry(key);
    const stream = entry?.stream;
    if (entry === undefined || stream === undefined) return;
    entry.stream = this.#withReport(stream, report);
    if (report.rejected.count > 0) {
      const note = `Rejected ${report.rejected.count} tunnels: ${entry.stream.firstRejection}`;
      events.record(entry.reporter, 'tunnelsRejected', note);
    }
    if (changed || report.fullPush || report.rejected.count > 0) entry.status.markDirty();
    // Before the caches have synced, a claim would have to guess the state of the object. It is sent as soon as they have.
    if (readiness.hasSynced) entry.ownership.onReport(clock.monotonicMs());
    else entry.claimPending = true;
    if (!this.#isSettled(entry)) this.enqueue(entry);
  }

  /** Handles a change of what a reporter may report: the rejected tunnels in its status change. */
  onGrantChanged(key: string): void {
    const entry = this.#options.registry.entry(key);
    if (entry === undefined) return;
    entry.status.markDirty();
    this.enqueue(entry);
  }

  /** Handles a change of a reporter's object; undefined if it does not exist. */
  onReporterObjectChanged(
    key: string,
    after: ReporterObject | undefined,
    before: ReporterObject | undefined,
  ): void {
    const { registry, fence, clock, log } = this.#options;
    const entry = registry.entry(key);
    if (entry === undefined) return;
    const previous = before === undefined ? undefined : observeReporter(before);
    const current = after === undefined ? undefined : observeReporter(after);
    const moved =
      previous?.owner !== undefined &&
      current?.owner !== undefined &&
      previous.owner.replica !== current.owner.replica;
    // A takeover from an owner that is dead or has no stream does not indicate a second Envoy.
    if (moved && previous.connected && current.connected && fence.isServing(previous.owner.replica)) {
      this.#recordFlap(entry);
    }
    const owned = entry.ownership.owns;
    entry.ownership.onObserved(current, clock.monotonicMs());
    if (owned && !entry.ownership.owns) {
      log.info({ reporter: entry.reporter, owner: current?.owner }, 'lost ownership of reporter');
    }
    entry.status.markDirty();
    this.enqueue(entry);
  }

  /** Handles the end of all pending writes of a reporter. */
  onEmptied(key: string): void {
    const entry = this.#options.registry.entry(key);
    if (entry === undefined) return;
    entry.pendingWrites.endBacklog();
    entry.status.markDirty();
    this.enqueue(entry);
  }

  /** Resumes after a complete list. */
  onListed(): void {
    this.resume();
  }

  /** Resumes after the first evaluation of the policies. */
  onReviewed(): void {
    this.resume();
  }

  /** Resumes when this replica may write, for the first time or again. */
  onWritable(): void {
    this.resume();
  }

  /** Continues with what waited until the caches had synced, or until this replica may write. */
  resume(): void {
    const { registry, readiness, clock } = this.#options;
    if (!readiness.hasSynced) return;
    for (const entry of registry.entries()) {
      if (entry.claimPending) {
        entry.claimPending = false;
        entry.ownership.onReport(clock.monotonicMs());
      }
      this.enqueue(entry);
    }
  }

  /**
   * Takes over a reporter from a dead owner.
   *
   * @param isOrphan true if only orphaned objects exist, so the claim creates the reporter object
   */
  takeOver(reporter: ReporterId, isOrphan: boolean): void {
    const entry = this.#options.registry.getOrCreate(reporter);
    if (entry.stream !== undefined) return;
    entry.isOrphan = isOrphan;
    entry.ownership.takeOver();
    this.enqueue(entry);
  }

  /** True if reconciliations may send requests. The state machines must not make decisions before. */
  get #canAct(): boolean {
    const { readiness, fence } = this.#options;
    return readiness.hasSynced && fence.canWrite();
  }

  #withReport(stream: StreamInfo, report: ReportSummary): StreamInfo {
    const { count, first } = report.rejected;
    if (stream.connectedSince !== undefined && !report.fullPush && count === 0) return stream;
    const { clock } = this.#options;
    const now = rfc3339(clock.wallMs());
    const rejectedBefore = report.fullPush ? 0 : stream.rejected;
    return {
      ...stream,
      connectedSince: stream.connectedSince ?? now,
      connectedMs: stream.connectedMs ?? clock.monotonicMs(),
      ...(report.fullPush ? { lastFullPush: { time: now, tunnels: report.added.length + count } } : {}),
      rejected: rejectedBefore + count,
      firstRejection: count > 0 ? (first[0]?.message ?? '') : stream.firstRejection,
    };
  }

  /** Records the end of a stream for the status, unless it never reported, or is superseded by one on another replica. */
  #recordDisconnect({ stream, ownership, status }: ReporterEntry, reason: ReporterDisconnectReason): void {
    if (stream?.connectedMs === undefined || ownership.isSuperseded) return;
    const { clock } = this.#options;
    status.recordDisconnect({
      time: rfc3339(clock.wallMs()),
      reason,
      durationSeconds: Math.floor((clock.monotonicMs() - stream.connectedMs) / 1000),
    });
  }

  /** Returns true if a report changed nothing that a reconciliation would act on, as most heartbeats do. */
  #isSettled({ ownership, status, pendingWrites, claimPending }: ReporterEntry): boolean {
    if (!this.#canAct || !ownership.owns || claimPending || status.isDirty) return false;
    if (pendingWrites.skippedSinceMs !== undefined || pendingWrites.deletionsDeferred) return false;
    const action = ownership.decide(this.#options.clock.monotonicMs());
    return action.type === 'wait' && action.atMs === undefined;
  }

  #recordFlap(entry: ReporterEntry): void {
    const { clock, events, log, metrics } = this.#options;
    if (!entry.streamFlaps.record(clock.monotonicMs())) return;
    entry.status.markDirty();
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
}
