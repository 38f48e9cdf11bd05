import type { Clock } from '../clock.ts';
import { LostTimer } from '../core/expiry.ts';
import type { Claim } from '../core/ownership.ts';
import { reporterOf, reporterSeen } from '../core/reporter-object.ts';
import { statusPatch, type ReporterFacts } from '../core/reporter-status.ts';
import { compareResourceVersions } from '../core/resource-version.ts';
import { reporterKey } from '../core/tunnel.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { backoffMs, RETRY, SLOW_RETRY } from './backoff.ts';
import { isOvertaken, isRefusal, isUnsettled, nameTaken } from './call-failure.ts';
import { CallSlots } from './call-slots.ts';
import { RefusalLog } from './refusal-log.ts';
import type { ReporterApi } from './reporter-api.ts';
import type { ReporterCache } from './reporter-cache.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import type { ReporterEvents } from './reporter-events.ts';
import { factsOf, type FactsParts } from './reporter-facts.ts';
import { isApiFailure, type ApiFailure } from './row-api.ts';
import { secondsText } from './seconds-text.ts';
import type { Standing } from './standing.ts';
import { dueStatus } from './status-due.ts';

/** Calls about reporters at once. */
const SLOTS = 16;
/** Rows without an object of their reporter go after this, or after `--expire-after` if that is less. */
const ORPHAN_EXPIRE_AFTER_MS = 60_000;
/** A reporter that cannot be claimed has no rows: this is not left alone for as long as a single row. */
const LONGEST_RETRY_MS = 10_000;
/** Races in a row that are run again at once. */
const RACES_AT_ONCE = 2;

/** What the driver asks, calls and tells. Everything here is shared by all reporters. */
export interface DriverParts extends FactsParts {
  readonly api: ReporterApi;
  readonly cache: ReporterCache;
  readonly standing: Standing;
  /** Both kinds have been listed: before that nothing may be claimed. */
  readonly isListed: () => boolean;
  /** Reads all reporters anew: those that are known are of a time that etcd no longer knows. */
  readonly relist: () => void;
  /** The gate of a reporter has opened: every row of it is to be looked at. */
  readonly lookAtAll: (key: string, sinceMs: number) => void;
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
export class ReporterDriver {
  readonly #parts: DriverParts;
  readonly #slots = new CallSlots(SLOTS);
  readonly #refusals: RefusalLog;
  #busy = 0;
  #idle: (() => void)[] = [];
  #stopped = false;

  constructor(parts: DriverParts) {
    this.#parts = parts;
    this.#refusals = new RefusalLog(parts.clock, parts.log);
  }

  /** Resolves when no call about a reporter is under way or waits for a slot. */
  idle(): Promise<void> {
    return this.#busy === 0 ? Promise.resolve() : new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Begins nothing more. */
  stop(): void {
    this.#stopped = true;
  }

  /** Looks what is to be done about a reporter now, and begins it. Cheap where there is nothing. */
  pump(entry: ReporterEntry): void {
    const { ownership } = entry;
    this.#noteLoss(entry);
    if (entry.busy || this.#stopped) return;
    if (ownership.isIdle) {
      this.#parts.forget(entry);
      return;
    }
    const { clock, standing, isListed } = this.#parts;
    if (!isListed() || !standing.mayWrite()) return;
    const nowMs = clock.monotonicMs();
    if (nowMs < entry.retryAtMs) {
      this.#wakeAt(entry, entry.retryAtMs);
      return;
    }
    const decision = ownership.decide(nowMs);
    if (decision.do === 'claim') this.#run(entry, true, () => this.#claimIfDue(entry));
    else if (decision.do === 'read') this.#run(entry, true, () => this.freshRead(entry));
    else {
      if (ownership.owns) this.#lookAtSkipped(entry, nowMs);
      const statusMs = ownership.owns && entry.touched ? this.#status(entry, nowMs) : undefined;
      if (decision.atMs !== undefined || statusMs !== undefined) {
        this.#wakeAt(entry, Math.min(decision.atMs ?? Infinity, statusMs ?? Infinity));
      }
    }
  }

  /** Reads a reporter's object; one read under way serves all who ask. Gives why it could not be read. */
  freshRead(entry: ReporterEntry): Promise<ApiFailure | undefined> {
    entry.reading ??= this.#read(entry).finally(() => {
      entry.reading = undefined;
    });
    return entry.reading;
  }

  /** Deletes the object of a reporter whose rows are gone; asked for every second, and not done before a retry is due. */
  deleteObject(entry: ReporterEntry): void {
    if (entry.busy || this.#stopped || this.#parts.clock.monotonicMs() < entry.retryAtMs) return;
    this.#run(entry, false, () => this.#delete(entry));
  }

  /** A reporter that is owned and has no stream is lost: from the loss or from the claim on. */
  #noteLoss(entry: ReporterEntry): void {
    const { owns, holds, hasStream } = entry.ownership;
    // Not by a moment of doubt after a write that failed: the time would begin anew, and rows that expired come back.
    if (!holds || hasStream) entry.lost = undefined;
    if (!owns || hasStream) return;
    const { clock, expireAfterMs } = this.#parts;
    entry.lost ??= {
      timer: new LostTimer(clock.monotonicMs()),
      expireAfterMs: entry.orphan ? Math.min(expireAfterMs, ORPHAN_EXPIRE_AFTER_MS) : expireAfterMs,
      phase: 'lost',
      todo: undefined,
    };
  }

