import type { Clock } from '../clock.ts';
import type { Claim } from '../core/ownership.ts';
import {
  observeReporter,
  reporterManifest,
  type ReporterDisconnect,
  type ReporterObject,
  type ReporterStatusPatch,
} from '../core/reporter-object.ts';
import { statusPatch, type StatusInputs } from '../core/reporter-status.ts';
import { findDifference, type RewrittenField } from '../core/rewrite.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { rfc3339 } from '../timestamps.ts';
import type { LiveReader } from './live-reader.ts';
import type { ReporterObjectApi } from './object-api.ts';
import type { Readiness } from './readiness.ts';
import type { ReporterCache } from './reporter-cache.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import type { EventRecorder } from './event-recorder.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { RewriteRecorder } from './rewrite-recorder.ts';
import { REWRITE_RETRY_MS } from './rewritten-objects.ts';
import { collectStatusInputs, NOTHING_SHOWN, rewrittenSummary } from './status-inputs.ts';
import { nextStatusWrite, type StatusScheduleSources } from './status-schedule.ts';
import type { TunnelEnqueuer } from './tunnel-enqueuer.ts';
import type { Outcome, Reconciler } from './workers.ts';
import type { QueueItem } from './workqueue.ts';
import type { WriteFence } from './write-fence.ts';
import {
  isApiFailure,
  isBenignConflict,
  isOutcomeUnknown,
  isTerminal,
  rewrittenError,
  type ApiFailure,
} from './write-outcome.ts';

/** Lost races in a row that are retried without a delay. */
const IMMEDIATE_RACE_RETRIES = 2;
/** A used-up quota rejects many writes again and again; one line per 10 s stands for all of them. */
const REJECTION_LOG_INTERVAL_MS = 10_000;

export interface ReporterReconcilerOptions extends StatusScheduleSources {
  readonly api: ReporterObjectApi;
  readonly cache: ReporterCache;
  readonly registry: ReporterRegistry;
  readonly reader: LiveReader;
  readonly tunnels: TunnelEnqueuer;
  readonly fence: WriteFence;
  readonly readiness: Readiness;
  readonly events: EventRecorder;
  /** Shared with the reconciler of tunnels. */
  readonly rewrites: RewriteRecorder;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** Nothing to do until the next event. */
const WAIT_FOR_EVENT: Outcome = { kind: 'done', answered: false };

/**
 * Carries out what a reporter's state machine decides: claims, live reads, status writes, and the delete after expiry.
 * A reconciliation sends at most one of them, and the queue runs one reconciliation per reporter at a time, so own
 * writes never conflict with each other.
 */
export class ReporterReconciler implements Reconciler {
  readonly #options: ReporterReconcilerOptions;
  readonly #throttled: LogThrottle;

  constructor(options: ReporterReconcilerOptions) {
    this.#options = options;
    this.#throttled = createLogThrottle(options.clock, REJECTION_LOG_INTERVAL_MS);
  }

