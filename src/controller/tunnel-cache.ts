import type { PriorState } from '../core/apply-report.ts';
import type { Names } from '../core/names.ts';
import { compareResourceVersions } from '../core/kubernetes.ts';
import {
  observeTunnel,
  tunnelKeyOf,
  type ObservedTunnel,
  type TunnelManifest,
  type TunnelObject,
  type TunnelKey,
} from '../core/tunnel-object.ts';
import { sameTunnel, type Tunnel } from '../core/tunnel.ts';

interface CacheEntry {
  observed: ObservedTunnel;
  /** The number of the list after whose start the object was last set: by that list, an event or an own write. */
  generation: number;
  /** The number of the last list that contained the object. */
  listed: number;
  /** Another object with the same reporter and tunnel name, created manually. */
  next: CacheEntry | undefined;
}

/**
 * Own writes and deletes that the watch has not shown yet. It usually shows them within moments, but not while it is
 * forbidden or its events are invalid; the bound limits the memory. Forgetting one costs the comparison of an event.
 */
const MAX_PENDING_OWN_WRITES = 20_000;

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
  /** Uids of objects whose deletion was answered, but was not shown by the watch yet. */
  readonly #deletedUids = new Set<string>();
  /** Versions from responses to own writes and reads that the watch has not shown yet. */
  readonly #pendingOwnWrites = new Set<string>();
  /** The newest version that a list or the watch has shown; they will not show older ones. */
  #latestResourceVersion = '';
  #generation = 0;
  #replacing = false;
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
    return this.#latestResourceVersion;
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
    this.#generation += 1;
    this.#replacing = true;
    // The list is read after these deletions were answered, so it does not contain the objects.
    this.#deletedUids.clear();
    this.#pendingOwnWrites.clear();
    this.#latestResourceVersion = '';
  }

  /** Adds an object of the list, whatever version is known, unless an own write since the start of the list is newer. */
  replaceItem(object: TunnelObject): void {
    const { uid, name, resourceVersion } = object.metadata;
    this.#advanceVersion(resourceVersion);
    if (this.#deletedUids.has(uid)) return;
    const tunnelKey = tunnelKeyOf(object);
    const known = this.#entry(tunnelKey, name);
    const before = known?.observed;
    if (
      known?.generation === this.#generation &&
      compareResourceVersions(known.observed.resourceVersion, resourceVersion) >= 0
    ) {
      known.listed = this.#generation;
      return;
    }
    const entry = this.#put(tunnelKey, object);
    entry.listed = this.#generation;
    // After a restore of etcd, labels and status may differ at the same version; the spec is immutable per uid.
    const { drift } = entry.observed;
    if (before?.uid !== uid || before.resourceVersion !== resourceVersion || before.drift !== drift) {
      this.#notify(tunnelKey.key, tunnelKey.tunnelName);
    }
  }

  /**
   * Completes a list: removes objects that it did not contain, except those that were written after it was read.
   *
   * @param version the resourceVersion of the list. An object that was written after the list began, but is not newer than
   *   the list, was deleted by another client before the list was read
   */
  replaceEnd(version: string): void {
    this.#replacing = false;
    this.#advanceVersion(version);
    // The watch continues from the list and shows nothing older.
    for (const ownVersion of this.#pendingOwnWrites)
      if (compareResourceVersions(ownVersion, version) <= 0) this.#pendingOwnWrites.delete(ownVersion);
    for (const [key, ofReporter] of this.#byReporter) {
      for (const [tunnelName, first] of ofReporter) {
        for (let entry: CacheEntry | undefined = first; entry !== undefined; entry = entry.next) {
          const isNewerThanList =
            entry.generation === this.#generation &&
            compareResourceVersions(entry.observed.resourceVersion, version) > 0;
          if (isNewerThanList || entry.listed === this.#generation) continue;
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
    this.#advanceVersion(resourceVersion);
    this.#pendingOwnWrites.delete(resourceVersion);
    const tunnelKey = tunnelKeyOf(object);
    const known = this.#entry(tunnelKey, name)?.observed;
    if (type === 'DELETED') {
      this.#deletedUids.delete(uid);
      // The deleted object is a predecessor of the known one, which came from the response to its creation.
      if (known?.uid !== uid) return;
      this.#remove(tunnelKey.key, tunnelKey.tunnelName, name);
    } else {
      if (this.#deletedUids.has(uid)) return;
      if (known !== undefined && compareResourceVersions(known.resourceVersion, resourceVersion) >= 0) return;
      this.#put(tunnelKey, object);
    }
    this.#notify(tunnelKey.key, tunnelKey.tunnelName);
  }

  /**
   * Returns true if a watch event of this version shows an own write whose response was applied already, so that the
   * event need not be parsed. Must be called once per version.
   */
  acknowledgeOwnWrite(resourceVersion: string): boolean {
    if (!this.#pendingOwnWrites.delete(resourceVersion)) return false;
    this.#advanceVersion(resourceVersion);
    return true;
  }

  /**
   * Applies the response to an own create or patch.
   *
   * @param sent the manifest that was created
   */
  applyWrite(object: TunnelObject, sent?: TunnelManifest): void {
    const tunnelKey = tunnelKeyOf(object);
    const known = this.#entry(tunnelKey, object.metadata.name)?.observed;
    if (this.#deletedUids.has(object.metadata.uid)) return;
    // The watch may have been faster, and may have shown a later change by another client. If it is past this version and
    // the object does not exist, that change was its deletion.
    const newest = known?.resourceVersion ?? this.#latestResourceVersion;
    if (compareResourceVersions(newest, object.metadata.resourceVersion) >= 0) return;
    this.#put(tunnelKey, object, sent);
    if (compareResourceVersions(object.metadata.resourceVersion, this.#latestResourceVersion) > 0) {
      addBounded(this.#pendingOwnWrites, object.metadata.resourceVersion);
    }
  }

  /** Applies a response that an object was deleted, or does not exist. */
  applyDelete(key: string, tunnelName: string, object: ObservedTunnel): void {
    let entry = this.#byReporter.get(key)?.get(tunnelName);
    while (entry !== undefined && entry.observed.uid !== object.uid) entry = entry.next;
    // An unknown object means that the watch was faster, and there is nothing to remember.
    if (entry === undefined && !this.#replacing) return;
    addBounded(this.#deletedUids, object.uid);
    if (entry !== undefined) this.#remove(key, tunnelName, object.name);
  }

  #notify(key: string, tunnelName: string): void {
    for (const handler of this.#handlers) handler.onTunnelObjectChanged?.(key, tunnelName);
  }

  #notifyObserved(key: string, before: ObservedTunnel | undefined, after: ObservedTunnel | undefined): void {
    for (const handler of this.#handlers) handler.onTunnelObserved?.(key, before, after);
  }

  #advanceVersion(version: string): void {
    if (compareResourceVersions(version, this.#latestResourceVersion) > 0)
      this.#latestResourceVersion = version;
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
      known.generation = this.#generation;
      this.#notifyObserved(key, before, observed);
      return known;
    }
    let ofReporter = this.#byReporter.get(key);
    if (ofReporter === undefined) {
      ofReporter = new Map();
      this.#byReporter.set(key, ofReporter);
    }
    const next = ofReporter.get(observed.tunnel.name);
    const entry = { observed, generation: this.#generation, listed: 0, next };
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

/** Adds a value, and removes the oldest one if there are too many. */
function addBounded(values: Set<string>, value: string): void {
  values.add(value);
  if (values.size <= MAX_PENDING_OWN_WRITES) return;
  const [oldest] = values;
  if (oldest !== undefined) values.delete(oldest);
}
