import type { ReplicaRegistry } from './replica-registry.ts';
import type { ReporterCache } from './reporter-cache.ts';

/** Decides whether this replica may write at all, and which replicas are alive. */
export interface WriteFence {
  /**
   * Returns true while this replica holds its Lease by its own clock, and has read all reporter objects since it last
   * acquired it. Must be called before each write, because a process does not notice that it was stopped.
   */
  canWrite(): boolean;
  /** Returns true while a replica holds a live Lease, and for up to 15 s after it released it. */
  isAlive(replica: string): boolean;
  /** Returns true while a replica holds a live Lease that it has not released. */
  isServing(replica: string): boolean;
}

export interface WriteFenceEventHandler {
  /** This replica may write, for the first time or again. */
  onWritable(): void;
}

export interface LeaseWriteFenceOptions {
  /** This process, as in its Lease. */
  readonly self: string;
  /** The Lease of this replica. */
  readonly lease: { readonly isHeld: boolean };
  readonly replicas: Pick<ReplicaRegistry, 'isAlive' | 'isServing'>;
  readonly cache: Pick<ReporterCache, 'nextList' | 'completeList'>;
  /** The reflector of reporter objects. If a list is in progress, `relist` starts another one after it. */
  readonly reflector: { relist(): void };
}

/**
 * A fence that depends on the Lease of this replica. States:
 *
 * - *new*: the Lease has not been acquired yet.
 * - *open*: the Lease is held.
 * - *fenced*: the Lease has expired by the clock; nothing has to notice that.
 * - *reading*: the Lease is held again, but the cached reporter objects may be outdated. A complete list that started
 *   after the Lease was acquired opens the fence.
 */
export class LeaseWriteFence implements WriteFence {
  readonly #options: LeaseWriteFenceOptions;
  readonly #handlers: WriteFenceEventHandler[] = [];
  #everHeld = false;
  /** The number of the list that must be complete before anything is written. */
  #requiredList = 0;

  constructor(options: LeaseWriteFenceOptions) {
    this.#options = options;
  }

  addEventHandler(handler: WriteFenceEventHandler): void {
    this.#handlers.push(handler);
  }

  /** True once the Lease has been acquired for the first time. */
  get everHeld(): boolean {
    return this.#everHeld;
  }

  canWrite(): boolean {
    const { lease, cache } = this.#options;
    return lease.isHeld && cache.completeList >= this.#requiredList;
  }

  isAlive(replica: string): boolean {
    const { self, lease, replicas } = this.#options;
    return replica === self ? lease.isHeld : replicas.isAlive(replica);
  }

  isServing(replica: string): boolean {
    const { self, lease, replicas } = this.#options;
    return replica === self ? lease.isHeld : replicas.isServing(replica);
  }

  /** Handles the acquisition of the Lease, for the first time or again. */
  onAcquired(): void {
    const { cache, reflector } = this.#options;
    if (!this.#everHeld) {
      this.#everHeld = true;
      this.#open();
      return;
    }
    this.#requiredList = cache.nextList;
    reflector.relist();
  }

  /** Handles a complete list of reporter objects. */
  onListed(): void {
    // A list that started before the Lease was acquired does not count; another one follows.
    if (this.#options.cache.completeList >= this.#requiredList) this.#open();
  }

  #open(): void {
    for (const handler of this.#handlers) handler.onWritable();
  }
}