  describe({ key }: QueueItem): object {
    return { reporter: this.#options.registry.entry(key)?.reporter };
  }

  async reconcile({ key }: QueueItem): Promise<Outcome> {
    const { registry, readiness, fence, reader, cache, clock } = this.#options;
    const entry = registry.entry(key);
    if (entry === undefined) return WAIT_FOR_EVENT;
    const { ownership } = entry;
    registry.trackDisconnect(entry);
    if (ownership.isIdle) {
      registry.remove(entry);
      return WAIT_FOR_EVENT;
    }
    if (!readiness.hasSynced || !fence.canWrite()) return WAIT_FOR_EVENT;
    const nowMs = clock.monotonicMs();
    const action = ownership.decide(nowMs);
    if (action.type === 'claim') return this.#completeCall(entry, await this.#claim(entry, action.claim));
    if (action.type === 'read') return this.#completeCall(entry, await reader.read(entry));
    if (!ownership.owns) return waitUntil(nowMs, action.atMs);
    const known = cache.get(key);
    if (known !== undefined && this.#isExpired(entry, known))
      return this.#completeCall(entry, await this.#delete(entry, known));
    this.#resyncSkipped(entry, nowMs);
    if (known === undefined || !entry.status.isDirty) return waitUntil(nowMs, action.atMs);
    const next = nextStatusWrite(entry, known.status, this.#options, nowMs);
    if (next.type === 'wait') return waitUntil(nowMs, action.atMs, next.atMs);
    return this.#completeCall(entry, await this.#writeStatus(entry, known, next.inputs));
  }

  /** Returns true once the reporter has expired and all of its objects are deleted, until its own object is. */
  #isExpired({ key, disconnection }: ReporterEntry, { metadata }: ReporterObject): boolean {
    const { mirrored, queue } = this.#options;
    return (
      disconnection?.phase === 'expired' &&
      !mirrored.hasObjects(key) &&
      queue.pending(key) === 0 &&
      // An object that was deleted already disappears when its finalizers are removed.
      metadata.deletionTimestamp === undefined
    );
  }

  /** Compares all objects of the reporter if writes were skipped while they were not authorized. */
  #resyncSkipped(
    { key, ownership, pendingWrites, status, disconnection }: ReporterEntry,
    nowMs: number,
  ): void {
    const { tunnels, queue } = this.#options;
    const sinceMs = pendingWrites.takeSkipped(ownership.canDelete(nowMs) !== 'deny', nowMs);
    if (sinceMs === undefined) return;
    status.markDirty();
    // `ExpiryController` scans the objects of a disconnected reporter, and may have passed the skipped ones.
    disconnection?.restartScan();
    tunnels.resync(key, sinceMs);
    if (queue.pending(key) === 0) pendingWrites.endBacklog();
  }

  async #claim(entry: ReporterEntry, claim: Claim): Promise<ApiFailure | undefined> {
    const { cache, clock, metrics } = this.#options;
    const { ownership, key, objectName } = entry;
    ownership.claimSent(claim);
    try {
      let resourceVersion = claim.basis?.resourceVersion;
      if (resourceVersion === undefined) {
        const created = await this.#create(entry);
        cache.upsert(created);
        ({ resourceVersion } = created.metadata);
      }
      const collected = collectStatusInputs(entry, this.#options, clock.monotonicMs(), NOTHING_SHOWN);
      const disconnects = [...this.#disconnectOfLostOwner(key), ...collected.disconnects];
      const inputs = { ...collected, disconnects };
      const patch = {
        owner: claim.owner,
        ...statusPatch(inputs, cache.get(key)?.status, this.#timestamp()),
      };
      const stored = await this.#patchStatus(entry, resourceVersion, patch);
      cache.upsert(stored);
      const rewrittenOwner = findDifference(claim.owner, stored.status?.owner, 'status.owner');
      // Such a claim confirms nothing: every other replica, and this one, would read another owner.
      if (rewrittenOwner !== undefined) {
        this.#recordRewrite(entry, rewrittenOwner, 'patchStatus');
        throw rewrittenError(`claim ReverseTunnelReporter ${objectName}`, rewrittenOwner, REWRITE_RETRY_MS);
      }
      this.#compareStatus(entry, patch, stored);
      ownership.claimConfirmed(observeReporter(stored), clock.monotonicMs());
      metrics.claims.inc({ outcome: 'ok' });
      entry.status.written(inputs, clock.monotonicMs());
      // Reports and object changes since another replica owned the reporter.
      entry.pendingWrites.skip(clock.monotonicMs(), false);
      this.#recordClaim(entry, claim);
      return undefined;
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      metrics.claims.inc({ outcome: error.kind });
      if (isOutcomeUnknown(error)) ownership.claimOutcomeUnknown();
      else ownership.claimRejected(clock.monotonicMs());
      return error;
    }
  }

  /**
   * Returns the end of the stream of an owner that has died, which could not record it. One that was shut down counts as
   * alive while its reporters reconnect: a rollout is not a disconnect.
   */
  #disconnectOfLostOwner(key: string): ReporterDisconnect[] {
    const { cache, fence, clock } = this.#options;
    const object = cache.get(key);
    if (object === undefined) return [];
    const { owner, connected } = observeReporter(object);
    if (!connected || owner === undefined || fence.isAlive(owner.replica)) return [];
    const wallMs = clock.wallMs();
    const connectedMs = Date.parse(object.status?.connectedSince ?? '');
    // By the clocks of two replicas.
    const durationMs = Math.max(0, Number.isNaN(connectedMs) ? 0 : wallMs - connectedMs);
    return [{ time: rfc3339(wallMs), reason: 'OwnerLost', durationSeconds: Math.floor(durationMs / 1000) }];
  }

  /** Creates the reporter object. One that is stored as that of another reporter is deleted, and the claim fails. */
  async #create(entry: ReporterEntry): Promise<ReporterObject> {
    const { api } = this.#options;
    const { reporter, objectName } = entry;
    const manifest = reporterManifest(objectName, reporter);
    const created = await api.create(manifest);
    const { metadata, spec } = created;
    const misplaced =
      findDifference(manifest.metadata.name, metadata.name, 'metadata.name') ??
      findDifference(manifest.spec, spec, 'spec');
    if (misplaced === undefined) {
      // Nothing depends on these, and they are not written again.
      const { labels, annotations } = manifest.metadata;
      const difference = findDifference({ labels, annotations }, metadata, 'metadata');
      if (difference !== undefined) this.#recordRewrite(entry, difference, 'create');
      return created;
    }
    this.#recordRewrite(entry, misplaced, 'create');
    try {
      await api.delete(metadata.name, metadata.uid, metadata.resourceVersion);
    } catch (error) {
      // The leader takes over what remains.
      if (!isApiFailure(error)) throw error;
    }
    throw rewrittenError(`create ReverseTunnelReporter ${objectName}`, misplaced, REWRITE_RETRY_MS);
  }

  /**
   * Records whether a status write was stored as sent. The recent disconnects are history, which is not written again; a
   * CRD of an earlier version prunes them.
   */
  #compareStatus(entry: ReporterEntry, patch: ReporterStatusPatch, stored: ReporterObject): void {
    const { rewrites, clock } = this.#options;
    const compared = { ...patch, recentDisconnects: undefined };
    const difference = findDifference(compared, stored.status ?? {}, 'status');
    if (difference === undefined) {
      entry.status.rewritten = undefined;
      return;
    }
    const isFirst = rewrittenSummary(entry) === undefined;
    const conditions = patch.conditions ?? [];
    entry.status.rewritten = {
      ...difference,
      conditions,
      retryAtMs: clock.monotonicMs() + REWRITE_RETRY_MS,
    };
    this.#recordRewrite(entry, difference, 'patchStatus');
    if (isFirst) rewrites.announce(entry);
  }

