import type { Clock } from '../clock.ts';
import type { FlappingTunnels } from '../core/flapping-tunnels.ts';
import type { Ledger } from '../core/ledger.ts';
import type { Names } from '../core/names.ts';
import {
  observeSlice,
  sliceManifest,
  slicePatch,
  sliceReporterKey,
  sliceStatus,
  type ObservedSlice,
  type SliceObject,
} from '../core/slice-object.ts';
import type { SliceAction, SliceParts } from '../core/slice-plan.ts';
import { findDifference, type RewrittenField } from '../core/rewrite.ts';
import { closedStatus } from '../core/tunnel-object.ts';
import type { ReporterId, Tunnel } from '../core/tunnel.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { rfc3339 } from '../timestamps.ts';
import type { CreationTimes } from './creation-times.ts';
import { departureScope, LOST_REMOVAL_MS, type Departures } from './departures.ts';
import type { SliceObjectApi } from './object-api.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { RewriteLimiter } from './rewrite-limiter.ts';
import type { RewriteRecorder } from './rewrite-recorder.ts';
import { sameWrite, type RewrittenSlices } from './rewritten-slices.ts';
import type { SliceAssignments } from './slice-assignments.ts';
import type { SliceCache } from './slice-cache.ts';
import type { SliceEnqueuer } from './slice-enqueuer.ts';
import { sliceNameOf } from './slice-item.ts';
import type { SlicePlanner } from './slice-planner.ts';
import type { SliceTransitionRecorder } from './slice-transitions.ts';
import type { TunnelCache } from './tunnel-cache.ts';
import type { TunnelEnqueuer } from './tunnel-enqueuer.ts';
import { RETRY_SOON, type Outcome, type Reconciler } from './workers.ts';
import type { QueueItem } from './workqueue.ts';
import type { WriteAuthorizer } from './write-authorizer.ts';
import type { ReconciledItem, WriteFailures, WriteTarget } from './write-failures.ts';
import { isApiFailure } from './write-outcome.ts';

/** The verb of each action, in metrics and logs. */
const VERBS = {
  create: 'create',
  patch: 'patch',
  patchStatus: 'patchStatus',
  markClosed: 'patchStatus',
  delete: 'delete',
  expire: 'delete',
} as const;

/** Writes per reconciliation: the content, the status, and room for conflicts. A contended slice goes back to the queue. */
const MAX_WRITES = 4;

