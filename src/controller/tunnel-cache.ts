import type { PriorState } from '../core/apply-report.ts';
import type { Names } from '../core/names.ts';
import {
  observeTunnel,
  tunnelKeyOf,
  type ObservedTunnel,
  type TunnelManifest,
  type TunnelObject,
  type TunnelKey,
} from '../core/tunnel-object.ts';
import { sameTunnel, type Tunnel } from '../core/tunnel.ts';
import { CacheProgress, type Stamp } from './cache-progress.ts';

interface CacheEntry extends Stamp {
  observed: ObservedTunnel;
  /** Another object with the same reporter and tunnel name, created manually. */
  next: CacheEntry | undefined;
}

export interface TunnelCacheEventHandler {
  /** A list or the watch showed a change of a tunnel's objects, which another client may have made. */
  onTunnelObjectChanged?(key: string, tunnelName: string): void;
  /** The cache contains another state of an object, for whatever reason; undefined where it does not exist. */
  onTunnelObserved?(key: string, before: ObservedTunnel | undefined, after: ObservedTunnel | undefined): void;
  /** A list is complete. */
  onListed?(): void;
}

/** Looks up reported tunnels; `Ledger` implements it. */
export interface TunnelSource {
  tunnel(key: string, tunnelName: string): Tunnel | undefined;
}

/**
 * The ReverseTunnel objects as last seen, indexed by their spec: reporter (cluster and ID), then tunnel name.
 *
 * It is filled by lists, by watch events, and by the responses to own writes, which are ahead of the watch. A watch event
 * that is older than the known version is therefore ignored, and a deletion is remembered by uid until the watch has
 * caught up. Only a list replaces objects without comparing versions, because a restored etcd goes back in time.
 */
export class TunnelCache {
  readonly #names: Names;
  readonly #ledger: TunnelSource;
  readonly #handlers: TunnelCacheEventHandler[] = [];
  readonly #byReporter = new Map<string, Map<string, CacheEntry>>();
  readonly #progress = new CacheProgress();
  #hasSynced = false;
  #size = 0;

  /** @param ledger a tunnel that equals its object shares the memory of the reported one */
  constructor(names: Names, ledger: TunnelSource) {
    this.#names = names;
    this.#ledger = ledger;
  }

  addEventHandler(handler: TunnelCacheEventHandler): void {
    this.#handlers.push(handler);
  }

  /** The number of objects. */
  get size(): number {
    return this.#size;
  }

  /** True once a list was complete. */
  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  /** The newest version that a list or the watch has shown; empty before the first list. */
  get latestResourceVersion(): string {
    return this.#progress.latestResourceVersion;
  }

  /** Returns the objects of a tunnel: at most one, unless one was created manually. */
  objects(key: string, tunnelName: string): ObservedTunnel[] {
    const objects: ObservedTunnel[] = [];
    for (let entry = this.#byReporter.get(key)?.get(tunnelName); entry !== undefined; entry = entry.next) {
      objects.push(entry.observed);
    }
    return objects;
  }

  /** Returns true if a tunnel has an object. */
  has(key: string, tunnelName: string): boolean {
    return this.#byReporter.get(key)?.has(tunnelName) === true;
  }

  /** Returns the names of a reporter's tunnels that have an object. */
  tunnelNames(key: string): Iterable<string> {
    return this.#byReporter.get(key)?.keys() ?? [];
  }

  /** Returns the number of a reporter's tunnels that have an object. */
  tunnelCount(key: string): number {
    return this.#byReporter.get(key)?.size ?? 0;
  }

  /** Returns all objects with the keys of their reporters. */
  *observed(): Generator<[key: string, object: ObservedTunnel]> {
    for (const [key, ofReporter] of this.#byReporter) {
      for (const first of ofReporter.values()) {
        for (let entry: CacheEntry | undefined = first; entry !== undefined; entry = entry.next)
          yield [key, entry.observed];
      }
    }
  }

  /** Returns the keys of reporters that have objects. */
  reporterKeys(): Iterable<string> {
    return this.#byReporter.keys();
  }

  /** Returns the tunnels of a reporter's objects, from which the ledger starts without a full push. */
  priorState(key: string): PriorState {
    const ofReporter = this.#byReporter.get(key);
    return {
      size: ofReporter?.size ?? 0,
      tunnel: (name) => ofReporter?.get(name)?.observed.tunnel,
      *tunnels() {
        for (const entry of ofReporter?.values() ?? []) yield entry.observed.tunnel;
      },
    };
  }

  /** Starts a list. The known objects stay until it is complete. */
  replaceBegin(): void {
    this.#progress.beginList();
  }

