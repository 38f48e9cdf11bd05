import type { Clock } from '../clock.ts';
import type { FlappingTunnels } from '../core/flapping-tunnels.ts';
import type { Ledger } from '../core/ledger.ts';
import { isEntryUnknown, type ObservedSlice } from '../core/slice-object.ts';
import { sameTunnel } from '../core/tunnel.ts';
import type { Metrics } from '../metrics.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { SliceAssignments } from './slice-assignments.ts';
import type { SliceCache } from './slice-cache.ts';
import { sliceItemName } from './slice-item.ts';
import { entryOf, type SlicePlanner } from './slice-planner.ts';
import type { Workqueue } from './workqueue.ts';
import type { WriteAuthorizer } from './write-authorizer.ts';

export interface SliceEnqueuerOptions {
  readonly ledger: Ledger;
  readonly slices: SliceCache;
  readonly assignments: SliceAssignments;
  readonly planner: SlicePlanner;
  readonly flapping: FlappingTunnels;
  readonly registry: ReporterRegistry;
  readonly writeAuthorizer: WriteAuthorizer;
  /** The queue of tunnels and slices. */
  readonly queue: Workqueue;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** Changes of a slice are collected for this long, so that a burst of changes causes one write. */
export const BATCH_MS = 200;

/**
 * Assigns tunnels to slices, and queues the slices that need a write. A slice that new tunnels have filled is queued
 * immediately, because nothing can be added to it; others wait for more changes.
 */
export class SliceEnqueuer {
  readonly #options: SliceEnqueuerOptions;
  /** Slices that wait for more changes, by reporter key. */
  readonly #batches = new Map<string, Set<string>>();
  /** The claim in which the assignments of a reporter were made, by key. */
  readonly #claims = new Map<string, string>();
  /** That of the cache when all tunnels were last compared. */
  #installations = 0;

  constructor(options: SliceEnqueuerOptions) {
    this.#options = options;
  }

  /** Compares a tunnel with the slices, and queues the slices that must change for it. Returns true if there are any. */
  compare(key: string, tunnelName: string, sinceMs: number): boolean {
    const { slices, assignments, planner, writeAuthorizer } = this.#options;
    const packing = assignments.packing(key);
    const state = planner.desired(key, tunnelName);
    const desired = entryOf(state);
    let isQueued = false;
    if (desired !== undefined) {
      const sliceName = packing.assign(tunnelName, desired.tenantID);
      const slice = slices.slice(key, sliceName);
      const entry = slice?.entries.get(tunnelName);
      const isUnknown = slice !== undefined && isEntryUnknown(slice, tunnelName);
      if (entry === undefined || isUnknown || !sameTunnel(entry, desired))
        isQueued = this.#enqueueFor(key, sliceName, tunnelName, sinceMs, false);
    } else if (!planner.hasEntry(key, tunnelName)) {
      packing.release(tunnelName);
    } else if (planner.mayLeave(key, tunnelName, state)) {
      if (writeAuthorizer.authorize(key, 'delete') === 'deny') writeAuthorizer.writeSkipped(key);
      else packing.release(tunnelName);
    }
    for (const sliceName of packing.takeChanged()) {
      const isFilled = desired !== undefined && packing.isFull(sliceName);
      isQueued = this.#enqueueFor(key, sliceName, tunnelName, sinceMs, isFilled);
    }
    return isQueued;
  }

