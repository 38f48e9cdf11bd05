import type { Clock } from '../clock.ts';
import { RejectionSearch } from '../core/rejection-search.ts';
import type { SliceChanges } from '../core/slice-plan.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import { runPeriodically } from '../run-periodically.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { SliceAssignments } from './slice-assignments.ts';
import type { SliceCache } from './slice-cache.ts';
import type { SliceEnqueuer } from './slice-enqueuer.ts';
import type { SlicePlanner } from './slice-planner.ts';
import type { Outcome } from './workers.ts';
import type { QueueItem, Workqueue } from './workqueue.ts';
import type { WriteAuthorizer } from './write-authorizer.ts';

/** New tunnels avoid a slice whose writes are rejected for this long, or until one of its additions is accepted. */
const CLOSED_MS = 300_000;
/** How often closed slices are reopened, and entries forgotten whose tunnels are gone. */
const CLEANUP_INTERVAL_MS = 10_000;
const LOG_INTERVAL_MS = 10_000;
/** A prime number that divides the number of entries of few slices. */
const ROTATION = 37;

/** An entry whose change the API server rejects. */
interface RejectedEntry {
  /** The slice in which it was rejected last. */
  readonly sliceName: string;
  readonly answer: string;
  /** Consecutive rejections. */
  readonly failures: number;
  /**
   * - `moved`: it was assigned to another slice, which may accept it. It is not reported yet.
   * - `rejected`: its item is in the queue, and will be rejected with the answer of the API server.
   * - `waiting`: its item waits for the next attempt.
   * - `retrying`: it is written with the next write of its slice.
   */
  state: 'moved' | 'rejected' | 'waiting' | 'retrying';
}

/** A slice to which no more tunnels are assigned. */
interface ClosedSlice {
  readonly untilMs: number;
  /** How often all of its changes were rejected. */
  readonly rejections: number;
}

export interface RejectedEntriesOptions {
  readonly cache: SliceCache;
  readonly assignments: SliceAssignments;
  readonly planner: SlicePlanner;
  readonly slices: SliceEnqueuer;
  readonly registry: ReporterRegistry;
  readonly writeAuthorizer: WriteAuthorizer;
  /** The queue of tunnels and slices. */
  readonly queue: Workqueue;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * The entries of slices that the API server rejects. Such an entry delays no other one: it is left out of the writes of its
 * slice, and its tunnel is an item of the queue, which is rejected, reported and retried like that of a rejected object.
 *
 * An entry that a slice rejects is first tried in another one. If that one accepts it, no more tunnels are assigned to the
 * first one for some time.
 */
export class RejectedEntries {
  readonly #options: RejectedEntriesOptions;
  readonly #throttled: LogThrottle;
  readonly #byReporter = new Map<string, Map<string, RejectedEntry>>();
  /** By reporter key and slice name, in the order of time. */
  readonly #closed = new Map<string, Map<string, ClosedSlice>>();
  #stop: (() => void) | undefined;

  constructor(options: RejectedEntriesOptions) {
    this.#options = options;
    this.#throttled = createLogThrottle(options.clock, LOG_INTERVAL_MS);
  }