  /** Rows that were left out while they were not to be written. */
  #lookAtSkipped(entry: ReporterEntry, nowMs: number): void {
    const { skippedSinceMs } = entry;
    const mayCollect = entry.collectLater && entry.ownership.mayCollect(nowMs) !== 'no';
    if (skippedSinceMs === undefined && !mayCollect) return;
    entry.skippedSinceMs = undefined;
    entry.touched = true;
    if (mayCollect) entry.collectLater = false;
    // Rows of a lost reporter are gone through by `LostReporters`, which has done with those that were left out.
    if (entry.lost !== undefined) entry.lost.todo = undefined;
    entry.backlogSinceMs ??= nowMs;
    this.#parts.lookAtAll(entry.key, skippedSinceMs ?? nowMs);
    if (this.#parts.queue.pending(entry.key) === 0) entry.backlogSinceMs = undefined;
  }

  /** By the time a slot is free the object may be another. */
  async #claimIfDue(entry: ReporterEntry): Promise<ApiFailure | undefined> {
    const decision = entry.ownership.decide(this.#parts.clock.monotonicMs());
    return decision.do === 'claim' ? await this.#claim(entry, decision.claim) : undefined;
  }

  async #claim(entry: ReporterEntry, claim: Claim): Promise<ApiFailure | undefined> {
    const { api, cache, clock, metrics, events, log } = this.#parts;
    const { ownership, reporter, key, name } = entry;
    ownership.claimSent(claim);
    try {
      let resourceVersion = claim.basis?.resourceVersion;
      if (resourceVersion === undefined) {
        const created = await api.create(name, { id: reporter.id, cluster: reporter.cluster });
        cache.learnt(created);
        ({ resourceVersion } = created.metadata);
      }
      const facts = factsOf(entry, this.#parts, clock.monotonicMs(), false);
      const answer = await api.patchStatus(name, resourceVersion, {
        owner: claim.owner,
        ...statusPatch(facts, cache.get(key)?.status, this.#now()),
      });
      cache.learnt(answer);
      ownership.claimConfirmed(reporterSeen(answer), clock.monotonicMs());
      metrics.claims.inc({ outcome: 'ok' });
      this.#wroteStatus(entry, facts);
      // What was reported, and what was done to rows, while they were somebody else's.
      entry.skippedSinceMs ??= clock.monotonicMs();
      log.info({ reporter, epoch: claim.owner.epoch, streaming: claim.streaming }, 'claimed reporter');
      if (!claim.streaming) events.tell(reporter, 'lost', 'The replica that held the stream has stopped');
      else {
        events.tell(reporter, 'connected', `Stream accepted by replica ${claim.owner.replica}`);
        // It ended while the claim was on its way, when it could not be told that a reporter is lost that is not owned.
        if (entry.stream === undefined) events.tell(reporter, 'lost', `Stream closed: ${entry.lostReason}`);
      }
      return undefined;
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      metrics.claims.inc({ outcome: error.consequence });
      if (isUnsettled(error)) ownership.claimUnsettled();
      else ownership.claimRefused(clock.monotonicMs());
      return error;
    }
  }

  async #read(entry: ReporterEntry): Promise<ApiFailure | undefined> {
    const { api, cache, clock, metrics, relist } = this.#parts;
    const { ownership, key, name } = entry;
    const mark = ownership.readMark;
    const sentMs = clock.monotonicMs();
    const before = cache.get(key)?.metadata;
    try {
      const object = await api.read(name);
      const isOthers = object !== undefined && reporterKey(reporterOf(object)) !== key;
      if (object !== undefined && !isOthers) {
        // A GET shows nothing older than what was known when it was sent, unless etcd was restored. Without this the cache
        // would answer for it, and name an owner that was before the restore.
        const { resourceVersion } = object.metadata;
        const isRestored =
          before !== undefined && compareResourceVersions(resourceVersion, before.resourceVersion) < 0;
        if (isRestored) {
          cache.restored(object);
          relist();
        } else cache.learnt(object);
      }
      // An object that was created after this was sent is not gone: so taken, nothing would let it in again.
      else if (cache.get(key)?.metadata.uid === before?.uid) cache.gone(key);
      // By what is known now: the watch, or the answer to a write, may have been quicker than this read.
      const known = cache.get(key);
      ownership.readAnswered(
        known === undefined ? undefined : reporterSeen(known),
        mark,
        sentMs,
        clock.monotonicMs(),
      );
      if (!isOthers) return undefined;
      // Made by hand, or by the hash of another reporter. It is never overwritten: a creation fails as long as it stands.
      metrics.claims.inc({ outcome: 'name_taken' });
      return nameTaken(name);
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      return error;
    }
  }

