import type { Clock } from '../clock.ts';
import type { FlappingTunnels } from '../core/flapping-tunnels.ts';
import type { Ledger } from '../core/ledger.ts';
import type { RejectionSearch } from '../core/rejection-search.ts';
import { findDifference, type RewrittenField } from '../core/rewrite.ts';
import { sliceChanges, SliceParts, type SliceAction } from '../core/slice-plan.ts';
import type { Metrics } from '../metrics.ts';
import type { Departures } from './departures.ts';
import type { RejectedEntries } from './rejected-entries.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { RewriteLimiter } from './rewrite-limiter.ts';
import type { RewriteRecorder } from './rewrite-recorder.ts';
import { sameWrite, type RewrittenSlices } from './rewritten-slices.ts';
import type { SliceCache } from './slice-cache.ts';
import type { SliceEnqueuer } from './slice-enqueuer.ts';
import { sliceNameOf } from './slice-item.ts';
import type { SlicePlanner } from './slice-planner.ts';
import type { SliceTransitionRecorder } from './slice-transitions.ts';
import {
  describeSlice,
  SLICE_VERBS,
  type SliceItem,
  type SliceWriter,
  type WrittenSlice,
} from './slice-writer.ts';
import type { TunnelCache } from './tunnel-cache.ts';
import type { TunnelEnqueuer } from './tunnel-enqueuer.ts';
import { RETRY_SOON, type Outcome, type Reconciler, type Rejected } from './workers.ts';
import type { QueueItem } from './workqueue.ts';
import type { WriteAuthorizer } from './write-authorizer.ts';
import type { WriteFailures } from './write-failures.ts';

/** Writes per reconciliation: the content, the status, and room for conflicts. A contended slice goes back to the queue. */
const MAX_WRITES = 4;

export interface SliceReconcilerOptions {
  readonly writer: SliceWriter;
  readonly ledger: Ledger;
  readonly cache: SliceCache;
  readonly objects: TunnelCache;
  readonly planner: SlicePlanner;
  readonly slices: SliceEnqueuer;
  readonly tunnels: TunnelEnqueuer;
  readonly registry: ReporterRegistry;
  readonly flapping: FlappingTunnels;
  readonly departures: Departures;
  /** Asked before each write. */
  readonly writeAuthorizer: WriteAuthorizer;
  readonly failures: WriteFailures;
  readonly rejected: RejectedEntries;
  readonly rewritten: RewrittenSlices;
  readonly transitions: SliceTransitionRecorder;
  /** Shared with the other reconcilers. */
  readonly rewrites: RewriteRecorder;
  /** Shared with the other reconcilers. */
  readonly limiter: RewriteLimiter;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** The search for the changes of a slice that the API server rejects. */
interface Search {
  readonly found: RejectionSearch;
  /** The last rejection. */
  rejection: Rejected;
}

/**
 * Brings slices to the desired state, in the same way as `TunnelReconciler` does with objects: compares, sends the next
 * write, updates the cache with the response, and repeats until nothing differs. If the API server rejects a write, the
 * changes that it rejects are found by writing parts of it, and left to `RejectedEntries`.
 */
export class SliceReconciler implements Reconciler {
  readonly #options: SliceReconcilerOptions;

  constructor(options: SliceReconcilerOptions) {
    this.#options = options;
  }

  describe({ name }: QueueItem): object {
    return { slice: sliceNameOf(name) };
  }

  onRejected({ key, name }: QueueItem, answer: string): void {
    const { planner, rejected, writeAuthorizer } = this.#options;
    let count = 0;
    for (const tunnelName of new Set(planner.namesIn(key, sliceNameOf(name) ?? '')))
      if (!rejected.isWaiting(key, tunnelName) && planner.needsWrite(key, tunnelName)) count += 1;
    writeAuthorizer.writeRejected(key, name, answer, Math.max(1, count));
  }

