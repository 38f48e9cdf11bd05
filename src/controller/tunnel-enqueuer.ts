import type { Clock } from '../clock.ts';
import type { ReportChange } from '../core/apply-report.ts';
import type { FlappingTunnels } from '../core/flapping-tunnels.ts';
import type { Grant } from '../core/grant.ts';
import type { Ledger } from '../core/ledger.ts';
import type { Metrics } from '../metrics.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import { RevertBackoff } from './revert-backoff.ts';
import type { SliceEnqueuer } from './slice-enqueuer.ts';
import { sliceItemName, sliceNameOf } from './slice-item.ts';
import type { SlicePlanner } from './slice-planner.ts';
import type { MirroredTunnels } from './mirrored-tunnels.ts';
import type { TransitionRecorder } from './transition-recorder.ts';
import type { TunnelCache } from './tunnel-cache.ts';
import type { Workqueue } from './workqueue.ts';
import type { WriteAuthorizer } from './write-authorizer.ts';
import type { WritePlanner } from './write-planner.ts';

export interface TunnelEnqueuerOptions {
  readonly ledger: Ledger;
  readonly objects: TunnelCache;
  /** The tunnels in either form. */
  readonly mirrored: MirroredTunnels;
  readonly planner: WritePlanner;
  readonly slicePlanner: SlicePlanner;
  readonly slices: SliceEnqueuer;
  readonly flapping: FlappingTunnels;
  readonly registry: ReporterRegistry;
  readonly writeAuthorizer: WriteAuthorizer;
  /** The queue of tunnels and slices. */
  readonly queue: Workqueue;
  /** Undefined: transitions are not recorded. */
  readonly transitions: TransitionRecorder | undefined;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** Names compared per tick of the event loop: about 5 ms, which bounds the delay of the ACKs of other streams. */
const NAMES_PER_TICK = 4096;

/** A slice counts as this many names. */
const NAMES_PER_SLICE = 100;

/** Names of one reporter that are still to be compared. */
interface ScanJob {
  readonly key: string;
  /** Names of tunnels, or of queue items of slices. */
  readonly tunnelNames: Iterator<string, unknown, undefined>;
  readonly sinceMs: number;
}

/**
 * Queues the tunnels and slices that need a write, from both directions: a report changed the desired state, or the watch
 * showed a change of an object. The queue contains only names; what to do is decided when a worker takes them.
 *
 * An external change is reverted only while the reporter has a stream here. Without one the ledger may be outdated, and
 * the client that changed the object (another replica that the reporter moved to, an administrator) may know better; the change
 * is deferred to the next report. What the first list shows is not deferred: as far as this replica can tell it was not
 * changed since the report, and the ACK of the report promised that it will be written.
 */
export class TunnelEnqueuer {
  readonly #options: TunnelEnqueuerOptions;
  readonly #revertBackoff: RevertBackoff;
  /** Scans of large reports that take more than one tick. */
  readonly #scans: ScanJob[] = [];
  readonly #drainWaiters: (() => void)[] = [];
  /** By reporter key, the items whose objects were changed while the reporter had no stream. */
  readonly #deferred = new Map<string, Set<string>>();

  constructor(options: TunnelEnqueuerOptions) {
    this.#options = options;
    this.#revertBackoff = new RevertBackoff(options.clock);
  }

  /**
   * Queues what a report changed.
   *
   * @param receivedMs when the report was received, monotonic ms
   */
  enqueueReport(key: string, { changed, becameComplete }: ReportChange, receivedMs: number): void {
    const { mirrored, writeAuthorizer } = this.#options;
    if (!writeAuthorizer.canWrite(key)) {
      // Once this replica may write, all objects of the reporter are compared.
      writeAuthorizer.writeSkipped(key, changed.length > 0);
      return;
    }
    if (changed.length > 0) this.#enqueueChanged(key, changed, receivedMs);
    // The first full push: existing objects that it does not contain must be deleted.
    if (becameComplete) this.#enqueueChanged(key, mirrored.tunnelNames(key), receivedMs);
    const deferred = this.#deferred.get(key);
    if (deferred === undefined) return;
    this.#deferred.delete(key);
    this.#enqueueChanged(key, deferred, receivedMs);
  }

  /**
   * Handles a change of an object that a list or the watch showed. In the usual case (an own write, an object of another
   * reporter) nothing needs to be written, and the comparison is all that it costs.
   */
  onTunnelObjectChanged(key: string, tunnelName: string): void {
    const { slicePlanner, slices, writeAuthorizer, clock } = this.#options;
    this.#objectChanged(key, tunnelName);
    // A tunnel whose object has appeared may no longer need its entry.
    if (slicePlanner.isUsed(key) && writeAuthorizer.canWrite(key))
      slices.compare(key, tunnelName, clock.monotonicMs());
  }

  /** Handles a change of a slice that a list or the watch showed, like that of an object. */
  onSliceChanged(key: string, sliceName: string): void {
    this.#objectChanged(key, sliceItemName(sliceName));
  }