export interface SliceReconcilerOptions {
  readonly api: SliceObjectApi;
  readonly ledger: Ledger;
  readonly cache: SliceCache;
  readonly objects: TunnelCache;
  readonly assignments: SliceAssignments;
  readonly planner: SlicePlanner;
  readonly slices: SliceEnqueuer;
  readonly tunnels: TunnelEnqueuer;
  readonly registry: ReporterRegistry;
  readonly flapping: FlappingTunnels;
  readonly departures: Departures;
  /** Asked before each write. */
  readonly writeAuthorizer: WriteAuthorizer;
  readonly failures: WriteFailures;
  readonly rewritten: RewrittenSlices;
  readonly transitions: SliceTransitionRecorder;
  /** Shared with the other reconcilers. */
  readonly rewrites: RewriteRecorder;
  /** Shared with the other reconcilers. */
  readonly limiter: RewriteLimiter;
  readonly creationTimes: CreationTimes;
  readonly names: Names;
  /** Lists the slices again: etcd was restored, and the watch may not show it. */
  readonly watches: { relistSlices(): void };
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** A write that was answered. */
interface WrittenSlice {
  readonly action: SliceAction;
  /** What was sent, in the form of the object. */
  readonly sent: object;
  /** Undefined if the slice is gone. */
  readonly stored: SliceObject | undefined;
}

/** The slice that an item names. */
interface SliceItem {
  readonly item: QueueItem;
  readonly reporter: ReporterId;
  readonly sliceName: string;
}

/**
 * Brings slices to the desired state, in the same way as `TunnelReconciler` does with objects: compares, sends the next
 * write, updates the cache with the response, and repeats until nothing differs.
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
    this.#options.writeAuthorizer.writeRejected(key, name, answer);
  }

  async reconcile(item: QueueItem): Promise<Outcome> {
    const { ledger, planner, slices, registry, failures, writeAuthorizer, clock } = this.#options;
    const reporter = ledger.reporter(item.key) ?? registry.entry(item.key)?.reporter;
    const sliceName = sliceNameOf(item.name);
    if (reporter === undefined || sliceName === undefined) return { kind: 'done', answered: false };
    const slice = { item, reporter, sliceName };
    this.#compareReleased(item.key, slices.taken(item.key, sliceName));
    let canRemove = writeAuthorizer.authorize(item.key, 'delete') !== 'deny';
    // Additions and updates are written now, and removals once they are allowed.
    if (!canRemove && planner.needsRemoval(item.key, sliceName)) writeAuthorizer.writeSkipped(item.key);
    let last: WrittenSlice | undefined;
    /** The rejection of a write that added entries: entries that must leave do so nevertheless. */
    let rejection: Outcome | undefined;
    for (let steps = 0; ; steps += 1) {
      const nowMs = clock.monotonicMs();
      const action = this.#nextAction(slice, canRemove, rejection === undefined, nowMs);
      if (action === undefined && rejection !== undefined) return rejection;
      if (action === undefined) return this.#settle(slice, last !== undefined, steps > 0, nowMs);
      if (steps === MAX_WRITES) return RETRY_SOON;
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
      const outcome = await this.#execute(action, slice);
      if (outcome === 'refreshed') continue;
      if (!('kind' in outcome)) {
        last = outcome;
        continue;
      }
      const isMixed = isRemoval && action.tunnels.some(({ name }) => !action.slice.entries.has(name));
      if (outcome.kind !== 'rejected' || !isMixed || rejection !== undefined) return rejection ?? outcome;
      rejection = outcome;
    }
  }

  /** Returns the next write, except those that admission would rewrite again. */
  #nextAction(
    { item, sliceName }: SliceItem,
    canRemove: boolean,
    canAdd: boolean,
    nowMs: number,
  ): SliceAction | undefined {
    const { planner, slices, rewritten, registry } = this.#options;
    const retryAtMs = registry.entry(item.key)?.pendingWrites.rewritten.retryAtMs(item.name) ?? nowMs;
    let ignored: SliceParts = 0;
    for (;;) {
      const { action, overflow } = planner.plan(item.key, sliceName, canRemove, ignored, canAdd);
      if (overflow.length > 0) slices.reassign(item.key, sliceName, overflow);
      const part = action === undefined || nowMs >= retryAtMs ? 0 : rewritten.repeatedPart(item, action);
      if (part === 0) return action;
      if ((ignored & part) !== 0) return undefined;
      ignored |= part;
    }
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

  /** Sends one write. Returns `refreshed` if it failed and the cache was updated with its cause. */
  async #execute(action: SliceAction, slice: SliceItem): Promise<WrittenSlice | Outcome | 'refreshed'> {
    const { failures, departures, transitions, clock, metrics } = this.#options;
    const answered = this.#startFlappingWrites(action, slice.item.key);
    const scope = departureScope(slice.item.key, slice.sliceName);
    let leaving = leavingNames(action);
    const planned = transitions.plan(slice.item.key, slice.sliceName, action);
    departures.begin(scope, leaving);
    try {
      const written = await this.#write(action, slice);
      metrics.apiWrites.inc({ verb: VERBS[action.type], outcome: 'ok' });
      planned.written();
      return written;
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      metrics.apiWrites.inc({ verb: VERBS[action.type], outcome: error.kind });
      const isLost = error.kind === 'unavailable' || error.kind === 'unexpected_response';
      if (isLost) planned.outcomeUnknown();
      if (isLost && 'slice' in action) {
        const { resourceVersion: version } = action.slice;
        const endsMs = clock.monotonicMs() + LOST_REMOVAL_MS;
        const names = [...leaving];
        if (names.length > 0) departures.lost(slice.item, { scope, names, version, endsMs });
        leaving = [];
      }
      departures.end(scope, leaving);
      return await failures.react(error, this.#target(action, slice));
    } finally {
      departures.end(scope, leaving);
      answered();
    }
  }

  async #write(action: SliceAction, slice: SliceItem): Promise<WrittenSlice> {
    const { api, cache, names, assignments, clock } = this.#options;
    const { reporter, item, sliceName } = slice;
    switch (action.type) {
      case 'create': {
        const { tenantID, ordinal } = assignments.packing(item.key).identity(sliceName) ?? NO_IDENTITY;
        const manifest = sliceManifest(names, reporter, tenantID, ordinal, action.tunnels);
        const stored = await api.create(manifest);
        // It would be an orphaned slice, or an external change of the other reporter.
        if (isOther(stored, slice, tenantID)) await this.#deleteMisplaced(stored);
        else cache.applyWrite(stored, manifest);
        this.#recordCreationTimes(action.tunnels, undefined, slice);
        const { name, labels, spec } = manifest;
        return { action, sent: { metadata: { name, labels }, spec }, stored };
      }
      case 'patch': {
        const patch = slicePatch(names, reporter, action.slice.tenantID, action.tunnels);
        const stored = await api.patch(action.slice, patch);
        cache.applyWrite(stored);
        this.#recordCreationTimes(action.tunnels, action.slice, slice);
        const { labels, ...spec } = patch;
        return { action, sent: { metadata: { labels }, spec }, stored };
      }
      case 'patchStatus':
      case 'markClosed': {
        const { entries } = action.slice;
        const now = rfc3339(clock.wallMs());
        const status =
          action.type === 'markClosed'
            ? { ...closedStatus(now), tunnels: null }
            : sliceStatus(action.unknown, entries.size, now);
        const stored = await api.patchStatus(action.slice, status);
        cache.applyWrite(stored);
        const conditions = status.conditions?.map(({ type, status: value, reason }) => ({
          type,
          status: value,
          reason,
        }));
        return { action, sent: { status: { ...status, conditions } }, stored };
      }
      case 'delete':
      case 'expire': {
        const remaining = await api.delete(action.slice);
        // With a finalizer the slice stays, and keeps its name, until the finalizer is removed.
        if (remaining === undefined) cache.applyDelete(action.slice);
        else cache.applyWrite(remaining);
        return { action, sent: {}, stored: remaining };
      }
    }
  }

  async #deleteMisplaced(stored: SliceObject): Promise<void> {
    const { api, names, metrics } = this.#options;
    try {
      await api.delete(observeSlice(names, stored, () => undefined));
      metrics.apiWrites.inc({ verb: 'delete', outcome: 'ok' });
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      metrics.apiWrites.inc({ verb: 'delete', outcome: error.kind });
    }
  }

  /** Measures the time from the creation of tunnels until slices show them. */
  #recordCreationTimes(
    tunnels: readonly Tunnel[],
    before: ObservedSlice | undefined,
    { reporter, item }: SliceItem,
  ): void {
    for (const tunnel of tunnels) {
      if (before?.entries.get(tunnel.name)?.createdAt !== tunnel.createdAt)
        this.#options.creationTimes.record(reporter, tunnel, false, item.sinceMs);
    }
  }

  /** Records that a write is sent for tunnels that flap. The result must be called when it is answered. */
  #startFlappingWrites(action: SliceAction, key: string): () => void {
    const { flapping, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    if (!('tunnels' in action) || !flapping.hasFlapping(key, nowMs)) return () => {};
    const { tunnels } = action;
    const entries = 'slice' in action ? action.slice.entries : undefined;
    const removed = 'removed' in action ? action.removed : [];
    const changed = tunnels.filter(({ name }) => entries?.has(name) !== true).map(({ name }) => name);
    const writes = [...changed, ...removed]
      .filter((name) => flapping.isFlapping(key, name, nowMs))
      .map((name) => flapping.startWrite(key, name, nowMs));
    return () => {
      for (const answered of writes) answered(clock.monotonicMs());
    };
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
    const context = { reporter, object: sliceName, verb: VERBS[action.type], retry: 'in 5m' };
    rewrites.record('reversetunnelslices', field, context);
    const entry = registry.entry(item.key);
    if (isFirst && entry !== undefined) rewrites.announce(entry);
  }

  /** Describes a write, for the case that it fails. */
  #target(action: SliceAction, slice: SliceItem): WriteTarget<SliceObject> {
    const { api, cache, watches } = this.#options;
    const { item, sliceName } = slice;
    return {
      ...describeSlice(slice),
      verb: VERBS[action.type],
      isCreate: action.type === 'create',
      knownVersion: () => cache.slice(item.key, sliceName)?.resourceVersion ?? cache.latestResourceVersion,
      read: () => api.read(sliceName),
      stored: (object) => cache.applyWrite(object),
      gone() {
        if (action.type !== 'create') cache.applyDelete(action.slice);
      },
      collided: (object) => this.#collided(object, slice),
      relist: () => watches.relistSlices(),
    };
  }

  /** Assigns the tunnels of a slice to others if its name is taken by a slice that must not be overwritten. */
  #collided(object: SliceObject, slice: SliceItem): Outcome | undefined {
    const { assignments, slices, log } = this.#options;
    const { item, reporter, sliceName } = slice;
    const tenantID = assignments.packing(item.key).identity(sliceName)?.tenantID;
    if (tenantID === undefined || !isOther(object, slice, tenantID)) return undefined;
    log.error(
      {
        object: sliceName,
        reporter,
        conflictingObject: { reporter: object.spec.reporter, tenantID: object.spec.tenantID },
        hint: 'delete the existing object if it is stale',
      },
      'name of a slice is taken by another reporter or tenant; using another slice',
    );
    slices.block(item.key, sliceName);
    return { kind: 'done', answered: true };
  }
}

const NO_IDENTITY = { tenantID: '', ordinal: 0 };

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

/** Returns true if an object is not a slice of the reporter and the tenant. */
function isOther(object: SliceObject, { item }: SliceItem, tenantID: string): boolean {
  return sliceReporterKey(object) !== item.key || object.spec.tenantID !== tenantID;
}

function leavingNames(action: SliceAction): readonly string[] {
  switch (action.type) {
    case 'patch':
      return action.removed;
    case 'delete':
    case 'expire':
      return [...action.slice.entries.keys()];
    default:
      return [];
  }
}

function describeSlice({ item, reporter, sliceName }: SliceItem): ReconciledItem {
  return { item, reporter, kind: 'ReverseTunnelSlice', fields: { slice: sliceName } };
}
