import type { PriorState } from '../core/apply-report.ts';
import { Drift, type ObservedTunnel } from '../core/tunnel-object.ts';
import type { Tunnel } from '../core/tunnel.ts';
import type { SliceCache } from './slice-cache.ts';
import type { TunnelCache } from './tunnel-cache.ts';
import { snapshotTunnels, type FormSelector } from './tunnel-snapshot.ts';

export interface MirroredTunnelsEventHandler {
  /**
   * The caches show another state of a tunnel, for whatever reason; undefined where no form of it exists. While a tunnel
   * exists in both forms, its object counts, unless only the object is being deleted.
   */
  onTunnelObserved?(key: string, before: ObservedTunnel | undefined, after: ObservedTunnel | undefined): void;
  /** A list of one form is complete, and the other form has been listed, too. */
  onListed?(): void;
}

/**
 * The tunnels that the API shows, in either form: as a ReverseTunnel object or as an entry of a ReverseTunnelSlice. A
 * reporter without slices costs one lookup more than the cache of objects.
 */
export class MirroredTunnels implements FormSelector {
  readonly #objects: TunnelCache;
  readonly #slices: SliceCache;
  readonly #handlers: MirroredTunnelsEventHandler[] = [];

  constructor(objects: TunnelCache, slices: SliceCache) {
    this.#objects = objects;
    this.#slices = slices;
    objects.addEventHandler({
      onTunnelObserved: (key, before, after) => this.#objectObserved(key, before, after),
      onListed: () => this.#listed(),
    });
    slices.addEventHandler({
      onTunnelObserved: (key, before, after) => this.#entryObserved(key, before, after),
      onListed: () => this.#listed(),
    });
  }

  addEventHandler(handler: MirroredTunnelsEventHandler): void {
    this.#handlers.push(handler);
  }

  /** True once both forms have been listed, or the API server serves no slices. */
  get hasSynced(): boolean {
    return this.#objects.hasSynced && this.#slices.hasSynced;
  }

  /** Returns the names of a reporter's tunnels in either form. */
  *tunnelNames(key: string): Iterable<string> {
    yield* this.#objects.tunnelNames(key);
    if (!this.#hasSlices(key)) return;
    for (const name of this.#slices.tunnelNames(key)) if (!this.#objects.has(key, name)) yield name;
  }

  /** Returns the forms of a tunnel: its objects, and its entry in the form of an object; first the one that counts. */
  forms(key: string, name: string): ObservedTunnel[] {
    const objects = this.#objects.objects(key, name);
    const entry = this.#slices.tunnel(key, name);
    if (entry === undefined) return objects;
    return countsBefore(entry, objects) ? [entry, ...objects] : [...objects, entry];
  }

  /** Returns true if a tunnel has an entry that counts, and its objects do not. */
  entryCounts(key: string, name: string): boolean {
    const entry = this.#slices.tunnel(key, name);
    if (entry === undefined) return false;
    return !this.#objects.has(key, name) || countsBefore(entry, this.#objects.objects(key, name));
  }

  /** Returns the number of a reporter's tunnels in either form. */
  tunnelCount(key: string): number {
    const objects = this.#objects.tunnelCount(key);
    if (!this.#hasSlices(key)) return objects;
    let count = this.#slices.tunnelCount(key);
    for (const name of this.#objects.tunnelNames(key))
      if (this.#slices.tunnel(key, name) === undefined) count += 1;
    return count;
  }

  /** Returns true if a reporter has objects of either kind. */
  hasObjects(key: string): boolean {
    return this.#objects.tunnelCount(key) > 0 || this.#hasSlices(key);
  }

  /** Returns the keys of reporters that have objects of either kind. */
  *reporterKeys(): Iterable<string> {
    yield* this.#objects.reporterKeys();
    for (const key of this.#slices.reporterKeys()) if (this.#objects.tunnelCount(key) === 0) yield key;
  }

  /** Returns all tunnels in either form as of now, with the keys of their reporters; see `snapshotTunnels`. */
  snapshot(): Iterable<[key: string, tunnel: ObservedTunnel]> {
    return snapshotTunnels(this.#objects, this.#slices, this);
  }

  /** Returns the tunnels of a reporter, from which the ledger starts without a full push. */
  priorState(key: string): PriorState {
    const ofObjects = this.#objects.priorState(key);
    if (!this.#hasSlices(key)) return ofObjects;
    const tunnel = (name: string): Tunnel | undefined =>
      this.entryCounts(key, name) ? this.#slices.tunnel(key, name)?.tunnel : ofObjects.tunnel(name);
    const names = (): Iterable<string> => this.tunnelNames(key);
    const size = (): number => this.tunnelCount(key);
    return {
      get size() {
        return size();
      },
      tunnel,
      *tunnels() {
        for (const name of names()) {
          const known = tunnel(name);
          if (known !== undefined) yield known;
        }
      },
    };
  }

  #objectObserved(key: string, before: ObservedTunnel | undefined, after: ObservedTunnel | undefined): void {
    const name = (after ?? before)?.tunnel.name ?? '';
    const entry = this.#slices.tunnel(key, name);
    if (entry === undefined) {
      this.#notify(key, before, after);
      return;
    }
    const others = this.#objects.objects(key, name).filter((object) => object.name !== after?.name);
    this.#notifyForms(key, countedForms([before, ...others], entry), countedForms([after, ...others], entry));
  }

  #entryObserved(key: string, before: ObservedTunnel | undefined, after: ObservedTunnel | undefined): void {
    const name = (after ?? before)?.tunnel.name ?? '';
    if (!this.#objects.has(key, name)) {
      this.#notify(key, before, after);
      return;
    }
    const objects = this.#objects.objects(key, name);
    this.#notifyForms(key, countedForms(objects, before), countedForms(objects, after));
  }

  #hasSlices(key: string): boolean {
    return this.#slices.sliceCountOf(key) > 0;
  }

  /** Reports which forms of a tunnel counted before, and which count now. */
  #notifyForms(key: string, before: readonly Form[], after: readonly Form[]): void {
    for (let index = 0; index < Math.max(before.length, after.length); index += 1)
      if (before[index] !== after[index]) this.#notify(key, before[index], after[index]);
  }

  #notify(key: string, before: ObservedTunnel | undefined, after: ObservedTunnel | undefined): void {
    for (const handler of this.#handlers) handler.onTunnelObserved?.(key, before, after);
  }

  #listed(): void {
    if (!this.hasSynced) return;
    for (const handler of this.#handlers) handler.onListed?.();
  }
}

/** A form of a tunnel; undefined if it does not exist. */
type Form = ObservedTunnel | undefined;

/** Returns the forms of a tunnel that count: its objects, or its entry. */
function countedForms(objects: readonly Form[], entry: Form): readonly Form[] {
  if (entry === undefined) return objects;
  const existing = objects.filter((object) => object !== undefined);
  return countsBefore(entry, existing) ? [entry] : objects;
}

/** Returns true if an entry counts: the tunnel has no objects, or only the objects are being deleted. */
function countsBefore(entry: ObservedTunnel, objects: readonly ObservedTunnel[]): boolean {
  return objects.length === 0 || (!isTerminating(entry) && objects.every((object) => isTerminating(object)));
}

function isTerminating({ drift }: ObservedTunnel): boolean {
  return (drift & Drift.terminating) !== 0;
}
