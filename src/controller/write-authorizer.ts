import type { Clock } from '../clock.ts';
import type { WritePermission } from '../core/ownership.ts';
import type { TunnelAction } from '../core/plan.ts';
import type { LiveReader } from './live-reader.ts';
import type { ReporterEnqueuer } from './reporter-enqueuer.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { RewrittenWrite } from './rewritten-objects.ts';
import type { ApiFailure } from './write-outcome.ts';
import type { Workqueue } from './workqueue.ts';
import type { WriteFence } from './write-fence.ts';

/** An expiry delete is sent at most this long after a live read that confirmed ownership. */
const EXPIRY_READ_MAX_AGE_MS = 1000;

export interface WriteAuthorizerOptions {
  readonly registry: ReporterRegistry;
  readonly fence: WriteFence;
  readonly reader: LiveReader;
  readonly reporters: ReporterEnqueuer;
  /** The queue of tunnels. */
  readonly queue: Workqueue;
  readonly clock: Clock;
}

/**
 * Decides whether this replica may write the objects of a reporter, and records the writes that were skipped or
 * rejected. It decides per reporter, not per tunnel, so that a check before each write costs one lookup and no memory.
 */
export class WriteAuthorizer {
  readonly #options: WriteAuthorizerOptions;

  constructor(options: WriteAuthorizerOptions) {
    this.#options = options;
  }

  /** Returns true while this replica owns the reporter and is not fenced. */
  canWrite(key: string): boolean {
    const { registry, fence } = this.#options;
    return registry.entry(key)?.ownership.owns === true && fence.canWrite();
  }

  /** Decides about a write immediately before it is sent. With `verify`, it must be called again after `liveRead`. */
  authorize(key: string, write: TunnelAction['type']): WritePermission {
    const { registry, fence, clock } = this.#options;
    const ownership = registry.entry(key)?.ownership;
    if (ownership === undefined || !fence.canWrite()) return 'deny';
    switch (write) {
      case 'expire':
        return ownership.canExpire(clock.monotonicMs(), EXPIRY_READ_MAX_AGE_MS);
      case 'delete':
        return ownership.canDelete(clock.monotonicMs());
      case 'create':
      case 'patch':
      case 'patchStatus':
      case 'markUnknown':
      case 'markClosed':
        return ownership.canWrite();
    }
  }

  /** Reads the reporter's object. Returns why that failed; undefined if it did not. */
  liveRead(key: string): Promise<ApiFailure | undefined> {
    const { registry, reader } = this.#options;
    const entry = registry.entry(key);
    return entry === undefined ? Promise.resolve(undefined) : reader.read(entry);
  }

  /** Records that an object of the reporter was changed by another client, which may own the reporter now. */
  externalChange(key: string): void {
    this.#options.registry.entry(key)?.ownership.externalChange();
  }

  /**
   * Records that a write was not sent because it was not authorized: all objects are compared once it may be.
   *
   * @param isChange false if there may be nothing to write
   */
  writeSkipped(key: string, isChange = true): void {
    const { registry, reporters, clock } = this.#options;
    const entry = registry.entry(key);
    if (entry === undefined) return;
    if (this.canWrite(key)) {
      entry.pendingWrites.deferDeletion();
      reporters.enqueue(entry);
    } else entry.pendingWrites.skip(clock.monotonicMs(), isChange);
  }

  /** Records that all objects of a reporter must be compared again. */
  compareAgain(key: string): void {
    const { registry, reporters, clock } = this.#options;
    const entry = registry.entry(key);
    if (entry === undefined) return;
    entry.pendingWrites.skip(clock.monotonicMs(), false);
    reporters.enqueue(entry);
  }

  /**
   * Records that the API server rejected a write.
   *
   * @param itemName a tunnel, or the queue item of a slice
   * @param tunnels the number of tunnels that the write concerns
   */
  writeRejected(key: string, itemName: string, answer: string, tunnels = 1): void {
    const { registry, reporters, queue } = this.#options;
    const entry = registry.entry(key);
    if (entry === undefined) return;
    entry.status.markDirty();
    const isFirst = entry.pendingWrites.reject(itemName, answer, queue.pending(key), tunnels);
    if (isFirst) reporters.enqueue(entry);
  }

  /** Records a write that admission rewrote. Returns true if no other object of the reporter is rewritten. */
  writeRewritten(key: string, tunnelName: string, write: RewrittenWrite): boolean {
    const { registry, reporters, queue, clock } = this.#options;
    const entry = registry.entry(key);
    if (entry === undefined) return false;
    entry.status.markDirty();
    const isFirst = entry.pendingWrites.rewrite(tunnelName, write, queue.pending(key), clock.monotonicMs());
    if (isFirst) reporters.enqueue(entry);
    return isFirst;
  }

  /** Records that the objects of a tunnel are in the desired state, while its item is still running. */
  writeAccepted(key: string, tunnelName: string): void {
    const { registry, queue } = this.#options;
    const entry = registry.entry(key);
    if (entry === undefined || entry.pendingWrites.blockedCount === 0) return;
    entry.status.markDirty();
    // An object of a disconnected reporter is not compared with everything that is desired.
    const phase = registry.phase(key);
    const isCompared = phase === undefined || phase === 'grace';
    entry.pendingWrites.accept(tunnelName, queue.pending(key) - 1, isCompared);
  }
}
