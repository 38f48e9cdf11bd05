import { ObjectParts, type Rewrite, type RewrittenField } from '../core/rewrite.ts';
import { sameIdentity, type Tunnel } from '../core/tunnel.ts';

/** Stands for the reporter object where tunnel names are expected, which are never empty. */
export const OWN_OBJECT = '';

/** A write that admission rewrote is repeated after this time at the earliest. */
export const REWRITE_RETRY_MS = 300_000;

/** The last write to an object, which was stored with other values. */
export interface RewrittenWrite extends Rewrite {
  readonly objectName: string;
  /** Undefined if the object was stored as that of another tunnel. */
  readonly uid: string | undefined;
  /** The reported tunnel when the write was sent; undefined if it was not reported. */
  readonly tunnel: Tunnel | undefined;
}

interface Mark extends RewrittenWrite {
  readonly retryAtMs: number;
}

/** The objects of one reporter whose last write was stored with other values, by tunnel name. */
export class RewrittenObjects {
  readonly #marks = new Map<string, Mark>();
  /** When the next attempt may be sent, where the limit of all attempts delays it. */
  readonly #slots = new Map<string, number>();

  get size(): number {
    return this.#marks.size;
  }

  /** An object for messages: the one that has been in this state for the longest time. */
  get first(): (RewrittenField & { readonly objectName: string }) | undefined {
    return this.#marks.values().next().value;
  }

  has(tunnelName: string): boolean {
    return this.#marks.has(tunnelName);
  }

  names(): Iterable<string> {
    return this.#marks.keys();
  }

  /** Records a rewritten write. Returns true if no other object of the reporter is in this state. */
  record(tunnelName: string, write: RewrittenWrite, nowMs: number): boolean {
    const known = this.#marks.get(tunnelName);
    const isFirst = this.#marks.size === 0;
    const isSameAttempt = known !== undefined && known.uid === write.uid && nowMs < known.retryAtMs;
    const parts = isSameAttempt ? known.parts | write.parts : write.parts;
    this.#marks.set(tunnelName, { ...write, parts, retryAtMs: nowMs + REWRITE_RETRY_MS });
    return isFirst;
  }

  /** Records that the objects of a tunnel are in the desired state, or that the tunnel was removed. */
  remove(tunnelName: string): void {
    this.#marks.delete(tunnelName);
    this.#slots.delete(tunnelName);
  }

  /** Returns when the write may be repeated, monotonic ms; undefined if it was not rewritten. */
  retryAtMs(tunnelName: string): number | undefined {
    return this.#marks.get(tunnelName)?.retryAtMs;
  }

  /**
   * Returns the parts of an object that must not be written now, because the same values were rewritten less than 5 min
   * ago. A change of the reported tunnel, or of the object by its replacement, is written immediately.
   *
   * @param uid undefined: no object exists
   * @param desired undefined: the tunnel is not reported
   */
  tolerated(
    tunnelName: string,
    uid: string | undefined,
    desired: Tunnel | undefined,
    nowMs: number,
  ): ObjectParts {
    const mark = this.#marks.get(tunnelName);
    if (mark === undefined || mark.uid !== uid || nowMs >= mark.retryAtMs) return 0;
    const { tunnel, parts } = mark;
    if (desired === undefined || tunnel === undefined) return parts & ObjectParts.notReported;
    if (!sameIdentity(tunnel, desired)) return 0;
    return tunnel.createdAt === desired.createdAt ? parts : parts & ~ObjectParts.createdAt;
  }

  slot(tunnelName: string): number | undefined {
    return this.#slots.get(tunnelName);
  }

  setSlot(tunnelName: string, atMs: number): void {
    this.#slots.set(tunnelName, atMs);
  }

  takeSlot(tunnelName: string): void {
    this.#slots.delete(tunnelName);
  }

  /** Returns the tunnels that wait for their slot, and forgets the slots. */
  takeSlots(): string[] {
    const names = [...this.#slots.keys()];
    this.#slots.clear();
    return names;
  }
}
