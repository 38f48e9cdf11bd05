import type { Clock } from '../clock.ts';
import { GraceTimer } from '../core/grace-timer.ts';
import type { Claim } from '../core/ownership.ts';
import { reporterIdOf, observeReporter } from '../core/reporter-object.ts';
import { statusPatch, type StatusInputs } from '../core/reporter-status.ts';
import { compareResourceVersions } from '../core/kubernetes.ts';
import { reporterKey } from '../core/tunnel.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { backoffDelayMs, RETRY, SLOW_RETRY } from '../backoff.ts';
import { isBenignConflict, isTerminal, isOutcomeUnknown, nameTakenError } from './write-outcome.ts';
import { Semaphore } from './semaphore.ts';
import type { ReporterObjectApi } from './reporter-object-api.ts';
import type { ReporterCache } from './reporter-cache.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import type { ReporterEvents } from './reporter-events.ts';
import { collectStatusInputs, type StatusInputsOptions } from './status-inputs.ts';
import { isApiFailure, type ApiFailure } from './tunnel-object-api.ts';
import { rfc3339 } from '../timestamps.ts';
import type { WriteFence } from './write-fence.ts';
import { nextStatusWrite } from './status-scheduler.ts';

/** A used-up quota rejects thousands of writes, each again and again: one line in 10 s stands for all of them. */
const REJECTION_LOG_INTERVAL_MS = 10_000;
/** Calls about reporters at once. */
const MAX_CONCURRENT_CALLS = 16;
/** Rows without an object of their reporter go after this, or after `--expire-after` if that is less. */
const ORPHAN_EXPIRE_AFTER_MS = 60_000;
/** A reporter that cannot be claimed has no rows: this is not left alone for as long as a single row. */
const MAX_RETRY_MS = 10_000;
/** Races in a row that are run again at once. */
const IMMEDIATE_RACE_RETRIES = 2;

/** What the driver asks, calls and tells. Everything here is shared by all reporters. */
export interface ReporterReconcilerOptions extends StatusInputsOptions {
  readonly api: ReporterObjectApi;
  readonly cache: ReporterCache;
  readonly fence: WriteFence;
  /** Both kinds have been listed: before that nothing may be claimed. */
  readonly hasSynced: () => boolean;
  /** Reads all reporters anew: those that are known are of a time that etcd no longer knows. */
  readonly relist: () => void;
  /** The gate of a reporter has opened: every row of it is to be looked at. */
  readonly resync: (key: string, sinceMs: number) => void;
  /** Nothing is left to know about a reporter. */
  readonly forget: (entry: ReporterEntry) => void;
  readonly expireAfterMs: number;
  readonly events: ReporterEvents;
  readonly clock: Clock;
  readonly random: () => number;
  readonly metrics: Metrics;
  readonly log: Log;
}

/**
 * Does what the reporters' state machines decide: claims, reads, status writes, the deletion at the end. For each
 * reporter one call at a time, so that own writes do not conflict; over all reporters 16, claims first. They have
 * connections of their own, so that no row write stands before a claim.
 */
export class ReporterReconciler {
  readonly #options: ReporterReconcilerOptions;
  readonly #semaphore = new Semaphore(MAX_CONCURRENT_CALLS);
  readonly #throttled: LogThrottle;
  #callsInFlight = 0;
  #idleWaiters: (() => void)[] = [];
  #stopped = false;

  constructor(options: ReporterReconcilerOptions) {
    this.#options = options;
    this.#throttled = createLogThrottle(options.clock, REJECTION_LOG_INTERVAL_MS);
  }