  /**
   * Compares all tunnels of a reporter that this replica may write, for the first time or again. Objects of a reporter
   * that is being expired are left to `ExpiryController`, which limits the rate.
   */
  resync(key: string, sinceMs: number): void {
    const { ledger, registry, slicePlanner, slices } = this.#options;
    const phase = registry.phase(key);
    if (phase === 'unknown' || phase === 'expired') return;
    this.#deferred.delete(key);
    const usesSlices = slicePlanner.isUsed(key);
    // Another replica may have owned the reporter in the meantime.
    if (usesSlices) slices.restartIfReclaimed(key);
    this.#enqueueChanged(key, ledger.tunnelNames(key), sinceMs);
    this.#enqueueChanged(key, this.#namesNotReported(key), sinceMs);
    if (usesSlices) this.#enqueueChanged(key, slices.itemNames(key), sinceMs);
    // Writes that are no longer needed.
    this.#enqueueChanged(key, registry.entry(key)?.pendingWrites.blockedNames() ?? [], sinceMs);
  }

  /** Queues tunnels whose removal is no longer held. */
  enqueueReleased(key: string, tunnelNames: readonly string[]): void {
    const { registry, writeAuthorizer, clock } = this.#options;
    if (!writeAuthorizer.canWrite(key)) writeAuthorizer.writeSkipped(key);
    // All objects of an expired reporter are deleted anyway, at a limited rate.
    else if (registry.phase(key) !== 'expired') this.#enqueueChanged(key, tunnelNames, clock.monotonicMs());
  }

  /** Handles a change of what a reporter may report: objects are created or deleted without a report. */
  onGrantChanged(key: string, grant: Grant): void {
    const { ledger, mirrored, registry, slicePlanner, writeAuthorizer } = this.#options;
    const { transitions, clock, metrics } = this.#options;
    const nowMs = clock.monotonicMs();
    const before = ledger.deniedCount(key);
    const changed = ledger.setGrant(key, grant);
    transitions?.grantChanged(key, changed);
    metrics.tunnelRejections.inc({ reason: 'policy' }, Math.max(0, ledger.deniedCount(key) - before));
    if (!writeAuthorizer.canWrite(key)) writeAuthorizer.writeSkipped(key);
    // All objects of an expired reporter are deleted anyway, at a limited rate.
    else if (registry.phase(key) !== 'expired') {
      // The grant may also have changed how tunnels are represented.
      this.#enqueueChanged(key, slicePlanner.isUsed(key) ? ledger.tunnelNames(key) : changed, nowMs);
      // Objects of tunnels that the ledger does not contain: it knows whether they are permitted only with the object.
      if (!ledger.isComplete(key) || ledger.heldRemovals(key) !== undefined)
        this.#enqueueChanged(key, mirrored.tunnelNames(key), nowMs);
    }
  }

  /** Handles a new peer of a reporter: tunnels that its former peer was not allowed to report are forgotten. */
  onPeerChanged(key: string): void {
    this.#options.ledger.dropDenied(key);
  }

  /** Handles the removal of a reporter from this replica. */
  onReporterRemoved(key: string): void {
    this.#options.ledger.forget(key);
    this.#deferred.delete(key);
  }

  /** Resolves when all reported changes are in the queue. */
  drained(): Promise<void> {
    if (this.#scans.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#drainWaiters.push(resolve));
  }

  /**
   * Yields what the queue contains for a reporter if all of its objects must be written: the names of tunnels with an
   * object, and of the items of slices.
   */
  *itemNames(key: string): Iterable<string> {
    const { objects, slices } = this.#options;
    yield* objects.tunnelNames(key);
    yield* slices.itemNames(key);
  }

  /** Queues a tunnel with an object, or a slice. Returns false if it needs no write, or is queued already. */
  enqueue(key: string, itemName: string): boolean {
    const { queue, clock, metrics } = this.#options;
    if (queue.isActive(key, itemName) || !this.#needsWrite(key, itemName)) return false;
    metrics.workqueueAdds.inc({ name: 'tunnels' });
    queue.add(key, itemName, clock.monotonicMs());
    return true;
  }

  #needsWrite(key: string, itemName: string): boolean {
    const { planner, slicePlanner } = this.#options;
    const sliceName = sliceNameOf(itemName);
    return sliceName === undefined
      ? planner.needsWrite(key, itemName)
      : slicePlanner.sliceNeedsWrite(key, sliceName);
  }

  /** Queues an item whose object was changed, unless nothing needs to be written. */
  #objectChanged(key: string, itemName: string): void {
    const { mirrored, registry, queue, writeAuthorizer, clock, metrics } = this.#options;
    if (!writeAuthorizer.canWrite(key)) {
      // Recorded although nothing is written now: when writing becomes possible, the reporter object may not show yet
      // which replica changed this one.
      writeAuthorizer.externalChange(key);
      writeAuthorizer.writeSkipped(key, false);
      return;
    }
    const isNeeded = this.#needsWrite(key, itemName);
    // While it is being reconciled, the change is probably the reconciler's own write, seen before its response.
    if (isNeeded || !queue.isRunning(key, itemName)) writeAuthorizer.externalChange(key);
    if (!isNeeded) {
      // The rejected or rewritten write is no longer needed, which must not be noticed only at the next attempt.
      if (registry.entry(key)?.pendingWrites.isBlocked(itemName) === true)
        queue.add(key, itemName, clock.monotonicMs());
      return;
    }
    // An item that is queued or being reconciled is compared again anyway: nothing was reverted.
    const isActive = queue.isActive(key, itemName);
    if (!isActive && mirrored.hasSynced && registry.entry(key)?.stream === undefined) {
      this.#defer(key, itemName);
      return;
    }
    const nowMs = clock.monotonicMs();
    const waitMs = isActive ? 0 : this.#revertBackoff.nextDelayMs(key, itemName);
    metrics.workqueueAdds.inc({ name: 'tunnels' });
    if (waitMs > 0) {
      queue.addAfter({ key, name: itemName, priority: 'normal', sinceMs: nowMs }, waitMs);
      return;
    }
    queue.add(key, itemName, nowMs);
  }

