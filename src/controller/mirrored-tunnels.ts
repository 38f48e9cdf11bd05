import type { PriorState } from '../core/apply-report.ts';
import type { ObservedTunnel } from '../core/tunnel-object.ts';
import type { Tunnel } from '../core/tunnel.ts';
import type { SliceCache } from './slice-cache.ts';
import type { TunnelCache } from './tunnel-cache.ts';

export interface MirroredTunnelsEventHandler {
  /**
   * The caches show another state of a tunnel, for whatever reason; undefined where no form of it exists. While a tunnel
   * exists in both forms, its object counts.
   */
  onTunnelObserved?(key: string, before: ObservedTunnel | undefined, after: ObservedTunnel | undefined): void;
  /** A list of one form is complete, and the other form has been listed, too. */
  onListed?(): void;
}

/**
 * The tunnels that the API shows, in either form: as a ReverseTunnel object or as an entry of a ReverseTunnelSlice. A
 * reporter without slices costs one lookup more than the cache of objects.
 */
export class MirroredTunnels {
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

  /** Returns the forms of a tunnel: its objects, and its entry in the form of an object. */
  forms(key: string, name: string): ObservedTunnel[] {
    const forms = this.#objects.objects(key, name);
    const entry = this.#slices.tunnel(key, name);
    if (entry !== undefined) forms.push(entry);
    return forms;
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

  /** Returns all tunnels in either form with the keys of their reporters. */
  *observed(): Iterable<[key: string, tunnel: ObservedTunnel]> {
    yield* this.#objects.observed();
    for (const [key, entry] of this.#slices.observed())
      if (!this.#objects.has(key, entry.tunnel.name)) yield [key, entry];
  }

  /** Returns the tunnels of a reporter, from which the ledger starts without a full push. */
  priorState(key: string): PriorState {
    const ofObjects = this.#objects.priorState(key);
    if (!this.#hasSlices(key)) return ofObjects;
    const tunnel = (name: string): Tunnel | undefined =>
      ofObjects.tunnel(name) ?? this.#slices.tunnel(key, name)?.tunnel;
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
    // The first object of a tunnel replaces its entry as what counts, and the entry replaces the last object.
    const others = this.#objects.objects(key, name).length - (after === undefined ? 0 : 1);
    const isOnly = others === 0;
    this.#notify(key, before ?? (isOnly ? entry : undefined), after ?? (isOnly ? entry : undefined));
  }

  #entryObserved(key: string, before: ObservedTunnel | undefined, after: ObservedTunnel | undefined): void {
    const name = (after ?? before)?.tunnel.name ?? '';
    if (!this.#objects.has(key, name)) this.#notify(key, before, after);
  }

  #hasSlices(key: string): boolean {
    return this.#slices.sliceCountOf(key) > 0;
  }

  #notify(key: string, before: ObservedTunnel | undefined, after: ObservedTunnel | undefined): void {
    for (const handler of this.#handlers) handler.onTunnelObserved?.(key, before, after);
  }

  #listed(): void {
    if (!this.hasSynced) return;
    for (const handler of this.#handlers) handler.onListed?.();
  }
}