  /** Resolves when no call about a reporter is under way or waits for a slot. */
  idleWaiters(): Promise<void> {
    return this.#callsInFlight === 0
      ? Promise.resolve()
      : new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  /** Begins nothing more. */
  stop(): void {
    this.#stopped = true;
  }

  /** Looks what is to be done about a reporter now, and begins it. Cheap where there is nothing. */
  reconcile(entry: ReporterEntry): void {
    const { ownership } = entry;
    this.#trackDisconnect(entry);
    if (entry.busy || this.#stopped) return;
    if (ownership.isIdle) {
      this.#options.forget(entry);
      return;
    }
    const { clock, fence, hasSynced } = this.#options;
    if (!hasSynced() || !fence.canWrite()) return;
    const nowMs = clock.monotonicMs();
    if (nowMs < entry.retryAtMs) {
      this.#scheduleAt(entry, entry.retryAtMs);
      return;
    }
    const action = ownership.decide(nowMs);
    if (action.type === 'claim') this.#run(entry, true, () => this.#claimIfNeeded(entry));
    else if (action.type === 'read') this.#run(entry, true, () => this.liveRead(entry));
    else {
      if (ownership.owns) this.#resyncSkipped(entry, nowMs);
      const statusMs = ownership.owns && entry.statusDirty ? this.#reconcileStatus(entry, nowMs) : undefined;
      if (action.atMs !== undefined || statusMs !== undefined) {
        this.#scheduleAt(entry, Math.min(action.atMs ?? Infinity, statusMs ?? Infinity));
      }
    }
  }

  /** Reads a reporter's object; one read under way serves all who ask. Gives why it could not be read. */
  liveRead(entry: ReporterEntry): Promise<ApiFailure | undefined> {
    entry.pendingRead ??= this.#read(entry).finally(() => {
      entry.pendingRead = undefined;
    });
    return entry.pendingRead;
  }

  /** Deletes the object of a reporter whose rows are gone; asked for every second, and not done before a retry is due. */
  deleteObject(entry: ReporterEntry): void {
    if (entry.busy || this.#stopped || this.#options.clock.monotonicMs() < entry.retryAtMs) return;
    this.#run(entry, false, () => this.#delete(entry));
  }

  /** A reporter that is owned and has no stream is lost: from the loss or from the claim on. */
  #trackDisconnect(entry: ReporterEntry): void {
    const { owns, hasConfirmedClaim, hasStream } = entry.ownership;
    // Not by a moment of doubt after a write that failed: the time would begin anew, and rows that expired come back.
    if (!hasConfirmedClaim || hasStream) entry.disconnected = undefined;
    if (!owns || hasStream) return;
    const { clock, expireAfterMs } = this.#options;
    entry.disconnected ??= {
      timer: new GraceTimer(clock.monotonicMs()),
      expireAfterMs: entry.isOrphan ? Math.min(expireAfterMs, ORPHAN_EXPIRE_AFTER_MS) : expireAfterMs,
      phase: 'grace',
      remaining: undefined,
    };
  }

  /** Rows that were left out while they were not to be written. */
  #resyncSkipped(entry: ReporterEntry, nowMs: number): void {
    const { writesSkippedSinceMs } = entry;
    const canDelete = entry.deletionsDeferred && entry.ownership.canDelete(nowMs) !== 'deny';
    if (writesSkippedSinceMs === undefined && !canDelete) return;
    entry.writesSkippedSinceMs = undefined;
    entry.statusDirty = true;
    if (canDelete) entry.deletionsDeferred = false;
    // Rows of a lost reporter are gone through by `LostReporters`, which has done with those that were left out.
    if (entry.disconnected !== undefined) entry.disconnected.remaining = undefined;
    entry.backlogSinceMs ??= nowMs;
    this.#options.resync(entry.key, writesSkippedSinceMs ?? nowMs);
    if (this.#options.queue.pending(entry.key) === 0) entry.backlogSinceMs = undefined;
  }

  /** By the time a slot is free the object may be another. */
  async #claimIfNeeded(entry: ReporterEntry): Promise<ApiFailure | undefined> {
    const action = entry.ownership.decide(this.#options.clock.monotonicMs());
    return action.type === 'claim' ? await this.#claim(entry, action.claim) : undefined;
  }