  async reconcile(item: QueueItem): Promise<Outcome> {
    const { writer, ledger, planner, slices, registry, failures, rejected } = this.#options;
    const { writeAuthorizer, clock } = this.#options;
    const reporter = ledger.reporter(item.key) ?? registry.entry(item.key)?.reporter;
    const sliceName = sliceNameOf(item.name);
    if (reporter === undefined || sliceName === undefined) return { kind: 'done', answered: false };
    const slice = { item, reporter, sliceName };
    this.#compareReleased(item.key, slices.taken(item.key, sliceName));
    let canRemove = writeAuthorizer.authorize(item.key, 'delete') !== 'deny';
    // Additions and updates are written now, and removals once they are allowed.
    if (!canRemove && planner.needsRemoval(item.key, sliceName)) writeAuthorizer.writeSkipped(item.key);
    let last: WrittenSlice | undefined;
    let search: Search | undefined;
    /** Steps that made progress with a search, which ends by itself. */
    let searchSteps = 0;
    for (let steps = 0; ; steps += 1) {
      const nowMs = clock.monotonicMs();
      if (search !== undefined && search.found.part === undefined) {
        this.#endSearch(slice, search);
        if (search.found.isAborted && planner.sliceNeedsWrite(item.key, sliceName)) return search.rejection;
        search = undefined;
      }
      const action = this.#nextAction(slice, canRemove, search?.found.part, nowMs);
      if (action === undefined && search === undefined)
        return this.#settle(slice, last !== undefined, steps > 0, nowMs);
      if (action === undefined) {
        search?.found.skipped();
        searchSteps += 1;
        continue;
      }
      if (steps - searchSteps >= MAX_WRITES) return RETRY_SOON;
      if (last !== undefined && sameWrite(last.action, action)) {
        const field = rewrittenField(last);
        // Another client undid the write at once.
        if (field === undefined) return RETRY_SOON;
        this.#recordRewrite(last, field, slice);
        continue;
      }
      const isRemoval = action.type === 'patch' && action.removed.length > 0;
      const permission = writeAuthorizer.authorize(item.key, isRemoval ? 'delete' : action.type);
      if (permission === 'deny') {
        writeAuthorizer.writeSkipped(item.key);
        if (!isRemoval || !canRemove) return { kind: 'done', answered: last !== undefined };
        canRemove = false;
        continue;
      }
      if (permission === 'verify') {
        const failure = await writeAuthorizer.liveRead(item.key);
        if (failure !== undefined) return failures.reactToRead(failure, describeSlice(slice));
        // The read, or an event during it, may have made the write unnecessary, or ended the ownership.
        continue;
      }
      const waitMs = this.#attemptDelayMs(action, item, nowMs);
      if (waitMs > 0) return { kind: 'requeue', afterMs: waitMs, answered: last !== undefined };
      const outcome = await writer.write(action, slice);
      if (outcome === 'refreshed') continue;
      if ('kind' in outcome) return outcome;
      if (search !== undefined) searchSteps += 1;
      const changes = sliceChanges(action);
      if ('rejection' in outcome) {
        const { rejection } = outcome;
        if (changes.removed.length + changes.others.length === 0) return rejection;
        if (search === undefined) {
          search = { found: rejected.search(item.key, sliceName, changes), rejection };
        } else {
          search.found.partRejected();
          search.rejection = rejection;
        }
        continue;
      }
      last = outcome;
      search?.found.accepted();
      rejected.accepted(item.key, sliceName, changes);
    }
  }

  #endSearch({ item: { key }, sliceName }: SliceItem, { found, rejection: { answer } }: Search): void {
    const { rejected } = this.#options;
    if (found.isAborted) rejected.sliceRejected(key, sliceName, answer);
    else rejected.entriesRejected(key, sliceName, found.rejected, answer);
  }

