import type { Clock } from '../clock.ts';
import type { ExpectationObject, ExpectationStatusPatch } from '../core/expectation-object.ts';
import {
  desiredExpectationStatus,
  evaluate,
  expectationStatusChange,
  sameExpectationStatus,
  type Evaluation,
  type ExpectationState,
} from '../core/expectation-status.ts';
import { findCondition } from '../core/kubernetes.ts';
import { delayMs, newBucket, take, type Rate } from '../core/token-bucket.ts';
import { findDifference } from '../core/rewrite.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import { rfc3339 } from '../timestamps.ts';
import type { ObjectEventRecorder } from './event-recorder.ts';
import type { ExpectationCache } from './expectation-cache.ts';
import { COUNTS_DELAY_MS, type ExpectationEntry } from './expectation-entry.ts';
import type { ExpectationTracker } from './expectation-tracker.ts';
import type { RewriteRecorder } from './rewrite-recorder.ts';
import { REWRITE_RETRY_MS } from './rewritten-objects.ts';
import { RETRY_SOON, type Outcome, type Reconciler } from './workers.ts';
import type { QueueItem } from './workqueue.ts';
import { isApiFailure, isTerminal, type ApiFailure } from './write-outcome.ts';

/** Writes the status of an expectation; `createExpectationApi` in `src/k8s/resources.ts` implements it. */
export interface ExpectationStatusApi {
  /** Sends a merge patch with `resourceVersion` as precondition. */
  patchStatus(
    name: string,
    resourceVersion: string,
    status: ExpectationStatusPatch,
  ): Promise<ExpectationObject>;
}

export interface ExpectationReconcilerOptions {
  readonly api: ExpectationStatusApi;
  readonly cache: ExpectationCache;
  readonly tracker: ExpectationTracker;
  /** Only the leader writes. */
  readonly leader: { readonly isHeld: boolean };
  readonly events: ObjectEventRecorder;
  readonly clock: Clock;
  /** Shared with the reconcilers of tunnels and reporters. */
  readonly rewrites: Pick<RewriteRecorder, 'record'>;
  readonly log: Log;
}

/** Limits edits, and writes, of one expectation: one that is edited continuously costs one write per second. */
const ENTRY_RATE: Rate = { burst: 6, perSecond: 1 };
/** Writes of all expectations for changed counts alone. */
const COUNTS_RATE: Rate = { burst: 100, perSecond: 2 };

/** When an expectation is evaluated again that came up while this replica was not the leader. */
const LEADER_RETRY_MS = 1000;

const NOTHING_TO_DO: Outcome = { kind: 'done', answered: false };
const WRITTEN: Outcome = { kind: 'requeue', afterMs: 0 };
/** States that are announced with an Event. */
const WARNED: ReadonlySet<ExpectationState> = new Set(['unsatisfied', 'unknown', 'invalid']);

/**
 * Brings the status of one expectation in line with the tunnels that the tracker has counted. A status is written at once
 * if a condition changes, and after 10 s if only counts do.
 */
export class ExpectationReconciler implements Reconciler {
  readonly #options: ExpectationReconcilerOptions;
  readonly #countsBudget = newBucket();
  readonly #throttled: LogThrottle;

  constructor(options: ExpectationReconcilerOptions) {
    this.#options = options;
    this.#throttled = createLogThrottle(options.clock);
  }

  describe({ name }: QueueItem): object {
    return { expectation: name };
  }

  async reconcile({ name }: QueueItem): Promise<Outcome> {
    const { cache, tracker, leader, clock } = this.#options;
    if (!tracker.isActive) return NOTHING_TO_DO;
    // Either the tracker notices this soon, or this replica becomes the leader again.
    if (!leader.isHeld) return requeueAfter(LEADER_RETRY_MS);
    const object = cache.get(name);
    if (object === undefined) {
      tracker.remove(name);
      return NOTHING_TO_DO;
    }
    const nowMs = clock.monotonicMs();
    const entry = tracker.entryOf(object);
    const editMs = this.#applyEdit(object, entry, nowMs);
    // The end of the scan queues it again.
    if (isCounting(entry)) return NOTHING_TO_DO;
    const evaluation = evaluate(entry.expectation, entry.tally?.finding, entry.progress, nowMs);
    entry.progress = evaluation.progress;
    entry.state = evaluation.state;
    entry.reason = evaluation.reason;
    entry.isEvaluated = true;
    const status = this.#desiredStatus(object, entry, evaluation, nowMs);
    const writeMs = this.#writeDelayMs(object, entry, status, nowMs);
    if (writeMs === 0) return await this.#write(object, entry, status);
    const nextMs = Math.min(writeMs, editMs, (evaluation.graceEndsAtMs ?? Infinity) - nowMs);
    return nextMs === Infinity ? NOTHING_TO_DO : requeueAfter(nextMs);
  }