  start(): void {
    const { clock, log } = this.#options;
    this.#stop = runPeriodically(clock, log, {
      name: 'clean up rejected entries',
      intervalMs: CLEANUP_INTERVAL_MS,
      run: () => this.#cleanUp(),
    });
  }

  stop(): void {
    this.#stop?.();
  }

  /** Returns true if a reporter has rejected entries. */
  hasAny(key: string): boolean {
    return this.#byReporter.has(key);
  }

  /** Returns true if the change of an entry is not written now. */
  isWaiting(key: string, tunnelName: string): boolean {
    const state = this.#byReporter.get(key)?.get(tunnelName)?.state;
    return state === 'rejected' || state === 'waiting';
  }

  /** Starts the search for the changes of a slice that the API server rejects. Removals are written first. */
  search(key: string, sliceName: string, { removed, others }: SliceChanges): RejectionSearch {
    const rejections = this.#rejectionsOf(key, sliceName);
    if (rejections === 0) return new RejectionSearch([removed, others]);
    // After all changes were rejected, another one is written alone in each attempt, in case that it is accepted.
    return new RejectionSearch([rotated(removed, rejections), rotated(others, rejections)], 1);
  }

  /** Handles entries whose changes the API server rejects in a slice, each written alone. */
  entriesRejected(key: string, sliceName: string, tunnelNames: readonly string[], answer: string): void {
    const { queue, registry, clock, log } = this.#options;
    const entries = this.#entriesOf(key);
    const moved = this.#moveNew(key, sliceName, tunnelNames, answer);
    for (const name of tunnelNames) {
      if (moved.has(name)) continue;
      const failures = (entries.get(name)?.failures ?? 0) + 1;
      entries.set(name, { sliceName, answer, failures, state: 'rejected' });
      queue.add(key, name, clock.monotonicMs());
      this.#throttled(`entry ${key}`, (suppressed) =>
        log.warn(
          {
            reporter: registry.entry(key)?.reporter,
            slice: sliceName,
            tunnel: name,
            error: answer,
            ...suppressed,
          },
          'entry of a ReverseTunnelSlice rejected; retrying with backoff',
        ),
      );
    }
    this.#removeIfEmpty(key);
  }

  /** Handles a slice whose writes are all rejected. The slice itself is retried with backoff. */
  sliceRejected(key: string, sliceName: string, answer: string): void {
    this.#close(key, sliceName, this.#rejectionsOf(key, sliceName) + 1);
    this.#moveNew(key, sliceName, [...this.#options.assignments.packing(key).pending(sliceName)], answer);
    this.#removeIfEmpty(key);
  }

  /** Handles a write of a slice that was accepted. */
  accepted(key: string, sliceName: string, { removed, others }: SliceChanges): void {
    if (others.length > 0) this.#reopen(key, sliceName);
    const entries = this.#byReporter.get(key);
    if (entries === undefined) return;
    for (const name of [...removed, ...others]) {
      const entry = entries.get(name);
      if (entry === undefined) continue;
      this.#forget(key, name);
      if (entry.state === 'moved' && entry.sliceName !== sliceName) this.#close(key, entry.sliceName);
      this.#options.writeAuthorizer.writeAccepted(key, name);
    }
  }

  /**
   * Reconciles the queue item of a tunnel whose entry is rejected.
   *
   * @returns undefined if it is not
   */
  reconcile({ key, name }: QueueItem): Outcome | undefined {
    const { planner, slices, clock } = this.#options;
    const entry = this.#byReporter.get(key)?.get(name);
    if (entry === undefined) return undefined;
    if (!planner.needsWrite(key, name)) {
      this.#forget(key, name);
      return undefined;
    }
    if (entry.state === 'rejected') {
      entry.state = 'waiting';
      return { kind: 'rejected', answer: entry.answer, failures: entry.failures };
    }
    if (entry.state === 'waiting') {
      entry.state = 'retrying';
      const assigned = this.#options.assignments.packing(key).sliceOf(name);
      if (assigned !== undefined) slices.moveElsewhere(key, assigned, [name], false);
      slices.compare(key, name, clock.monotonicMs());
    }
    return { kind: 'done', answered: false };
  }

  /** Handles the removal of a reporter from this replica. */
  onReporterRemoved(key: string): void {
    this.#byReporter.delete(key);
    this.#closed.delete(key);
  }

  /** Assigns entries to another slice that were not rejected before. Returns their names. */
  #moveNew(
    key: string,
    sliceName: string,
    tunnelNames: readonly string[],
    answer: string,
  ): ReadonlySet<string> {
    const { cache, planner, slices } = this.#options;
    const entries = this.#entriesOf(key);
    const unknown = tunnelNames.filter((name) => !entries.has(name));
    // If the slice does not exist, another one could not be created either.
    const canOpen = cache.slice(key, sliceName) !== undefined;
    const moved = slices.moveElsewhere(key, sliceName, unknown, canOpen);
    for (const name of moved) {
      if (planner.needsWrite(key, name))
        entries.set(name, { sliceName, answer, failures: 1, state: 'moved' });
      // It is still in the slice that it was to leave.
      else this.#close(key, sliceName);
    }
    return new Set(moved);
  }

  #rejectionsOf(key: string, sliceName: string): number {
    return this.#closed.get(key)?.get(sliceName)?.rejections ?? 0;
  }

  #close(key: string, sliceName: string, rejections = this.#rejectionsOf(key, sliceName)): void {
    const { assignments, registry, clock, log } = this.#options;
    let closed = this.#closed.get(key);
    if (closed === undefined) this.#closed.set(key, (closed = new Map()));
    const isNew = !closed.delete(sliceName);
    closed.set(sliceName, { untilMs: clock.monotonicMs() + CLOSED_MS, rejections });
    assignments.packing(key).close(sliceName);
    if (!isNew) return;
    this.#throttled(`slice ${key}`, (suppressed) =>
      log.warn(
        { reporter: registry.entry(key)?.reporter, slice: sliceName, ...suppressed },
        'ReverseTunnelSlice rejects new tunnels; using other slices for 5 minutes',
      ),
    );
  }

  #reopen(key: string, sliceName: string): void {
    const closed = this.#closed.get(key);
    if (closed?.delete(sliceName) !== true) return;
    if (closed.size === 0) this.#closed.delete(key);
    this.#options.assignments.known(key)?.reopen(sliceName);
  }

  #cleanUp(): void {
    const { planner, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    for (const [key, entries] of this.#byReporter) {
      for (const [name, { state }] of entries)
        if (state === 'moved' && !planner.needsWrite(key, name)) this.#forget(key, name);
    }
    for (const [key, closed] of this.#closed) {
      for (const [sliceName, { untilMs }] of closed) {
        if (untilMs > nowMs) break;
        this.#reopen(key, sliceName);
      }
    }
  }

  #entriesOf(key: string): Map<string, RejectedEntry> {
    let entries = this.#byReporter.get(key);
    if (entries === undefined) this.#byReporter.set(key, (entries = new Map()));
    return entries;
  }

  #forget(key: string, tunnelName: string): void {
    this.#byReporter.get(key)?.delete(tunnelName);
    this.#removeIfEmpty(key);
  }

  #removeIfEmpty(key: string): void {
    if (this.#byReporter.get(key)?.size === 0) this.#byReporter.delete(key);
  }
}

/** Returns the names such that each of the first attempts begins with another one, far from those of others. */
function rotated(names: readonly string[], attempt: number): readonly string[] {
  const offset = (attempt * ROTATION) % Math.max(1, names.length);
  return [...names.slice(offset), ...names.slice(0, offset)];
}
