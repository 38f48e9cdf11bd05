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
  /** The replacement since whose begin it was last set, by a list, an event or an own write. */
  generation: number;
  /** The replacement whose list held it; what an older one left behind is swept. */
  listed: number;
  /** Another row with the same reporter and tunnel name, made by hand. */
  next: CacheEntry | undefined;
}

/**
 * Own writes and deletions that the watch has yet to show. It shows them within moments; but while it is forbidden, or the
 * lines it brings are not taken, they would be remembered without end. What is forgotten costs a look at an event.
 */
const MAX_PENDING_OWN_WRITES = 20_000;

export interface TunnelCacheEventHandler {
  /** A list or the watch showed a change of a tunnel's objects, which another client may have made. */
  onTunnelObjectChanged?(key: string, tunnelName: string): void;
  /** A list is complete. */
  onListed?(): void;
}

/** Looks up reported tunnels; `Ledger` implements it. */
export interface TunnelSource {
  tunnel(key: string, tunnelName: string): Tunnel | undefined;
}

/**
 * The rows as last seen, indexed by what their spec says: reporter (cluster and id), then tunnel name.
 *
 * Three sources feed it: lists, watch events, and the answers to own writes, which run ahead of the watch. So a watch
 * event older than what is known changes nothing; a deletion is remembered by uid until the watch has caught up; only
 * a relist replaces without comparing versions, since an etcd restored from a backup goes back in time.
 */
export class TunnelCache {
  readonly #names: Names;
  readonly #ledger: TunnelSource;
  readonly #handlers: TunnelCacheEventHandler[] = [];
  readonly #byReporter = new Map<string, Map<string, CacheEntry>>();
  /** Uids of rows whose deletion was answered but not yet seen on the watch. */
  readonly #deletedUids = new Set<string>();
  /** Versions that an own write, or the read after a conflict, has shown and the watch has not yet. */
  readonly #pendingOwnWrites = new Set<string>();
  /** The newest version that the list or the watch has shown: they have told all there is to tell of older ones. */
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

  /** Rows known. */
  get size(): number {
    return this.#size;
  }

  /** True once a whole list has been read. */
  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  /** The newest version that a list or the watch has shown; "" before the first. */
  get latestResourceVersion(): string {
    return this.#latestResourceVersion;
  }

  /** The rows of one tunnel: none, one, or more where somebody made one by hand. */
  objects(key: string, tunnelName: string): ObservedTunnel[] {
    const objects: ObservedTunnel[] = [];
    for (let entry = this.#byReporter.get(key)?.get(tunnelName); entry !== undefined; entry = entry.next) {
      objects.push(entry.observed);
    }
    return objects;
  }

  /** Names of the tunnels of a reporter that have a row. */
  tunnelNames(key: string): Iterable<string> {
    return this.#byReporter.get(key)?.keys() ?? [];
  }

  /** How many tunnels of a reporter have a row. */
  tunnelCount(key: string): number {
    return this.#byReporter.get(key)?.size ?? 0;
  }

  /** Reporters that have rows, by key. */
  reporterKeys(): Iterable<string> {
    return this.#byReporter.keys();
  }

  /** The rows of a reporter as the ledger asks for what was there before it. */
  priorState(key: string): PriorState {
    const ofReporter = this.#byReporter.get(key);
    return {
      tunnel: (name) => ofReporter?.get(name)?.observed.tunnel,
      *tunnels() {
        for (const entry of ofReporter?.values() ?? []) yield entry.observed.tunnel;
      },
    };
  }

  /** A list begins. Until it ends the rows known so far stay. */
  replaceBegin(): void {
    this.#generation += 1;
    this.#replacing = true;
    // The list is read after these deletions were answered, so it does not hold them.
    this.#deletedUids.clear();
    this.#pendingOwnWrites.clear();
    this.#latestResourceVersion = '';
  }

  /** One object of the list, whatever version was known; but not older than an own write since the list began. */
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
    // In a restored etcd labels and status may be others at the version that was known; the spec is one for each uid.
    const { drift } = entry.observed;
    if (before?.uid !== uid || before.resourceVersion !== resourceVersion || before.drift !== drift) {
      this.#notify(tunnelKey.key, tunnelKey.tunnelName);
    }
  }

  /**
   * The list is complete: rows that it did not hold are gone, but for those that were written after it was read.
   *
   * @param version the list's own, which tells such a row from one that was written while the list was on its way, and
   *   deleted by somebody before it was read
   */
  replaceEnd(version: string): void {
    this.#replacing = false;
    this.#advanceVersion(version);
    // The watch goes on from the list: it shows nothing that is older.
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

  /** A watch event. */
  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: TunnelObject): void {
    const { uid, name, resourceVersion } = object.metadata;
    this.#advanceVersion(resourceVersion);
    this.#pendingOwnWrites.delete(resourceVersion);
    const tunnelKey = tunnelKeyOf(object);
    const known = this.#entry(tunnelKey, name)?.observed;
    if (type === 'DELETED') {
      this.#deletedUids.delete(uid);
      // Of an earlier row of that name: the one known is its successor, learnt from the answer to its creation.
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
   * A watch event of this version has come; true when it shows what an own write was answered with, so that there is
   * nothing to learn from it and it need not be read. Each version is asked for once.
   */
  acknowledgeOwnWrite(resourceVersion: string): boolean {
    if (!this.#pendingOwnWrites.delete(resourceVersion)) return false;
    this.#advanceVersion(resourceVersion);
    return true;
  }

  /**
   * What the API server answered to an own create or patch.
   *
   * @param sent what was created
   */
  applyWrite(object: TunnelObject, sent?: TunnelManifest): void {
    const tunnelKey = tunnelKeyOf(object);
    const known = this.#entry(tunnelKey, object.metadata.name)?.observed;
    if (this.#deletedUids.has(object.metadata.uid)) return;
    // The watch may have been quicker, and have shown a later change by somebody else: if it is past this version and
    // the row is not there, that change was its deletion.
    const newest = known?.resourceVersion ?? this.#latestResourceVersion;
    if (compareResourceVersions(newest, object.metadata.resourceVersion) >= 0) return;
    this.#put(tunnelKey, object, sent);
    if (compareResourceVersions(object.metadata.resourceVersion, this.#latestResourceVersion) > 0) {
      addBounded(this.#pendingOwnWrites, object.metadata.resourceVersion);
    }
  }

  /** The API server answered that a row is deleted, or that it is not there. */
  applyDelete(key: string, tunnelName: string, object: ObservedTunnel): void {
    let entry = this.#byReporter.get(key)?.get(tunnelName);
    while (entry !== undefined && entry.observed.uid !== object.uid) entry = entry.next;
    // Not known any more: the watch was quicker, and there is nothing to remember.
    if (entry === undefined && !this.#replacing) return;
    addBounded(this.#deletedUids, object.uid);
    if (entry !== undefined) this.#remove(key, tunnelName, object.name);
  }

  #notify(key: string, tunnelName: string): void {
    for (const handler of this.#handlers) handler.onTunnelObjectChanged?.(key, tunnelName);
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
      known.observed = observed;
      known.generation = this.#generation;
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
  }
}

/** Adds one, and drops the one that was added first where there are too many. */
function addBounded(values: Set<string>, value: string): void {
  values.add(value);
  if (values.size <= MAX_PENDING_OWN_WRITES) return;
  const [oldest] = values;
  if (oldest !== undefined) values.delete(oldest);
}
