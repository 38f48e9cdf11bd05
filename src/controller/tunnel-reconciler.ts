import type { Clock } from '../clock.ts';
import type { FlappingTunnels } from '../core/flapping-tunnels.ts';
import type { Ledger } from '../core/ledger.ts';
import type { Names } from '../core/names.ts';
import type { TunnelAction } from '../core/plan.ts';
import {
  ObjectParts,
  rewriteOfCreate,
  rewriteOfPatch,
  rewriteOfStatus,
  type Rewrite,
} from '../core/rewrite.ts';
import {
  closedStatus,
  Drift,
  patchFor,
  manifestFor,
  observeTunnel,
  reportedStatus,
  tunnelKeyOf,
  unknownStatus,
  type TunnelObject,
} from '../core/tunnel-object.ts';
import type { ReporterId } from '../core/tunnel.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { rfc3339 } from '../timestamps.ts';
import type { CreationTimes } from './creation-times.ts';
import { LOST_REMOVAL_MS, type Departures } from './departures.ts';
import type { TunnelObjectApi } from './object-api.ts';
import type { RejectedEntries } from './rejected-entries.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { RewriteLimiter } from './rewrite-limiter.ts';
import type { RewriteRecorder } from './rewrite-recorder.ts';
import { OWN_OBJECT } from './rewritten-objects.ts';
import type { SliceEnqueuer } from './slice-enqueuer.ts';
import type { SlicePlanner } from './slice-planner.ts';
import type { TunnelCache } from './tunnel-cache.ts';
import type { TransitionRecorder } from './transition-recorder.ts';
import { RETRY_SOON, type Outcome, type Reconciler } from './workers.ts';
import type { QueueItem, Workqueue } from './workqueue.ts';
import type { WriteAuthorizer } from './write-authorizer.ts';
import type { ReconciledItem, WriteFailures, WriteTarget } from './write-failures.ts';
import { isApiFailure } from './write-outcome.ts';
import type { WritePlanner } from './write-planner.ts';

/** The verb of each action, in metrics and logs. */
const VERBS = {
  create: 'create',
  patch: 'patch',
  patchStatus: 'patchStatus',
  markUnknown: 'patchStatus',
  markClosed: 'patchStatus',
  delete: 'delete',
  expire: 'delete',
} as const;

/**
 * Writes per reconciliation. A change needs two at most (another identity: delete, create); the others leave room for
 * conflicts. A contended object goes back to the queue.
 */
const MAX_WRITES = 4;

/** Delay of a write that waits for a date of the API server; responses arrive every few seconds. */
const UNDECIDED_DELAY_MS = 500;

/** Writes that make an object absent. */
const DELETES: ReadonlySet<TunnelAction['type']> = new Set(['delete', 'expire']);

const STATUSES = { patchStatus: reportedStatus, markUnknown: unknownStatus, markClosed: closedStatus };

export interface TunnelReconcilerOptions {
  readonly api: TunnelObjectApi;
  readonly ledger: Ledger;
  readonly cache: TunnelCache;
  readonly planner: WritePlanner;
  readonly registry: ReporterRegistry;
  readonly flapping: FlappingTunnels;
  readonly creationTimes: CreationTimes;
  /** Asked before each write. */
  readonly writeAuthorizer: WriteAuthorizer;
  readonly names: Names;
  /** The queue of tunnels and slices. */
  readonly queue: Workqueue;
  readonly slicePlanner: SlicePlanner;
  readonly slices: SliceEnqueuer;
  readonly departures: Departures;
  readonly rejected: RejectedEntries;
  readonly failures: WriteFailures;
  /** Shared with the reconciler of reporters. */
  readonly rewrites: RewriteRecorder;
  /** Shared with the reconciler of reporters. */
  readonly limiter: RewriteLimiter;
  /** Undefined: transitions are not recorded. */
  readonly transitions: TransitionRecorder | undefined;
  /** Lists the objects again: etcd was restored, and the watch may not show it. */
  readonly watches: { relistTunnels(): void };
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

/**
 * Brings the objects of one tunnel to the desired state: compares them with the ledger, sends the next write, updates
 * the cache with the response, and repeats until nothing differs. It is level-triggered: an item that failed, was
 * skipped or changed several times is handled by the same comparison.
 */
export class TunnelReconciler implements Reconciler {
  readonly #options: TunnelReconcilerOptions;