  /**
   * Returns the next write, except those that admission would rewrite again.
   *
   * @param searched the entries that the write should change; undefined: all that were not rejected
   */
  #nextAction(
    { item, sliceName }: SliceItem,
    canRemove: boolean,
    searched: readonly string[] | undefined,
    nowMs: number,
  ): SliceAction | undefined {
    const { planner, slices, rewritten, registry } = this.#options;
    const retryAtMs = registry.entry(item.key)?.pendingWrites.rewritten.retryAtMs(item.name) ?? nowMs;
    const mayChange = this.#changeFilter(item.key, searched);
    let ignored: SliceParts = searched === undefined ? 0 : SliceParts.status;
    for (;;) {
      const { action, overflow } = planner.plan(item.key, sliceName, canRemove, ignored, mayChange);
      if (overflow.length > 0) slices.reassign(item.key, sliceName, overflow);
      const part = action === undefined || nowMs >= retryAtMs ? 0 : rewritten.repeatedPart(item, action);
      if (part === 0) return action;
      if ((ignored & part) !== 0) return undefined;
      ignored |= part;
    }
  }

  /** Returns which entries may change now; undefined: all. */
  #changeFilter(
    key: string,
    searched: readonly string[] | undefined,
  ): ((tunnelName: string) => boolean) | undefined {
    const { rejected } = this.#options;
    const names = searched === undefined ? undefined : new Set(searched);
    if (names === undefined && !rejected.hasAny(key)) return undefined;
    return (name) => !rejected.isWaiting(key, name) && (names === undefined || names.has(name));
  }

  /** Completes a reconciliation after which nothing needs to be written now. */
  #settle({ item, sliceName }: SliceItem, hasWritten: boolean, isAnswered: boolean, nowMs: number): Outcome {
    const { planner, slices, registry, rewritten, flapping, transitions } = this.#options;
    const { cache, departures, writeAuthorizer, metrics } = this.#options;
    const { key, name } = item;
    this.#compareReleased(key, slices.releaseMissing(key, sliceName));
    const version = cache.slice(key, sliceName)?.resourceVersion;
    const lostMs = departures.lostDelayMs(item, version, nowMs);
    this.#compareObjects(key, sliceName);
    transitions.settled(key, sliceName, planner.namesIn(key, sliceName));
    const retryAtMs = registry.entry(key)?.pendingWrites.rewritten.retryAtMs(name);
    if (retryAtMs !== undefined && nowMs < retryAtMs && planner.sliceNeedsWrite(key, sliceName))
      return { kind: 'requeue', afterMs: retryAtMs - nowMs, answered: hasWritten };
    rewritten.forget(item);
    if (hasWritten && !flapping.hasFlapping(key, nowMs))
      metrics.syncLagSeconds.observe((nowMs - item.sinceMs) / 1000);
    writeAuthorizer.writeAccepted(key, name);
    if (lostMs > 0) return { kind: 'requeue', afterMs: lostMs, answered: isAnswered };
    return { kind: 'done', answered: isAnswered };
  }

  /** Queues tunnels that slices no longer have to show, which may need an object instead. */
  #compareReleased(key: string, released: readonly string[]): void {
    for (const name of released) this.#options.tunnels.enqueue(key, name);
  }

  /** Queues the objects of tunnels that the slice shows, which they may not need any longer. */
  #compareObjects(key: string, sliceName: string): void {
    const { cache, objects, tunnels } = this.#options;
    if (objects.tunnelCount(key) === 0) return;
    for (const name of cache.slice(key, sliceName)?.entries.keys() ?? [])
      if (objects.has(key, name)) tunnels.enqueue(key, name);
  }

  /** Returns how long a write must wait because admission rewrote it before, in ms. */
  #attemptDelayMs(action: SliceAction, item: QueueItem, nowMs: number): number {
    const { registry, rewritten, limiter } = this.#options;
    const marks = registry.entry(item.key)?.pendingWrites.rewritten;
    if (marks === undefined || rewritten.repeatedPart(item, action) === 0) return 0;
    return limiter.delayMs(marks, item.name, nowMs);
  }

  /** Records a write that was stored with other values than those sent. */
  #recordRewrite(
    { action, stored }: WrittenSlice,
    field: RewrittenField,
    { item, reporter, sliceName }: SliceItem,
  ): void {
    const { registry, rewritten, rewrites, writeAuthorizer } = this.#options;
    rewritten.record(item, action);
    const isFirst = writeAuthorizer.writeRewritten(item.key, item.name, {
      ...field,
      parts: 0,
      objectName: sliceName,
      uid: stored?.metadata.uid,
      tunnel: undefined,
    });
    const context = { reporter, object: sliceName, verb: SLICE_VERBS[action.type], retry: 'in 5m' };
    rewrites.record('reversetunnelslices', field, context);
    const entry = registry.entry(item.key);
    if (isFirst && entry !== undefined) rewrites.announce(entry);
  }
}

/** Returns the first field of a slice that was stored with another value than the one that was sent. */
function rewrittenField({ sent, stored }: WrittenSlice): RewrittenField | undefined {
  if (stored === undefined) return undefined;
  const difference = findDifference(sent, stored, '');
  if (difference !== undefined) return { ...difference, field: difference.field.slice(1) };
  // An optional field that was added to an entry.
  const added =
    'spec' in sent ? findDifference({ tunnels: stored.spec.tunnels }, sent.spec, 'spec') : undefined;
  return added && { field: added.field, desired: added.stored, stored: added.desired };
}
