import type { Clock } from '../clock.ts';
import type { ReportChange } from '../core/apply-report.ts';
import type { FlappingTunnels } from '../core/flapping-tunnels.ts';
import type { Grant } from '../core/grant.ts';
import type { Ledger } from '../core/ledger.ts';
import type { Metrics } from '../metrics.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import { RevertBackoff } from './revert-backoff.ts';
import type { TransitionRecorder } from './transition-recorder.ts';
import type { TunnelCache } from './tunnel-cache.ts';
import type { Workqueue } from './workqueue.ts';
import type { WriteAuthorizer } from './write-authorizer.ts';
import type { WritePlanner } from './write-planner.ts';

export interface TunnelEnqueuerOptions {
  readonly ledger: Ledger;
  readonly objects: TunnelCache;
  readonly planner: WritePlanner;
  readonly flapping: FlappingTunnels;
  readonly registry: ReporterRegistry;
  readonly writeAuthorizer: WriteAuthorizer;
  /** The queue of tunnels. */
  readonly queue: Workqueue;
  /** Undefined: transitions are not recorded. */
  readonly transitions: TransitionRecorder | undefined;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** Names compared per tick of the event loop: about 5 ms, which bounds the delay of the ACKs of other streams. */
const NAMES_PER_TICK = 4096;

/** Names of one reporter that are still to be compared. */
interface ScanJob {
  readonly key: string;
  readonly tunnelNames: Iterator<string, unknown, undefined>;
  readonly sinceMs: number;
}

/**
 * Queues the tunnels that need a write, from both directions: a report changed the desired state, or the watch showed a
 * change of an object. The queue contains only names; what to do is decided when a worker takes them.
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
  /** By reporter key, the tunnels whose objects were changed while the reporter had no stream. */
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
    const { objects, writeAuthorizer } = this.#options;
    if (!writeAuthorizer.canWrite(key)) {
      // Once this replica may write, all objects of the reporter are compared.
      writeAuthorizer.writeSkipped(key, changed.length > 0);
      return;
    }
    this.#enqueueChanged(key, changed, receivedMs);
    // The first full push: existing objects that it does not contain must be deleted.
    if (becameComplete) this.#enqueueChanged(key, objects.tunnelNames(key), receivedMs);
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
    const { objects, planner, registry, queue, writeAuthorizer, clock, metrics } = this.#options;
    if (!writeAuthorizer.canWrite(key)) {
      // Recorded although nothing is written now: when writing becomes possible, the reporter object may not show yet
      // which replica changed this one.
      writeAuthorizer.externalChange(key);
      writeAuthorizer.writeSkipped(key, false);
      return;
    }
    const isNeeded = planner.needsWrite(key, tunnelName);
    // While it is being reconciled, the change is probably the reconciler's own write, seen before its response.
    if (isNeeded || !queue.isRunning(key, tunnelName)) writeAuthorizer.externalChange(key);
    if (!isNeeded) {
      // The rejected or rewritten write is no longer needed, which must not be noticed only at the next attempt.
      if (registry.entry(key)?.pendingWrites.isBlocked(tunnelName) === true)
        queue.add(key, tunnelName, clock.monotonicMs());
      return;
    }
    // A tunnel that is queued or being reconciled is compared again anyway: nothing was reverted.
    const isActive = queue.isActive(key, tunnelName);
    if (!isActive && objects.hasSynced && registry.entry(key)?.stream === undefined) {
      this.#defer(key, tunnelName);
      return;
    }
    const nowMs = clock.monotonicMs();
    const waitMs = isActive ? 0 : this.#revertBackoff.nextDelayMs(key, tunnelName);
    metrics.workqueueAdds.inc({ name: 'tunnels' });
    if (waitMs > 0) {
      queue.addAfter({ key, name: tunnelName, priority: 'normal', sinceMs: nowMs }, waitMs);
      return;
    }
    queue.add(key, tunnelName, nowMs);
  }

  /**
   * Compares all tunnels of a reporter that this replica may write, for the first time or again. Objects of a reporter
   * that is being expired are left to `ExpiryController`, which limits the rate.
   */
  resync(key: string, sinceMs: number): void {
    const { ledger, registry } = this.#options;
    const phase = registry.phase(key);
    if (phase === 'unknown' || phase === 'expired') return;
    this.#deferred.delete(key);
    this.#enqueueChanged(key, ledger.tunnelNames(key), sinceMs);
    this.#enqueueChanged(key, this.#namesNotReported(key), sinceMs);
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
    const { ledger, objects, registry, writeAuthorizer, transitions, clock, metrics } = this.#options;
    const nowMs = clock.monotonicMs();
    const before = ledger.deniedCount(key);
    const changed = ledger.setGrant(key, grant);
    transitions?.grantChanged(key, changed);
    metrics.tunnelRejections.inc({ reason: 'policy' }, Math.max(0, ledger.deniedCount(key) - before));
    if (!writeAuthorizer.canWrite(key)) writeAuthorizer.writeSkipped(key);
    // All objects of an expired reporter are deleted anyway, at a limited rate.
    else if (registry.phase(key) !== 'expired') {
      this.#enqueueChanged(key, changed, nowMs);
      // Objects of tunnels that the ledger does not contain: it knows whether they are permitted only with the object.
      if (!ledger.isComplete(key) || ledger.heldRemovals(key) !== undefined)
        this.#enqueueChanged(key, objects.tunnelNames(key), nowMs);
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

  /** Queues a tunnel of a disconnected reporter. Returns false if it needs no write, or is queued already. */
  enqueue(key: string, tunnelName: string): boolean {
    const { queue, planner, clock, metrics } = this.#options;
    if (queue.isActive(key, tunnelName) || !planner.needsWrite(key, tunnelName)) return false;
    metrics.workqueueAdds.inc({ name: 'tunnels' });
    queue.add(key, tunnelName, clock.monotonicMs());
    return true;
  }

  /** Yields names with an object that are not reported; those that are reported have been compared. */
  *#namesNotReported(key: string): Iterable<string> {
    const { ledger, objects } = this.#options;
    for (const name of objects.tunnelNames(key)) {
      if (ledger.tunnelState(key, name).state !== 'present') yield name;
    }
  }

  #defer(key: string, tunnelName: string): void {
    const names = this.#deferred.get(key);
    if (names === undefined) this.#deferred.set(key, new Set([tunnelName]));
    else names.add(tunnelName);
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
    const { queue, planner, registry, clock, metrics } = this.#options;
    const nowMs = clock.monotonicMs();
    const pendingWrites = registry.entry(key)?.pendingWrites;
    let added = 0;
    let isDone = false;
    for (let scanned = 0; scanned < NAMES_PER_TICK; scanned += 1) {
      const { done, value } = tunnelNames.next();
      if (done === true) {
        isDone = true;
        break;
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
    // Here and not only with the next status, which is not evaluated while the API server is unavailable.
    if (added > 0) pendingWrites?.updateBacklog(queue.pending(key), sinceMs);
    metrics.workqueueAdds.inc({ name: 'tunnels' }, added);
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