  async #claim(entry: ReporterEntry, claim: Claim): Promise<ApiFailure | undefined> {
    const { api, cache, clock, metrics, events, log } = this.#options;
    const { ownership, reporter, key, name } = entry;
    ownership.claimSent(claim);
    try {
      let resourceVersion = claim.basis?.resourceVersion;
      if (resourceVersion === undefined) {
        const created = await api.create(name, { id: reporter.id, cluster: reporter.cluster });
        cache.upsert(created);
        ({ resourceVersion } = created.metadata);
      }
      const inputs = collectStatusInputs(entry, this.#options, clock.monotonicMs(), false);
      const answer = await api.patchStatus(name, resourceVersion, {
        owner: claim.owner,
        ...statusPatch(inputs, cache.get(key)?.status, this.#timestamp()),
      });
      cache.upsert(answer);
      ownership.claimConfirmed(observeReporter(answer), clock.monotonicMs());
      metrics.claims.inc({ outcome: 'ok' });
      this.#recordStatusWrite(entry, inputs);
      // What was reported, and what was done to rows, while they were somebody else's.
      entry.writesSkippedSinceMs ??= clock.monotonicMs();
      log.info({ reporter, epoch: claim.owner.epoch, streaming: claim.streaming }, 'claimed reporter');
      if (!claim.streaming) events.record(reporter, 'lost', 'The replica that held the stream has stopped');
      else {
        events.record(reporter, 'connected', `Stream accepted by replica ${claim.owner.replica}`);
        // It ended while the claim was on its way, when it could not be told that a reporter is lost that is not owned.
        if (entry.stream === undefined)
          events.record(reporter, 'lost', `Stream closed: ${entry.disconnectReason}`);
      }
      return undefined;
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      metrics.claims.inc({ outcome: error.kind });
      if (isOutcomeUnknown(error)) ownership.claimOutcomeUnknown();
      else ownership.claimRejected(clock.monotonicMs());
      return error;
    }
  }

  async #read(entry: ReporterEntry): Promise<ApiFailure | undefined> {
    const { api, cache, clock, metrics, relist } = this.#options;
    const { ownership, key, name } = entry;
    const mark = ownership.readMark;
    const sentMs = clock.monotonicMs();
    const before = cache.get(key)?.metadata;
    try {
      const object = await api.read(name);
      const isForeign = object !== undefined && reporterKey(reporterIdOf(object)) !== key;
      if (object !== undefined && !isForeign) {
        // A GET shows nothing older than what was known when it was sent, unless etcd was restored. Without this the cache
        // would answer for it, and name an owner that was before the restore.
        const { resourceVersion } = object.metadata;
        const isRestored =
          before !== undefined && compareResourceVersions(resourceVersion, before.resourceVersion) < 0;
        if (isRestored) {
          cache.resetTo(object);
          relist();
        } else cache.upsert(object);
      }
      // An object that was created after this was sent is not gone: so taken, nothing would let it in again.
      else if (cache.get(key)?.metadata.uid === before?.uid) cache.remove(key);
      // By what is known now: the watch, or the answer to a write, may have been quicker than this read.
      const known = cache.get(key);
      ownership.readAnswered(
        known === undefined ? undefined : observeReporter(known),
        mark,
        sentMs,
        clock.monotonicMs(),
      );
      if (!isForeign) return undefined;
      // Made by hand, or by the hash of another reporter. It is never overwritten: a creation fails as long as it stands.
      metrics.claims.inc({ outcome: 'name_taken' });
      return nameTakenError(name);
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      return error;
    }
  }

  /** Writes the status if it is due; else gives when it will be. */
  #reconcileStatus(entry: ReporterEntry, nowMs: number): number | undefined {
    const known = this.#options.cache.get(entry.key);
    if (known === undefined) return undefined;
    const action = nextStatusWrite(entry, known.status, this.#options, nowMs);
    if (action.type === 'wait') return action.atMs;
    this.#run(entry, false, () => this.#writeStatus(entry, action.inputs));
    return undefined;
  }

  async #writeStatus(entry: ReporterEntry, inputs: StatusInputs): Promise<ApiFailure | undefined> {
    const { api, cache } = this.#options;
    const { ownership, key, name } = entry;
    const known = cache.get(key);
    // By the time a slot was free all may be different: then it is looked at again.
    if (known === undefined || !ownership.owns || !this.#options.fence.canWrite()) return undefined;
    try {
      const patch = statusPatch(inputs, known.status, this.#timestamp());
      cache.upsert(await api.patchStatus(name, known.metadata.resourceVersion, patch));
      this.#recordStatusWrite(entry, inputs);
      return undefined;
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      if (isOutcomeUnknown(error)) ownership.markUncertain();
      return error;
    }
  }

  #recordStatusWrite(entry: ReporterEntry, inputs: StatusInputs): void {
    entry.statusWrittenMs = this.#options.clock.monotonicMs();
    // More may have happened while it was written: `statusChange` tells.
    entry.statusDirty = inputs.synced.reason !== 'UpToDate' || inputs.conflict || entry.statusDirty;
  }