  constructor(options: TunnelReconcilerOptions) {
    this.#options = options;
  }

  describe({ name }: QueueItem): object {
    return { tunnel: name };
  }

  onRejected({ key, name }: QueueItem, answer: string): void {
    this.#options.writeAuthorizer.writeRejected(key, name, answer);
  }

  async reconcile(item: QueueItem): Promise<Outcome> {
    const { ledger, planner, registry, writeAuthorizer, flapping, clock, metrics } = this.#options;
    const { cache, departures } = this.#options;
    const entry = registry.entry(item.key);
    const reporter = ledger.reporter(item.key) ?? entry?.reporter;
    if (reporter === undefined) return { kind: 'done', answered: false };
    entry?.pendingWrites.endLimit(item.name);
    let written = 0;
    // Only the first write of an attempt waits: an object that was deleted is created again without a delay.
    let isAttempt = false;
    /** Parts whose correction waits for its turn, which delays no other write. */
    let waitingParts: ObjectParts = 0;
    let waitMs = 0;
    for (let steps = 0; ; steps += 1) {
      const nowMs = clock.monotonicMs();
      const action = planner.nextWrite(item.key, item.name, nowMs, waitingParts);
      if (action === undefined) {
        const rejected = this.#options.rejected.reconcile(item);
        if (rejected !== undefined) return rejected;
        if (waitMs === 0) waitMs = this.#retryDelayMs(item, nowMs);
        if (waitMs > 0) return { kind: 'requeue', afterMs: waitMs, answered: written > 0 };
        if (written > 0 && !flapping.isFlapping(item.key, item.name, nowMs))
          metrics.syncLagSeconds.observe((nowMs - item.sinceMs) / 1000);
        writeAuthorizer.writeAccepted(item.key, item.name);
        this.#options.transitions?.settled(item.key, item.name);
        const [object] = cache.objects(item.key, item.name);
        const lostMs = departures.lostDelayMs(item, object?.resourceVersion, nowMs);
        this.#compareEntry(item, nowMs);
        if (lostMs > 0) return { kind: 'requeue', afterMs: lostMs, answered: steps > 0 };
        return { kind: 'done', answered: steps > 0 };
      }
      if (steps === MAX_WRITES) return RETRY_SOON;
      const limitedMs = this.#flappingDelayMs(action, item, nowMs);
      if (limitedMs > 0) return { kind: 'requeue', afterMs: limitedMs, answered: written > 0 };
      const permission = writeAuthorizer.authorize(item.key, action.type);
      if (permission === 'deny') {
        writeAuthorizer.writeSkipped(item.key);
        this.#options.transitions?.skipped(item.key, item.name);
        return { kind: 'done', answered: written > 0 };
      }
      if (permission === 'verify') {
        const failure = await writeAuthorizer.liveRead(item.key);
        if (failure !== undefined)
          return this.#options.failures.reactToRead(failure, reconciledItem(reporter, item));
        // The read, or an event during it, may have made the write unnecessary, or ended the ownership.
        continue;
      }
      const isUndecided =
        (action.type === 'create' || action.type === 'patch') &&
        this.#options.creationTimes.isUndecided(action.tunnel, item.sinceMs);
      if (isUndecided) return { kind: 'requeue', afterMs: UNDECIDED_DELAY_MS, answered: written > 0 };
      const delayMs = isAttempt ? 0 : this.#attemptDelayMs(action, item, waitingParts, nowMs);
      if (delayMs > 0) {
        waitMs = delayMs;
        const parts = correctedParts(action);
        if (parts === 0) return { kind: 'requeue', afterMs: waitMs, answered: written > 0 };
        waitingParts |= parts;
        continue;
      }
      isAttempt = true;
      const outcome = await this.#execute(action, reporter, item);
      if (outcome === 'written') written += 1;
      else if (outcome !== 'refreshed') return outcome;
    }
  }

