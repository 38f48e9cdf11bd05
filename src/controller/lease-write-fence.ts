import type { ReporterCache } from './reporter-cache.ts';
import type { WriteFence } from './write-fence.ts';

/** What the right to write hangs on: the own Lease, and a list of reporters that was begun under it. */
export interface LeaseWriteFenceOptions {
  readonly self: string;
  /** This replica's own Lease, by its own clock. */
  readonly isHeld: () => boolean;
  readonly isAlive: (replica: string) => boolean;
  readonly isServing: (replica: string) => boolean;
  readonly cache: Pick<ReporterCache, 'nextList' | 'completeList'>;
  /** Lists all reporters again; once more when a list is under way. */
  readonly relist: () => void;
  /** It may write from now on, or again. */
  readonly onWritable: () => void;
}

/**
 * States: *none* (no Lease yet) → *open* (held) → *out* (by the clock alone: nobody has to notice) → *reading* (held
 * again, but what was known of reporters may be out of date) → *open* once a list that began since is complete.
 */
export class LeaseWriteFence implements WriteFence {
  readonly #options: LeaseWriteFenceOptions;
  #everHeld = false;
  /** The list that has to be complete before anything is written. */
  #requiredList = 0;

  constructor(options: LeaseWriteFenceOptions) {
    this.#options = options;
  }

  canWrite(): boolean {
    const { isHeld, cache } = this.#options;
    return isHeld() && cache.completeList >= this.#requiredList;
  }

  isAlive(replica: string): boolean {
    const { self, isHeld, isAlive } = this.#options;
    return replica === self ? isHeld() : isAlive(replica);
  }

  isServing(replica: string): boolean {
    const { self, isHeld, isServing } = this.#options;
    return replica === self ? isHeld() : isServing(replica);
  }

  /** The Lease is held from now on, for the first time or after it was not. */
  onLeaseHeld(): void {
    const { cache, relist, onWritable } = this.#options;
    if (!this.#everHeld) {
      this.#everHeld = true;
      onWritable();
      return;
    }
    this.#requiredList = cache.nextList;
    relist();
  }

  /** A list of all reporters is complete. */
  onReportersListed(): void {
    const { cache, onWritable } = this.#options;
    // Else it had begun before the Lease was regained, and another follows.
    if (cache.completeList >= this.#requiredList) onWritable();
  }
}