  /** Writes the status if it is due; else gives when it will be. */
  #status(entry: ReporterEntry, nowMs: number): number | undefined {
    const known = this.#parts.cache.get(entry.key);
    if (known === undefined) return undefined;
    const due = dueStatus(entry, known.status, this.#parts, nowMs);
    if (due.do === 'wait') return due.atMs;
    this.#run(entry, false, () => this.#writeStatus(entry, due.facts));
    return undefined;
  }

  async #writeStatus(entry: ReporterEntry, facts: ReporterFacts): Promise<ApiFailure | undefined> {
    const { api, cache } = this.#parts;
    const { ownership, key, name } = entry;
    const known = cache.get(key);
    // By the time a slot was free all may be different: then it is looked at again.
    if (known === undefined || !ownership.owns || !this.#parts.standing.mayWrite()) return undefined;
    try {
      const patch = statusPatch(facts, known.status, this.#now());
      cache.learnt(await api.patchStatus(name, known.metadata.resourceVersion, patch));
      this.#wroteStatus(entry, facts);
      return undefined;
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      if (isUnsettled(error)) ownership.doubt();
      return error;
    }
  }

  #wroteStatus(entry: ReporterEntry, facts: ReporterFacts): void {
    entry.statusWrittenMs = this.#parts.clock.monotonicMs();
    // More may have happened while it was written: `statusChange` tells.
    entry.touched = facts.synced.reason !== 'UpToDate' || facts.conflict || entry.touched;
  }

  async #delete(entry: ReporterEntry): Promise<ApiFailure | undefined> {
    const { api, cache, events, log } = this.#parts;
    const { ownership, key, name, reporter } = entry;
    const known = cache.get(key);
    if (known === undefined || !ownership.owns || ownership.hasStream || !this.#parts.standing.mayWrite())
      return undefined;
    // Deleted already: it goes when its finalizers do.
    if (known.metadata.deletionTimestamp !== undefined) return undefined;
    try {
      const left = await api.delete(name, known.metadata.uid, known.metadata.resourceVersion);
      log.info(
        { reporter },
        'reporter expired; deleted its ReverseTunnel objects and its ReverseTunnelReporter',
      );
      events.tell(
        reporter,
        'expired',
        'Disconnected for longer than --expire-after; deleting its ReverseTunnel objects and this object',
      );
      if (left === undefined) cache.gone(key);
      else cache.learnt(left);
      return undefined;
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      if (isUnsettled(error)) ownership.doubt();
      return error;
    }
  }

  /** Runs a call about one reporter, and looks again when it is answered. */
  #run(entry: ReporterEntry, urgent: boolean, call: () => Promise<ApiFailure | undefined>): void {
    entry.busy = true;
    this.#busy += 1;
    void this.#slots
      .run(urgent, async () => (this.#parts.standing.mayWrite() ? await call() : undefined))
      .catch((error: unknown) => {
        // A fault of this program in one reporter is that reporter's alone, and is not repeated at full speed.
        this.#parts.log.error(
          { err: error, reporter: entry.reporter },
          'unexpected error while updating a ReverseTunnelReporter',
        );
        return 'fault' as const;
      })
      .then((failure) => this.#settle(entry, failure));
  }

  #settle(entry: ReporterEntry, failure: ApiFailure | 'fault' | undefined): void {
    const { clock, random } = this.#parts;
    entry.busy = false;
    this.#busy -= 1;
    if (failure === undefined) {
      entry.failures = 0;
      if (entry.ownership.owns) entry.unsettled = 0;
    } else if (failure !== 'fault' && isUnsettled(failure)) entry.unsettled += 1;
    const races = entry.unsettled - RACES_AT_ONCE;
    // Somebody else was quicker: no failure, and the read that follows tells what is there. But not without an end.
    const isOver = failure === undefined || (failure !== 'fault' && isOvertaken(failure) && races <= 0);
    if (!isOver) {
      entry.failures += 1;
      const slow = failure === 'fault' || isRefusal(failure);
      const askedMs = failure === 'fault' ? 0 : (failure.retryAfterMs ?? 0) * (1 + random() / 2);
      const ownMs = Math.min(
        backoffMs(slow ? SLOW_RETRY : RETRY, Math.max(entry.failures, races), random()),
        LONGEST_RETRY_MS,
      );
      entry.retryAtMs = clock.monotonicMs() + Math.max(ownMs, askedMs);
      if (slow && failure !== 'fault') {
        this.#refusals.refused({ reporter: entry.reporter, error: failure.message });
      }
    }
    this.pump(entry);
    if (this.#busy === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }

  #now(): string {
    return secondsText(this.#parts.clock.wallMs());
  }

  #wakeAt(entry: ReporterEntry, atMs: number): void {
    if (entry.cancelWake !== undefined && entry.wakeAtMs === atMs) return;
    entry.cancelWake?.();
    const { clock } = this.#parts;
    entry.wakeAtMs = atMs;
    entry.cancelWake = clock.setTimer(Math.max(0, atMs - clock.monotonicMs()), () => {
      entry.cancelWake = undefined;
      this.pump(entry);
    });
  }
}