  async #delete(entry: ReporterEntry): Promise<ApiFailure | undefined> {
    const { api, cache, events, log } = this.#options;
    const { ownership, key, name, reporter } = entry;
    const known = cache.get(key);
    if (known === undefined || !ownership.owns || ownership.hasStream || !this.#options.fence.canWrite())
      return undefined;
    // Deleted already: it goes when its finalizers do.
    if (known.metadata.deletionTimestamp !== undefined) return undefined;
    try {
      const remaining = await api.delete(name, known.metadata.uid, known.metadata.resourceVersion);
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
      if (!isApiFailure(error)) throw error;
      if (isOutcomeUnknown(error)) ownership.markUncertain();
      return error;
    }
  }

  /** Runs a call about one reporter, and looks again when it is answered. */
  #run(entry: ReporterEntry, urgent: boolean, call: () => Promise<ApiFailure | undefined>): void {
    entry.busy = true;
    this.#callsInFlight += 1;
    void this.#semaphore
      .run(urgent, async () => (this.#options.fence.canWrite() ? await call() : undefined))
      .catch((error: unknown) => {
        // A fault of this program in one reporter is that reporter's alone, and is not repeated at full speed.
        this.#options.log.error(
          { err: error, reporter: entry.reporter },
          'unexpected error while updating a ReverseTunnelReporter',
        );
        return 'fault' as const;
      })
      .then((failure) => this.#completeCall(entry, failure));
  }

  #completeCall(entry: ReporterEntry, failure: ApiFailure | 'fault' | undefined): void {
    const { clock, random } = this.#options;
    entry.busy = false;
    this.#callsInFlight -= 1;
    if (failure === undefined) {
      entry.failures = 0;
      if (entry.ownership.owns) entry.consecutiveConflicts = 0;
    } else if (failure !== 'fault' && isOutcomeUnknown(failure)) entry.consecutiveConflicts += 1;
    const races = entry.consecutiveConflicts - IMMEDIATE_RACE_RETRIES;
    // Somebody else was quicker: no failure, and the read that follows tells what is there. But not without an end.
    const isDone = failure === undefined || (failure !== 'fault' && isBenignConflict(failure) && races <= 0);
    if (!isDone) {
      entry.failures += 1;
      const retrySlowly = failure === 'fault' || isTerminal(failure);
      const serverDelayMs = failure === 'fault' ? 0 : (failure.retryAfterMs ?? 0) * (1 + random() / 2);
      const ownDelayMs = Math.min(
        backoffDelayMs(retrySlowly ? SLOW_RETRY : RETRY, Math.max(entry.failures, races), random()),
        MAX_RETRY_MS,
      );
      entry.retryAtMs = clock.monotonicMs() + Math.max(ownDelayMs, serverDelayMs);
      if (retrySlowly && failure !== 'fault') {
        const fields = { reporter: entry.reporter, error: failure.message };
        this.#throttled('rejected', (suppressed) =>
          this.#options.log.warn(
            { ...fields, ...suppressed },
            'ReverseTunnel write rejected; retrying with backoff',
          ),
        );
      }
    }
    this.reconcile(entry);
    if (this.#callsInFlight === 0) for (const resolve of this.#idleWaiters.splice(0)) resolve();
  }

  #timestamp(): string {
    return rfc3339(this.#options.clock.wallMs());
  }

  #scheduleAt(entry: ReporterEntry, atMs: number): void {
    if (entry.cancelWake !== undefined && entry.wakeAtMs === atMs) return;
    entry.cancelWake?.();
    const { clock } = this.#options;
    entry.wakeAtMs = atMs;
    entry.cancelWake = clock.setTimer(Math.max(0, atMs - clock.monotonicMs()), () => {
      entry.cancelWake = undefined;
      this.reconcile(entry);
    });
  }
}