  /**
   * Applies an edit, unless the previous one has not been evaluated yet or edits follow each other too fast: otherwise an
   * expectation that is edited continuously would never be evaluated.
   *
   * @returns how long the edit must wait; infinite if none waits
   */
  #applyEdit(object: ExpectationObject, entry: ExpectationEntry, nowMs: number): number {
    if (entry.spec === object.spec) {
      entry.generation = object.metadata.generation;
      return Infinity;
    }
    const waitMs = delayMs(entry.edits, ENTRY_RATE, nowMs);
    if (waitMs > 0 || !entry.isEvaluated) return waitMs;
    take(entry.edits, ENTRY_RATE, nowMs);
    this.#options.tracker.apply(entry, object);
    return Infinity;
  }

  #desiredStatus(
    object: ExpectationObject,
    entry: ExpectationEntry,
    evaluation: Evaluation,
    nowMs: number,
  ): ExpectationStatusPatch {
    const { tally } = entry;
    const { shortSinceMs = nowMs } = evaluation.progress;
    const wallMs = this.#options.clock.wallMs();
    const summary = tally?.summary();
    return desiredExpectationStatus(object, {
      generation: entry.generation,
      evaluation,
      summary,
      message: messageOf(entry, evaluation, summary === undefined ? '' : (tally?.describe(summary) ?? '')),
      now: rfc3339(wallMs),
      shortSince: rfc3339(wallMs - (nowMs - shortSinceMs)),
    });
  }

  /** Returns how long a write must wait; infinite if the status is up to date. */
  #writeDelayMs(
    { status: before }: ExpectationObject,
    entry: ExpectationEntry,
    status: ExpectationStatusPatch,
    nowMs: number,
  ): number {
    const change = expectationStatusChange(before, status);
    if (change === 'none') {
      entry.countsDueMs = undefined;
      return Infinity;
    }
    const { rewritten } = entry;
    if (
      rewritten !== undefined &&
      nowMs < rewritten.retryAtMs &&
      sameExpectationStatus(rewritten.status, status)
    ) {
      entry.countsDueMs = undefined;
      return rewritten.retryAtMs - nowMs;
    }
    const entryWaitMs = delayMs(entry.writes, ENTRY_RATE, nowMs);
    if (change === 'conditions') return entryWaitMs;
    entry.countsDueMs ??= nowMs + COUNTS_DELAY_MS;
    if (entry.countsDueMs > nowMs) return entry.countsDueMs - nowMs;
    const waitMs = Math.max(entryWaitMs, delayMs(this.#countsBudget, COUNTS_RATE, nowMs));
    if (waitMs === 0) take(this.#countsBudget, COUNTS_RATE, nowMs);
    return waitMs;
  }

  async #write(
    object: ExpectationObject,
    entry: ExpectationEntry,
    status: ExpectationStatusPatch,
  ): Promise<Outcome> {
    const { api, cache, clock } = this.#options;
    const { name, resourceVersion } = object.metadata;
    take(entry.writes, ENTRY_RATE, clock.monotonicMs());
    let written: ExpectationObject;
    try {
      written = await api.patchStatus(name, resourceVersion, status);
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      return this.#handleFailure(name, error);
    }
    entry.countsDueMs = undefined;
    this.#compare(entry, status, written);
    cache.applyWrite(written);
    this.#recordEvent(object, entry, status);
    return WRITTEN;
  }

  /** Records whether a status was stored as sent: the same one is otherwise not written again for 5 minutes. */
  #compare(entry: ExpectationEntry, status: ExpectationStatusPatch, stored: ExpectationObject): void {
    const { clock, rewrites } = this.#options;
    const difference = findDifference(status, stored.status ?? {}, 'status');
    if (difference === undefined) {
      entry.rewritten = undefined;
      return;
    }
    entry.rewritten = { status, retryAtMs: clock.monotonicMs() + REWRITE_RETRY_MS };
    rewrites.record('reversetunnelexpectations', difference, { expectation: entry.name, retry: 'in 5m' });
  }

  #handleFailure(name: string, failure: ApiFailure): Outcome {
    const { kind, status, retryAfterMs, message } = failure;
    // The watch shows the deletion, or the newer version, which queues the expectation again.
    if (kind === 'not_found') return { kind: 'done', answered: true };
    if (kind === 'conflict') return RETRY_SOON;
    if (!isTerminal(failure))
      return { kind: 'retry', blocked: true, unreachable: status === undefined, retryAfterMs };
    this.#throttled('rejected', (suppressed) =>
      this.#options.log.warn(
        { expectation: name, error: message, ...suppressed },
        'failed to update the status of a ReverseTunnelExpectation; retrying with backoff',
      ),
    );
    return { kind: 'rejected', answer: message, retryAfterMs };
  }

  /** Records a transition: another status or reason of Ready, except those that say nothing about the tunnels. */
  #recordEvent(
    { metadata, status: before }: ExpectationObject,
    { state }: ExpectationEntry,
    status: ExpectationStatusPatch,
  ): void {
    const ready = status.conditions?.[0];
    const previous = findCondition(before?.conditions, 'Ready');
    if (ready === undefined || state === undefined || state === 'pending' || state === 'paused') return;
    if (previous?.status === ready.status && previous.reason === ready.reason) return;
    const { name, uid } = metadata;
    this.#options.events.recordFor(
      { kind: 'ReverseTunnelExpectation', name, uid },
      {
        type: WARNED.has(state) ? 'Warning' : 'Normal',
        reason: ready.reason,
        action: 'EvaluateExpectation',
        note: ready.message,
      },
    );
  }
}

function messageOf(
  { expectation, tally }: ExpectationEntry,
  evaluation: Evaluation,
  connected: string,
): string {
  const { state, graceEndsAtMs } = evaluation;
  if (state === 'paused') return 'spec.paused is true: the expectation is not evaluated';
  if (state === 'invalid') return expectation.error ?? 'the expectation cannot be evaluated';
  const explained =
    tally?.finding === 'Unknown'
      ? `${connected}; reporters are disconnected, so it is unknown whether they are up`
      : connected;
  return graceEndsAtMs === undefined
    ? explained
    : `within the grace period of ${expectation.gracePeriodMs / 1000}s: ${explained}`;
}

/** Returns true while a scan has not counted all groups of an expectation. */
function isCounting({ members, tally }: ExpectationEntry): boolean {
  return members.length > 0 && tally === undefined;
}

function requeueAfter(afterMs: number): Outcome {
  return { kind: 'requeue', afterMs: Math.max(1, Math.ceil(afterMs)), answered: false };
}