  /** Adds an object of the list, whatever version is known, unless an own write since the start of the list is newer. */
  replaceItem(object: TunnelObject): void {
    const { uid, name, resourceVersion } = object.metadata;
    this.#progress.advance(resourceVersion);
    if (this.#progress.isDeleted(uid)) return;
    const tunnelKey = tunnelKeyOf(object);
    const known = this.#entry(tunnelKey, name);
    const before = known?.observed;
    if (
      known !== undefined &&
      this.#progress.isAheadOfItem(known, known.observed.resourceVersion, resourceVersion)
    ) {
      known.listed = this.#progress.generation;
      return;
    }
    const entry = this.#put(tunnelKey, object);
    entry.listed = this.#progress.generation;
    // After a restore of etcd, labels and status may differ at the same version; the spec is immutable per uid.
    const { drift } = entry.observed;
    if (before?.uid !== uid || before.resourceVersion !== resourceVersion || before.drift !== drift) {
      this.#notify(tunnelKey.key, tunnelKey.tunnelName);
    }
  }

  /**
   * Completes a list: removes objects that it did not contain, except those that were written after it was read.
   *
   * @param version the resourceVersion of the list
   */
  replaceEnd(version: string): void {
    this.#progress.endList(version);
    for (const [key, ofReporter] of this.#byReporter) {
      for (const [tunnelName, first] of ofReporter) {
        for (let entry: CacheEntry | undefined = first; entry !== undefined; entry = entry.next) {
          if (!this.#progress.isGone(entry, entry.observed.resourceVersion, version)) continue;
          this.#remove(key, tunnelName, entry.observed.name);
          this.#notify(key, tunnelName);
        }
      }
    }
    this.#hasSynced = true;
    for (const handler of this.#handlers) handler.onListed?.();
  }

  /** Applies a watch event. */
  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: TunnelObject): void {
    const { uid, name, resourceVersion } = object.metadata;
    this.#progress.observe(resourceVersion);
    const tunnelKey = tunnelKeyOf(object);
    const known = this.#entry(tunnelKey, name)?.observed;
    if (type === 'DELETED') {
      this.#progress.observeDeletion(uid);
      // The deleted object is a predecessor of the known one, which came from the response to its creation.
      if (known?.uid !== uid) return;
      this.#remove(tunnelKey.key, tunnelKey.tunnelName, name);
    } else {
      if (this.#progress.isDeleted(uid)) return;
      if (known !== undefined && this.#progress.isOutdated(resourceVersion, known.resourceVersion)) return;
      this.#put(tunnelKey, object);
    }
    this.#notify(tunnelKey.key, tunnelKey.tunnelName);
  }

  /**
   * Returns true if a watch event of this version shows an own write whose response was applied already, so that the
   * event need not be parsed. Must be called once per version.
   */
  acknowledgeOwnWrite(resourceVersion: string): boolean {
    return this.#progress.acknowledgeOwnWrite(resourceVersion);
  }

  /** Returns true if a watch event shows a deletion whose response was applied already, as with `acknowledgeOwnWrite`. */
  acknowledgeOwnDeletion(uid: string, resourceVersion: string): boolean {
    return this.#progress.acknowledgeOwnDeletion(uid, resourceVersion);
  }

  /**
   * Applies the response to an own create or patch.
   *
   * @param sent the manifest that was created
   */
  applyWrite(object: TunnelObject, sent?: TunnelManifest): void {
    const { uid, name, resourceVersion } = object.metadata;
    const tunnelKey = tunnelKeyOf(object);
    const known = this.#entry(tunnelKey, name)?.observed;
    if (this.#progress.isDeleted(uid)) return;
    if (this.#progress.isOutdated(resourceVersion, known?.resourceVersion)) return;
    this.#put(tunnelKey, object, sent);
    this.#progress.addOwnWrite(resourceVersion);
  }

  /** Applies a response that an object was deleted, or does not exist. */
  applyDelete(key: string, tunnelName: string, object: ObservedTunnel): void {
    let entry = this.#byReporter.get(key)?.get(tunnelName);
    while (entry !== undefined && entry.observed.uid !== object.uid) entry = entry.next;
    this.#progress.addDeletion(object.uid, entry !== undefined);
    if (entry !== undefined) this.#remove(key, tunnelName, object.name);
  }

  #notify(key: string, tunnelName: string): void {
    for (const handler of this.#handlers) handler.onTunnelObjectChanged?.(key, tunnelName);
  }

  #notifyObserved(key: string, before: ObservedTunnel | undefined, after: ObservedTunnel | undefined): void {
    for (const handler of this.#handlers) handler.onTunnelObserved?.(key, before, after);
  }

  #entry(tunnelKey: TunnelKey, name: string): CacheEntry | undefined {
    let entry = this.#byReporter.get(tunnelKey.key)?.get(tunnelKey.tunnelName);
    while (entry !== undefined && entry.observed.name !== name) entry = entry.next;
    return entry;
  }

  #put(tunnelKey: TunnelKey, object: TunnelObject, sent?: TunnelManifest): CacheEntry {
    const { key, tunnelName } = tunnelKey;
    const parsed = observeTunnel(this.#names, object, sent);
    const ledgerTunnel = this.#ledger.tunnel(key, tunnelName);
    const observed =
      ledgerTunnel !== undefined && sameTunnel(ledgerTunnel, parsed.tunnel)
        ? { ...parsed, tunnel: ledgerTunnel }
        : parsed;
    const known = this.#entry(tunnelKey, observed.name);
    if (known !== undefined) {
      const before = known.observed;
      known.observed = observed;
      known.generation = this.#progress.generation;
      this.#notifyObserved(key, before, observed);
      return known;
    }
    let ofReporter = this.#byReporter.get(key);
    if (ofReporter === undefined) {
      ofReporter = new Map();
      this.#byReporter.set(key, ofReporter);
    }
    const next = ofReporter.get(observed.tunnel.name);
    const entry = { observed, generation: this.#progress.generation, listed: 0, next };
    ofReporter.set(observed.tunnel.name, entry);
    this.#size += 1;
    this.#notifyObserved(key, undefined, observed);
    return entry;
  }

  #remove(key: string, tunnelName: string, objectName: string): void {
    const ofReporter = this.#byReporter.get(key);
    let before: CacheEntry | undefined;
    let entry = ofReporter?.get(tunnelName);
    while (entry !== undefined && entry.observed.name !== objectName) [before, entry] = [entry, entry.next];
    if (ofReporter === undefined || entry === undefined) return;
    this.#size -= 1;
    if (before !== undefined) before.next = entry.next;
    else if (entry.next !== undefined) ofReporter.set(tunnelName, entry.next);
    else ofReporter.delete(tunnelName);
    if (ofReporter.size === 0) this.#byReporter.delete(key);
    this.#notifyObserved(key, entry.observed, undefined);
  }
}
