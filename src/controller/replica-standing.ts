import type { ReporterCache } from './reporter-cache.ts';
import type { Standing } from './standing.ts';

/** What the right to write hangs on: the own Lease, and a list of reporters that was begun under it. */
export interface StandingParts {
  readonly self: string;
  /** This replica's own Lease, by its own clock. */
  readonly isHeld: () => boolean;
  readonly isAlive: (replica: string) => boolean;
  readonly isServing: (replica: string) => boolean;
  readonly cache: Pick<ReporterCache, 'nextList' | 'completeList'>;
  /** Lists all reporters again; once more when a list is under way. */
  readonly relist: () => void;
  /** It may write from now on, or again. */
  readonly onOpen: () => void;
}

/**
 * States: *none* (no Lease yet) → *open* (held) → *out* (by the clock alone: nobody has to notice) → *reading* (held
 * again, but what was known of reporters may be out of date) → *open* once a list that began since is complete.
 */
export class ReplicaStanding implements Standing {
  readonly #parts: StandingParts;
  #everHeld = false;
  /** The list that has to be complete before anything is written. */
  #needsList = 0;

  constructor(parts: StandingParts) {
    this.#parts = parts;
  }

  mayWrite(): boolean {
    const { isHeld, cache } = this.#parts;
    return isHeld() && cache.completeList >= this.#needsList;
  }

  isAlive(replica: string): boolean {
    const { self, isHeld, isAlive } = this.#parts;
    return replica === self ? isHeld() : isAlive(replica);
  }

  isServing(replica: string): boolean {
    const { self, isHeld, isServing } = this.#parts;
    return replica === self ? isHeld() : isServing(replica);
  }

  /** The Lease is held from now on, for the first time or after it was not. */
  leaseHeld(): void {
    const { cache, relist, onOpen } = this.#parts;
    if (!this.#everHeld) {
      this.#everHeld = true;
      onOpen();
      return;
    }
    this.#needsList = cache.nextList;
    relist();
  }

  /** A list of all reporters is complete. */
  listed(): void {
    const { cache, onOpen } = this.#parts;
    // Else it had begun before the Lease was regained, and another follows.
    if (cache.completeList >= this.#needsList) onOpen();
  }
}