  #recordRewrite({ reporter, objectName }: ReporterEntry, field: RewrittenField, verb: string): void {
    const { rewrites } = this.#options;
    rewrites.record('reversetunnelreporters', field, { reporter, object: objectName, verb });
  }

  #recordClaim({ reporter, stream, disconnectReason }: ReporterEntry, { owner, streaming }: Claim): void {
    const { events, log } = this.#options;
    log.info({ reporter, epoch: owner.epoch, streaming }, 'claimed reporter');
    if (!streaming) {
      events.record(reporter, 'disconnected', 'The replica that held the stream has stopped');
      return;
    }
    events.record(reporter, 'connected', `Stream accepted by replica ${owner.replica}`);
    // The stream ended during the claim, when the reporter was not owned and the end could not be recorded.
    if (stream === undefined) events.record(reporter, 'disconnected', `Stream closed: ${disconnectReason}`);
  }

  async #writeStatus(
    entry: ReporterEntry,
    known: ReporterObject,
    inputs: StatusInputs,
  ): Promise<ApiFailure | undefined> {
    const { cache, clock } = this.#options;
    try {
      const patch = statusPatch(inputs, known.status, this.#timestamp());
      const stored = await this.#patchStatus(entry, known.metadata.resourceVersion, patch);
      cache.upsert(stored);
      this.#compareStatus(entry, patch, stored);
      entry.status.written(inputs, clock.monotonicMs());
      return undefined;
    } catch (error) {
      return handleWriteError(entry, error);
    }
  }

  /** Sends a status write, which counts among those of flapping tunnels. */
  async #patchStatus(
    { key, objectName }: ReporterEntry,
    resourceVersion: string,
    patch: ReporterStatusPatch,
  ): Promise<ReporterObject> {
    const { api, flapping, clock } = this.#options;
    const answered = flapping.startStatusWrite(key, clock.monotonicMs());
    try {
      return await api.patchStatus(objectName, resourceVersion, patch);
    } finally {
      answered(clock.monotonicMs());
    }
  }

  async #delete(entry: ReporterEntry, { metadata }: ReporterObject): Promise<ApiFailure | undefined> {
    const { api, cache, events, log } = this.#options;
    const { key, objectName, reporter } = entry;
    try {
      const remaining = await api.delete(objectName, metadata.uid, metadata.resourceVersion);
      log.info(
        { reporter },
        'reporter expired; deleted its ReverseTunnel objects and its ReverseTunnelReporter',
      );
      events.record(
        reporter,
        'expired',
        'Disconnected for longer than --expire-after; deleting its ReverseTunnel objects and this object',
      );
      if (remaining === undefined) cache.remove(key);
      else cache.upsert(remaining);
      return undefined;
    } catch (error) {
      return handleWriteError(entry, error);
    }
  }

  /** Continues after a call: with the next step, or with a retry. */
  #completeCall(entry: ReporterEntry, failure: ApiFailure | undefined): Outcome {
    const { registry, clock, log } = this.#options;
    const { ownership, reporter } = entry;
    registry.trackDisconnect(entry);
    // The next step may be a claim or a live read, whatever this one was, and the reverse.
    const priority = ownership.decide(clock.monotonicMs()).type === 'wait' ? 'normal' : 'high';
    // There may be more to do, such as a status write after a claim.
    const requeue = { kind: 'requeue', afterMs: 0, priority } as const;
    if (failure === undefined) {
      if (ownership.owns) {
        entry.conflicts = 0;
        this.#resyncSkipped(entry, clock.monotonicMs());
      }
      return requeue;
    }
    if (isOutcomeUnknown(failure)) entry.conflicts += 1;
    const races = entry.conflicts - IMMEDIATE_RACE_RETRIES;
    // Another write came first, which is not a failure: the next step reads the object. The number of races is bounded.
    if (isBenignConflict(failure) && races <= 0) return requeue;
    const { message, retryAfterMs } = failure;
    if (!isTerminal(failure))
      return { kind: 'retry', blocked: false, unreachable: false, retryAfterMs, failures: races, priority };
    this.#throttled('rejected', (suppressed) =>
      log.warn(
        { reporter, error: message, ...suppressed },
        'ReverseTunnelReporter request rejected; retrying with backoff',
      ),
    );
    return { kind: 'rejected', answer: message, retryAfterMs, failures: races, priority };
  }

  #timestamp(): string {
    return rfc3339(this.#options.clock.wallMs());
  }
}

/** Returns the failure of a status write or a delete; its effect on the object may be unknown. */
function handleWriteError({ ownership }: ReporterEntry, error: unknown): ApiFailure {
  if (!isApiFailure(error)) throw error;
  if (isOutcomeUnknown(error)) ownership.markUncertain();
  return error;
}

/** Returns the outcome of a reconciliation that must be repeated at the earlier of two times, if they are defined. */
function waitUntil(nowMs: number, ownershipMs: number | undefined, statusMs?: number): Outcome {
  const dueMs = Math.min(ownershipMs ?? Infinity, statusMs ?? Infinity);
  if (dueMs === Infinity) return WAIT_FOR_EVENT;
  // A claim may be due then.
  const priority = ownershipMs === undefined ? 'normal' : 'high';
  return { kind: 'requeue', afterMs: Math.max(1, dueMs - nowMs), priority };
}