  /** Yields names in either form that are not reported; those that are reported have been compared. */
  *#namesNotReported(key: string): Iterable<string> {
    const { ledger, mirrored } = this.#options;
    for (const name of mirrored.tunnelNames(key)) {
      if (ledger.tunnelState(key, name).state !== 'present') yield name;
    }
  }

  #defer(key: string, itemName: string): void {
    const names = this.#deferred.get(key);
    if (names === undefined) this.#deferred.set(key, new Set([itemName]));
    else names.add(itemName);
  }

  /** Queues those of the names that need a write: the first few thousand at once, the rest on later ticks. */
  #enqueueChanged(key: string, tunnelNames: Iterable<string>, sinceMs: number): void {
    const job = { key, tunnelNames: tunnelNames[Symbol.iterator](), sinceMs };
    if (this.#scanNext(job)) return;
    this.#scans.push(job);
    if (this.#scans.length === 1) this.#scheduleScan();
  }

  /** Compares the next names of a scan. Returns true if it is complete. */
  #scanNext({ key, tunnelNames, sinceMs }: ScanJob): boolean {
    const { queue, planner, slicePlanner, slices, registry, clock, metrics } = this.#options;
    const nowMs = clock.monotonicMs();
    const pendingWrites = registry.entry(key)?.pendingWrites;
    const usesSlices = slicePlanner.isUsed(key);
    let added = 0;
    let isSliceAdded = false;
    let isDone = false;
    for (let scanned = 0; scanned < NAMES_PER_TICK; scanned += 1) {
      const { done, value } = tunnelNames.next();
      if (done === true) {
        isDone = true;
        break;
      }
      if (usesSlices) {
        const sliceName = sliceNameOf(value);
        if (sliceName !== undefined) {
          scanned += NAMES_PER_SLICE - 1;
          if (slices.compareSlice(key, sliceName, sinceMs)) isSliceAdded = true;
          else if (pendingWrites?.isBlocked(value) === true) queue.add(key, value, sinceMs);
          continue;
        }
        if (slices.compare(key, value, sinceMs)) isSliceAdded = true;
      }
      // The response that a running reconciliation waits for may change the result of the comparison.
      if (
        !queue.isActive(key, value) &&
        !planner.needsWrite(key, value) &&
        pendingWrites?.isBlocked(value) !== true
      )
        continue;
      const delayMs = this.#flappingDelayMs(key, value, nowMs);
      if (delayMs > 0) {
        metrics.flappingWritesSuppressed.inc();
        queue.addAfter({ key, name: value, priority: 'normal', sinceMs }, delayMs);
        pendingWrites?.limit(value, queue.pending(key));
        continue;
      }
      queue.add(key, value, sinceMs);
      added += 1;
    }
    metrics.workqueueAdds.inc({ name: 'tunnels' }, added);
    // Here and not only with the next status, which is not evaluated while the API server is unavailable.
    if (added > 0 || isSliceAdded) pendingWrites?.updateBacklog(queue.pending(key), sinceMs);
    return isDone;
  }

  /** Returns how long the write for a tunnel must wait because it flaps, in ms. */
  #flappingDelayMs(key: string, tunnelName: string, nowMs: number): number {
    const { ledger, objects, flapping } = this.#options;
    if (!flapping.isFlapping(key, tunnelName, nowMs)) return 0;
    const [object] = objects.objects(key, tunnelName);
    // A tunnel that the policies deny loses its object immediately.
    if (ledger.isDenied(key, tunnelName, object?.tunnel)) return 0;
    return flapping.writeDelayMs(key, tunnelName, nowMs);
  }

  #scheduleScan(): void {
    const { clock, writeAuthorizer } = this.#options;
    clock.setTimer(0, () => {
      const job = this.#scans.shift();
      if (job === undefined) return;
      if (!writeAuthorizer.canWrite(job.key)) writeAuthorizer.writeSkipped(job.key);
      else if (!this.#scanNext(job)) this.#scans.push(job);
      if (this.#scans.length > 0) this.#scheduleScan();
      else for (const resolve of this.#drainWaiters.splice(0)) resolve();
    });
  }
}