  /** Returns how long a write must wait because its tunnel flaps, in ms. */
  #flappingDelayMs(action: TunnelAction, { key, name }: QueueItem, nowMs: number): number {
    const { flapping, ledger, registry, queue } = this.#options;
    const { type } = action;
    // The objects of a disconnected reporter have a limit of their own.
    if (type === 'expire' || type === 'markUnknown' || type === 'markClosed') return 0;
    // A tunnel that the policies deny loses its object immediately.
    if (ledger.isDenied(key, name, 'object' in action ? action.object.tunnel : undefined)) return 0;
    const delayMs = flapping.writeDelayMs(key, name, nowMs);
    if (delayMs > 0) registry.entry(key)?.pendingWrites.limit(name, queue.pending(key));
    return delayMs;
  }

  /** Returns when a rewritten object may be corrected again, as a delay in ms; 0 if nothing needs a correction. */
  #retryDelayMs({ key, name }: QueueItem, nowMs: number): number {
    const { registry, planner } = this.#options;
    const retryAtMs = registry.entry(key)?.pendingWrites.rewritten.retryAtMs(name);
    const waits = retryAtMs !== undefined && nowMs < retryAtMs && planner.needsWrite(key, name);
    return waits ? retryAtMs - nowMs : 0;
  }

  /** Sends one write. Returns `written`, or `refreshed` if it failed and the cache was updated with its cause. */
  async #execute(
    action: TunnelAction,
    reporter: ReporterId,
    item: QueueItem,
  ): Promise<Outcome | 'written' | 'refreshed'> {
    const { flapping, slicePlanner, clock, metrics, transitions } = this.#options;
    // A tunnel that a slice shows does not come up with its object.
    const isMoved = action.type === 'create' && slicePlanner.covers(item.key, action.tunnel);
    const planned = isMoved ? undefined : transitions?.plan(item.key, item.name, action);
    const answered = flapping.startWrite(item.key, item.name, clock.monotonicMs());
    try {
      const objectName = await this.#write(action, reporter, item);
      metrics.apiWrites.inc({ verb: VERBS[action.type], outcome: 'ok' });
      if (planned !== undefined && objectName !== undefined) transitions?.written(planned, objectName);
      return 'written';
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      metrics.apiWrites.inc({ verb: VERBS[action.type], outcome: error.kind });
      const isUnknown = error.kind === 'unavailable' || error.kind === 'unexpected_response';
      if (planned !== undefined && isUnknown) transitions?.outcomeUnknown(planned);
      return await this.#options.failures.react(error, this.#target(action, reporter, item));
    } finally {
      answered(clock.monotonicMs());
    }
  }

  /** Compares the entry of a tunnel, which is no longer needed once its object is written. */
  #compareEntry({ key, name }: QueueItem, nowMs: number): void {
    const { slicePlanner, slices } = this.#options;
    if (slicePlanner.hasEntry(key, name)) slices.compare(key, name, nowMs);
  }

  /**
   * Sends one write.
   *
   * @returns the name of the object that now shows the desired state; undefined if admission rewrote what was written, or
   *   if a finalizer keeps an object whose status must still be set to Closed
   */
  async #write(action: TunnelAction, reporter: ReporterId, item: QueueItem): Promise<string | undefined> {
    const { api, cache, names, creationTimes, departures, clock } = this.#options;
    switch (action.type) {
      case 'create': {
        const { tunnel } = action;
        const omit = creationTimes.mustOmit(tunnel);
        const manifest = manifestFor(names, reporter, tunnel, omit);
        const stored = await api.create(manifest);
        const rewrite = rewriteOfCreate(manifest, stored);
        const isMisplaced = rewrite !== undefined && (rewrite.parts & ObjectParts.key) !== 0;
        if (isMisplaced) await this.#deleteMisplaced(stored);
        else cache.applyWrite(stored, manifest);
        creationTimes.record(reporter, tunnel, omit, item.sinceMs);
        this.#recordRewrite(rewrite, ObjectParts.identity, action, reporter, item, stored);
        return isMisplaced ? undefined : stored.metadata.name;
      }
      case 'patch': {
        const { object, tunnel } = action;
        const omit = creationTimes.mustOmit(tunnel);
        const patch = patchFor(names, reporter, tunnel, omit);
        const stored = await api.patch(object, patch);
        cache.applyWrite(stored);
        if (object.tunnel.createdAt !== tunnel.createdAt)
          creationTimes.record(reporter, tunnel, omit, item.sinceMs);
        const rewrite = rewriteOfPatch(patch, stored);
        this.#recordRewrite(rewrite, correctedParts(action), action, reporter, item, stored);
        return rewrite === undefined || (rewrite.parts & ObjectParts.createdAt) === 0
          ? stored.metadata.name
          : undefined;
      }
      case 'patchStatus':
      case 'markUnknown':
      case 'markClosed': {
        const status = STATUSES[action.type](rfc3339(clock.wallMs()));
        const stored = await api.patchStatus(action.object, status);
        cache.applyWrite(stored);
        const parts = action.type === 'patchStatus' ? ObjectParts.reported : ObjectParts.notReported;
        const rewrite = rewriteOfStatus(status, stored, parts);
        this.#recordRewrite(rewrite, correctedParts(action), action, reporter, item, stored);
        return rewrite === undefined ? stored.metadata.name : undefined;
      }
      case 'delete':
      case 'expire': {
        // While the request is in flight, no slice relies on the object.
        departures.begin(item.key, [item.name]);
        let isLost = false;
        let remaining: TunnelObject | undefined;
        try {
          remaining = await api.delete(action.object);
          // With a finalizer the object stays, and keeps its name, until the finalizer is removed.
          if (remaining === undefined) cache.applyDelete(item.key, item.name, action.object);
          else cache.applyWrite(remaining);
        } catch (error) {
          isLost =
            isApiFailure(error) && (error.kind === 'unavailable' || error.kind === 'unexpected_response');
          throw error;
        } finally {
          if (isLost) this.#removalLost(item, action.object.resourceVersion);
          else departures.end(item.key, [item.name]);
        }
        return remaining === undefined || action.type === 'expire' ? action.object.name : undefined;
      }
    }
  }

  /** Records a delete without a response, which may still take effect. */
  #removalLost(item: QueueItem, version: string): void {
    const { departures, clock } = this.#options;
    const endsMs = clock.monotonicMs() + LOST_REMOVAL_MS;
    departures.lost(item, { scope: item.key, names: [item.name], version, endsMs });
  }

  /**
   * Deletes an object that was stored as that of another reporter or tunnel. It would be an orphaned object, or an
   * external change of the other reporter, and its owner would delete it.
   */
  async #deleteMisplaced(stored: TunnelObject): Promise<void> {
    const { api, names, metrics } = this.#options;
    try {
      await api.delete(observeTunnel(names, stored));
      metrics.apiWrites.inc({ verb: 'delete', outcome: 'ok' });
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      metrics.apiWrites.inc({ verb: 'delete', outcome: error.kind });
    }
  }

  /**
   * Returns how long a write must wait because it corrects what admission probably rewrites again, in ms. Writes that a
   * report caused are not delayed.
   */
  #attemptDelayMs(
    action: TunnelAction,
    { key, name }: QueueItem,
    waitingParts: ObjectParts,
    nowMs: number,
  ): number {
    const { registry, ledger } = this.#options;
    const rewritten = registry.entry(key)?.pendingWrites.rewritten;
    if (rewritten === undefined) return 0;
    const isRemoved = ledger.tunnelState(key, name).state !== 'present';
    const isReplaced = action.type === 'delete' && !isRemoved;
    const retryAtMs = rewritten.retryAtMs(name) ?? Number.POSITIVE_INFINITY;
    const isRepeated = nowMs >= retryAtMs && (isReplaced || !DELETES.has(action.type));
    const parts = isReplaced ? ObjectParts.identity : correctedParts(action);
    // A report changed something that the same patch writes.
    if ((parts & waitingParts) !== 0) return 0;
    if (!isRepeated && !this.#options.limiter.limits(parts)) return 0;
    return this.#options.limiter.delayMs(rewritten, name, nowMs);
  }

  /**
   * Records whether a write was stored as sent.
   *
   * @param corrects the parts whose corrections are limited if this one was rewritten
   */
  #recordRewrite(
    rewrite: Rewrite | undefined,
    corrects: ObjectParts,
    action: TunnelAction,
    reporter: ReporterId,
    item: QueueItem,
    stored: TunnelObject,
  ): void {
    if (rewrite === undefined) {
      if (corrects !== 0 && this.#options.limiter.stored(corrects)) this.#resumeWaiting();
      return;
    }
    const { registry, writeAuthorizer, ledger, rewrites } = this.#options;
    const { parts } = rewrite;
    const { name: objectName, uid } = stored.metadata;
    this.#options.limiter.rewritten(parts);
    const isFirst = writeAuthorizer.writeRewritten(item.key, item.name, {
      ...rewrite,
      objectName,
      uid: (parts & ObjectParts.key) === 0 ? uid : undefined,
      tunnel: 'tunnel' in action ? action.tunnel : ledger.tunnel(item.key, item.name),
    });
    const verb = VERBS[action.type];
    rewrites.record('reversetunnels', rewrite, { reporter, object: objectName, verb, retry: 'in 5m' });
    const entry = registry.entry(item.key);
    if (isFirst && entry !== undefined) rewrites.announce(entry);
  }

  /** Queues the corrections that wait because earlier ones were rewritten. */
  #resumeWaiting(): void {
    const { registry, queue, clock } = this.#options;
    for (const { key, pendingWrites } of registry.entries())
      for (const name of pendingWrites.rewritten.takeSlots())
        if (name !== OWN_OBJECT) queue.add(key, name, clock.monotonicMs());
  }

  /** Describes a write, for the case that it fails. */
  #target(action: TunnelAction, reporter: ReporterId, item: QueueItem): WriteTarget<TunnelObject> {
    const { api, cache, names, transitions, watches } = this.#options;
    const { key, name } = item;
    const objectName =
      action.type === 'create' ? names.tunnelObjectName(reporter, action.tunnel) : action.object.name;
    return {
      ...reconciledItem(reporter, item),
      verb: VERBS[action.type],
      isCreate: action.type === 'create',
      knownVersion() {
        const known = cache.objects(key, name).find((object) => object.name === objectName);
        return known?.resourceVersion ?? cache.latestResourceVersion;
      },
      read: () => api.read(objectName),
      stored: (object) => cache.applyWrite(object),
      gone() {
        if (action.type === 'create') return;
        cache.applyDelete(key, name, action.object);
        transitions?.objectLost(key, name);
      },
      collided: (object) => this.#collided(object, item),
      relist: () => watches.relistTunnels(),
    };
  }

  /**
   * Rejects a tunnel whose object name is taken by the object of another tunnel: 65 bits of two hashes are equal, or the
   * object was created manually. It is not overwritten.
   */
  #collided(object: TunnelObject, item: QueueItem): Outcome | undefined {
    const { log, metrics } = this.#options;
    const { key, tunnelName, reporter } = tunnelKeyOf(object);
    if (key === item.key && tunnelName === item.name) return undefined;
    const { name: objectName } = object.metadata;
    metrics.tunnelRejections.inc({ reason: 'name_collision' });
    log.error(
      {
        object: objectName,
        tunnel: item.name,
        conflictingObject: { reporter, tunnel: tunnelName },
        hint: 'delete the existing object if it is stale',
      },
      'tunnel rejected: its object name is taken by another tunnel',
    );
    return { kind: 'rejected', answer: `object name ${objectName} is taken by another tunnel` };
  }
}

function reconciledItem(reporter: ReporterId, item: QueueItem): ReconciledItem {
  return { item, reporter, kind: 'ReverseTunnel', fields: { tunnel: item.name } };
}

/** Returns the parts of an existing object that a write corrects, as opposed to those that a report changed. */
function correctedParts(action: TunnelAction): ObjectParts {
  switch (action.type) {
    case 'patch':
      return action.object.drift & Drift.labels ? ObjectParts.labels : 0;
    case 'patchStatus':
      return ObjectParts.reported;
    case 'markUnknown':
    case 'markClosed':
      return ObjectParts.notReported;
    default:
      return 0;
  }
}