  /** Queues a slice if it needs a write. Returns true if it does. */
  compareSlice(key: string, sliceName: string, sinceMs: number): boolean {
    if (!this.#options.planner.sliceNeedsWrite(key, sliceName)) return false;
    this.#enqueue(key, sliceName, sinceMs);
    return true;
  }

  /**
   * Handles a complete list. If it shows that the kind was installed, or is missing, all tunnels are compared again, those
   * included whose writes were rejected in the meantime.
   */
  onListed(): void {
    const { slices, registry, writeAuthorizer } = this.#options;
    if (this.#installations === slices.installations) return;
    this.#installations = slices.installations;
    for (const { key } of registry.entries()) writeAuthorizer.compareAgain(key);
  }

  /** Handles a slice that the cache contains in another state, for whatever reason; undefined if it does not exist. */
  onSliceObserved(key: string, sliceName: string, after: ObservedSlice | undefined): void {
    const { assignments, clock } = this.#options;
    const packing = assignments.known(key);
    if (packing === undefined) return;
    if (after === undefined) packing.observeDeleted(sliceName);
    else this.#compareAll(key, packing.observe(after));
    // The slice itself is compared by the reconciliation that wrote it, or by `TunnelEnqueuer.onSliceChanged`.
    for (const changed of packing.takeChanged())
      if (changed !== sliceName) this.#enqueue(key, changed, clock.monotonicMs());
  }

  /** Assigns the tunnels of a slice to others, because its name is taken by an object that must not be overwritten. */
  block(key: string, sliceName: string): void {
    this.#compareAll(key, this.#options.assignments.packing(key).block(sliceName));
  }

  /** Assigns tunnels to other slices, because they have no place in one. */
  reassign(key: string, sliceName: string, tunnelNames: readonly string[]): void {
    const { assignments, clock } = this.#options;
    const packing = assignments.packing(key);
    packing.reassign(sliceName, tunnelNames);
    for (const changed of packing.takeChanged()) this.#enqueue(key, changed, clock.monotonicMs());
  }

  /** Assigns rejected tunnels to other slices; see `SlicePacking.moveElsewhere`. */
  moveElsewhere(key: string, sliceName: string, tunnelNames: readonly string[], canOpen: boolean): string[] {
    const { assignments, clock } = this.#options;
    const packing = assignments.packing(key);
    const moved = packing.moveElsewhere(sliceName, tunnelNames, canOpen);
    for (const changed of packing.takeChanged()) this.#enqueue(key, changed, clock.monotonicMs());
    return moved;
  }

  /** Merges two half-empty slices of a reporter. Returns false if it has none. */
  mergeNext(key: string): boolean {
    const { assignments, clock } = this.#options;
    const packing = assignments.packing(key);
    const merge = packing.planMerge();
    if (merge === undefined) return false;
    packing.merge(merge);
    for (const changed of packing.takeChanged()) this.#enqueue(key, changed, clock.monotonicMs());
    return true;
  }

  /**
   * Records that a slice is reconciled: changes from now on belong to the next batch.
   *
   * @returns as `releaseMissing`
   */
  taken(key: string, sliceName: string): string[] {
    const { registry } = this.#options;
    registry.entry(key)?.pendingWrites.endLimit(sliceItemName(sliceName));
    const batch = this.#batches.get(key);
    if (batch?.delete(sliceName) === true && batch.size === 0) this.#batches.delete(key);
    return this.releaseMissing(key, sliceName);
  }

  /**
   * Frees the places of tunnels that a slice, which is being reconciled, neither contains nor should contain.
   *
   * @returns their names; they may need an object instead
   */
  releaseMissing(key: string, sliceName: string): string[] {
    const { assignments, planner, clock } = this.#options;
    const packing = assignments.packing(key);
    const released = [...packing.pending(sliceName)].filter(
      (name) => entryOf(planner.desired(key, name)) === undefined,
    );
    for (const name of released) packing.release(name);
    packing.writing(sliceName);
    for (const changed of packing.takeChanged())
      if (changed !== sliceName) this.#enqueue(key, changed, clock.monotonicMs());
    return released;
  }

  /** Ends the wait for more changes. */
  flush(): void {
    const { queue, clock } = this.#options;
    for (const [key, batch] of this.#batches)
      for (const sliceName of batch) queue.add(key, sliceItemName(sliceName), clock.monotonicMs());
    this.#batches.clear();
  }

  /** Yields the names of the queue items of a reporter's slices. */
  *itemNames(key: string): Iterable<string> {
    for (const { name } of this.#options.slices.slices(key)) yield sliceItemName(name);
  }

  /** Makes the assignments of a reporter start from its slices as observed, if this replica has claimed it again. */
  restartIfReclaimed(key: string): void {
    const { assignments, registry } = this.#options;
    const ownership = registry.entry(key)?.ownership;
    // Epochs start again with a new reporter object.
    const claim = `${ownership?.observed?.uid} ${ownership?.owner?.epoch}`;
    if (this.#claims.get(key) === claim) return;
    this.#claims.set(key, claim);
    assignments.forget(key);
  }

  /** Handles the removal of a reporter from this replica. */
  onReporterRemoved(key: string): void {
    this.#batches.delete(key);
    this.#claims.delete(key);
    this.#options.assignments.forget(key);
  }

  #compareAll(key: string, tunnelNames: readonly string[]): void {
    const { clock } = this.#options;
    for (const name of tunnelNames) this.compare(key, name, clock.monotonicMs());
  }

  /** Queues a slice because a tunnel has changed, with a delay if the tunnel flaps. */
  #enqueueFor(key: string, sliceName: string, tunnelName: string, sinceMs: number, isFilled: boolean): true {
    const { ledger, slices, flapping, registry, queue, clock, metrics } = this.#options;
    const nowMs = clock.monotonicMs();
    const entry = slices.slice(key, sliceName)?.entries.get(tunnelName);
    // A tunnel that the policies deny loses its entry immediately.
    const limitedMs =
      flapping.isFlapping(key, tunnelName, nowMs) && !ledger.isDenied(key, tunnelName, entry)
        ? flapping.writeDelayMs(key, tunnelName, nowMs)
        : 0;
    if (limitedMs === 0) {
      this.#enqueue(key, sliceName, sinceMs, isFilled);
      return true;
    }
    const name = sliceItemName(sliceName);
    metrics.flappingWritesSuppressed.inc();
    queue.addAfter({ key, name, priority: 'normal', sinceMs }, Math.max(BATCH_MS, limitedMs));
    registry.entry(key)?.pendingWrites.limit(name, queue.pending(key));
    return true;
  }

  #enqueue(key: string, sliceName: string, sinceMs: number, isFilled = false): void {
    const { queue, metrics } = this.#options;
    const name = sliceItemName(sliceName);
    metrics.workqueueAdds.inc({ name: 'tunnels' });
    if (isFilled) {
      queue.add(key, name, sinceMs);
      return;
    }
    queue.collect({ key, name, priority: 'normal', sinceMs }, BATCH_MS);
    const batch = this.#batches.get(key);
    if (batch === undefined) this.#batches.set(key, new Set([sliceName]));
    else batch.add(sliceName);
  }
}
