import type { Clock } from '../clock.ts';
import type { FlappingTunnels } from '../core/flapping-tunnels.ts';
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
import type { SliceAction } from '../core/slice-plan.ts';
import { closedStatus } from '../core/tunnel-object.ts';
import type { ReporterId, Tunnel } from '../core/tunnel.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { rfc3339 } from '../timestamps.ts';
import type { CreationTimes } from './creation-times.ts';
import { departureScope, LOST_REMOVAL_MS, type Departures } from './departures.ts';
import type { SliceObjectApi } from './object-api.ts';
import type { SliceAssignments } from './slice-assignments.ts';
import type { SliceCache } from './slice-cache.ts';
import type { SliceEnqueuer } from './slice-enqueuer.ts';
import type { SliceTransitionRecorder } from './slice-transitions.ts';
import type { Outcome, Rejected } from './workers.ts';
import type { QueueItem } from './workqueue.ts';
import type { ReconciledItem, WriteFailures, WriteTarget } from './write-failures.ts';
import { isApiFailure } from './write-outcome.ts';

/** The verb of each action, in metrics and logs. */
export const SLICE_VERBS = {
  create: 'create',
  patch: 'patch',
  patchStatus: 'patchStatus',
  markClosed: 'patchStatus',
  delete: 'delete',
  expire: 'delete',
} as const;

export interface SliceWriterOptions {
  readonly api: SliceObjectApi;
  readonly cache: SliceCache;
  readonly assignments: SliceAssignments;
  readonly slices: SliceEnqueuer;
  readonly flapping: FlappingTunnels;
  readonly departures: Departures;
  readonly failures: WriteFailures;
  readonly transitions: SliceTransitionRecorder;
  readonly creationTimes: CreationTimes;
  readonly names: Names;
  /** Lists the slices again: etcd was restored, and the watch may not show it. */
  readonly watches: { relistSlices(): void };
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** A write that was answered. */
export interface WrittenSlice {
  readonly action: SliceAction;
  /** What was sent, in the form of the object. */
  readonly sent: object;
  /** Undefined if the slice is gone. */
  readonly stored: SliceObject | undefined;
}

/** The slice that an item names. */
export interface SliceItem {
  readonly item: QueueItem;
  readonly reporter: ReporterId;
  readonly sliceName: string;
}

/** A write that the API server rejected because of its content. */
export interface RejectedSlice {
  readonly rejection: Rejected;
}

/** Sends the writes of slices, and updates the cache with their results. */
export class SliceWriter {
  readonly #options: SliceWriterOptions;

  constructor(options: SliceWriterOptions) {
    this.#options = options;
  }

  /** Sends one write. Returns `refreshed` if it failed and the cache was updated with its cause. */
  async write(
    action: SliceAction,
    slice: SliceItem,
  ): Promise<WrittenSlice | RejectedSlice | Outcome | 'refreshed'> {
    const { failures, departures, transitions, clock, metrics } = this.#options;
    const answered = this.#startFlappingWrites(action, slice.item.key);
    const scope = departureScope(slice.item.key, slice.sliceName);
    let leaving = leavingNames(action);
    const planned = transitions.plan(slice.item.key, slice.sliceName, action);
    departures.begin(scope, leaving);
    try {
      const written = await this.#send(action, slice);
      metrics.sliceWrites.inc({ verb: SLICE_VERBS[action.type], outcome: 'ok' });
      planned.written();
      return written;
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      metrics.sliceWrites.inc({ verb: SLICE_VERBS[action.type], outcome: error.kind });
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
      const outcome = await failures.react(error, this.#target(action, slice));
      const isRejected = error.kind === 'rejected' && outcome !== 'refreshed' && outcome.kind === 'rejected';
      return isRejected ? { rejection: outcome } : outcome;
    } finally {
      departures.end(scope, leaving);
      answered();
    }
  }

  async #send(action: SliceAction, slice: SliceItem): Promise<WrittenSlice> {
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
      metrics.sliceWrites.inc({ verb: 'delete', outcome: 'ok' });
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      metrics.sliceWrites.inc({ verb: 'delete', outcome: error.kind });
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

  /** Describes a write, for the case that it fails. */
  #target(action: SliceAction, slice: SliceItem): WriteTarget<SliceObject> {
    const { api, cache, watches } = this.#options;
    const { item, sliceName } = slice;
    return {
      ...describeSlice(slice),
      verb: SLICE_VERBS[action.type],
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

/** Describes a slice, for messages. */
export function describeSlice({ item, reporter, sliceName }: SliceItem): ReconciledItem {
  return { item, reporter, kind: 'ReverseTunnelSlice', fields: { slice: sliceName } };
}
