import type { PriorState } from '../core/apply-report.ts';
import type { Names } from '../core/names.ts';
import {
  observedEntry,
  observeSlice,
  sliceReporterKey,
  type ObservedSlice,
  type SliceManifest,
  type SliceObject,
} from '../core/slice-object.ts';
import { Drift, type ObservedTunnel } from '../core/tunnel-object.ts';
import { sameTunnel, type Tunnel } from '../core/tunnel.ts';
import { CacheProgress, type Stamp } from './cache-progress.ts';
import type { TunnelSource } from './tunnel-cache.ts';

interface CacheEntry extends Stamp {
  slice: ObservedSlice;
}

/** The slices of one reporter. */
interface ReporterSlices {
  readonly byName: Map<string, CacheEntry>;
  /** By tunnel name; a list only while a tunnel is in several slices. */
  readonly byTunnel: Map<string, CacheEntry | readonly CacheEntry[]>;
}

export interface SliceCacheEventHandler {
  /** A list or the watch showed a change of a slice, which another client may have made. */
  onSliceChanged?(key: string, sliceName: string): void;
  /** The cache contains another state of a slice, for whatever reason; undefined: it does not exist. */
  onSliceObserved?(key: string, sliceName: string, slice: ObservedSlice | undefined): void;
  /**
   * A tunnel came to be in a slice, changed there, or is no longer in any; once per tunnel, even if it is in several
   * slices. Called after `onSliceObserved`.
   */
  onTunnelObserved?(key: string, before: ObservedTunnel | undefined, after: ObservedTunnel | undefined): void;
  /** A list is complete. */
  onListed?(): void;
}

/**
 * The ReverseTunnelSlice objects as last seen, indexed by reporter, then by name and by tunnel name. It is filled like
 * `TunnelCache`, by the same rules. Each entry costs two references, because its tunnel is that of the ledger.
 */
export class SliceCache {
  readonly #names: Names;
  readonly #ledger: TunnelSource;
  readonly #handlers: SliceCacheEventHandler[] = [];
  readonly #byReporter = new Map<string, ReporterSlices>();
  readonly #progress = new CacheProgress();
  #hasSynced = false;
  #isServed = true;
  #isMissing = false;
  #installations = 0;
  #size = 0;
  #sliceCount = 0;

  /** @param ledger a tunnel that equals its entry shares the memory of the reported one */
  constructor(names: Names, ledger: TunnelSource) {
    this.#names = names;
    this.#ledger = ledger;
  }

  addEventHandler(handler: SliceCacheEventHandler): void {
    this.#handlers.push(handler);
  }

  /** The number of tunnels in slices. */
  get size(): number {
    return this.#size;
  }

  /** The number of slices. */
  get sliceCount(): number {
    return this.#sliceCount;
  }

  /** True once a list was complete. */
  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  /** False until a list is complete if the API server does not serve the kind; true before it has been listed. */
  get isServed(): boolean {
    return this.#isServed;
  }

  /** How often the kind was found to be installed after it was missing, or the reverse. */
  get installations(): number {
    return this.#installations;
  }

  /** The newest version that a list or the watch has shown; empty before the first list. */
  get latestResourceVersion(): string {
    return this.#progress.latestResourceVersion;
  }

  slice(key: string, sliceName: string): ObservedSlice | undefined {
    return this.#byReporter.get(key)?.byName.get(sliceName)?.slice;
  }

  /** Returns the slices of a reporter. */
  *slices(key: string): Iterable<ObservedSlice> {
    for (const { slice } of this.#byReporter.get(key)?.byName.values() ?? []) yield slice;
  }

  /** Returns the slices that contain a tunnel: at most one, except during a merge or after a manual edit. */
  slicesOf(key: string, tunnelName: string): ObservedSlice[] {
    const found = this.#byReporter.get(key)?.byTunnel.get(tunnelName);
    return entriesOf(found).map(({ slice }) => slice);
  }

  /** Returns a tunnel of a reporter that is in a slice, in the form of an object. */
  tunnel(key: string, tunnelName: string): ObservedTunnel | undefined {
    return viewOf(this.#byReporter.get(key)?.byTunnel.get(tunnelName), tunnelName);
  }

  /** Returns the names of a reporter's tunnels that are in slices. */
  tunnelNames(key: string): Iterable<string> {
    return this.#byReporter.get(key)?.byTunnel.keys() ?? [];
  }

  /** Returns the number of a reporter's tunnels that are in slices. */
  tunnelCount(key: string): number {
    return this.#byReporter.get(key)?.byTunnel.size ?? 0;
  }

  /** Returns the number of a reporter's slices. */
  sliceCountOf(key: string): number {
    return this.#byReporter.get(key)?.byName.size ?? 0;
  }

  /** Returns the keys of reporters that have slices. */
  reporterKeys(): Iterable<string> {
    return this.#byReporter.keys();
  }

  /** Returns a reporter's tunnels in slices, from which the ledger starts without a full push. */
  priorState(key: string): PriorState {
    const slices = this.#byReporter.get(key);
    return {
      size: slices?.byTunnel.size ?? 0,
      tunnel: (name) => tunnelOf(slices?.byTunnel.get(name), name),
      *tunnels() {
        for (const [name, found] of slices?.byTunnel ?? []) {
          const tunnel = tunnelOf(found, name);
          if (tunnel !== undefined) yield tunnel;
        }
      },
    };
  }

  /** Starts a list. The known slices stay until it is complete. */
  replaceBegin(): void {
    this.#progress.beginList();
  }

  /** Adds a slice of the list, whatever version is known, unless an own write since the start of the list is newer. */
  replaceItem(object: SliceObject): void {
    const { uid, name, resourceVersion } = object.metadata;
    this.#progress.advance(resourceVersion);
    if (this.#progress.isDeleted(uid)) return;
    const key = sliceReporterKey(object);
    const known = this.#entry(key, name);
    if (
      known !== undefined &&
      this.#progress.isAheadOfItem(known, known.slice.resourceVersion, resourceVersion)
    ) {
      known.listed = this.#progress.generation;
      return;
    }
    const before = known?.slice;
    const entry = this.#put(key, object);
    entry.listed = this.#progress.generation;
    // After a restore of etcd, the content may differ at the same version.
    if (before === undefined || !sameSlice(before, entry.slice)) this.#notify(key, name);
  }

  /** Completes a list; see `TunnelCache.replaceEnd`. */
  replaceEnd(version: string): void {
    this.#progress.endList(version);
    for (const [key, { byName }] of this.#byReporter) {
      for (const [name, entry] of byName) {
        if (!this.#progress.isGone(entry, entry.slice.resourceVersion, version)) continue;
        this.#remove(key, name);
        this.#notify(key, name);
      }
    }
    this.#hasSynced = true;
    this.#isServed = true;
    this.#setMissing(false);
    for (const handler of this.#handlers) handler.onListed?.();
  }

  /**
   * Handles an API server that serves ReverseTunnels and no slices: there are none. If it served them before, they are still
   * used: it would cost one object per tunnel to do without them for as long as the CRD is being replaced.
   */
  onKindMissing(): void {
    this.#setMissing(true);
    if (this.#hasSynced) return;
    this.#hasSynced = true;
    this.#isServed = false;
    for (const handler of this.#handlers) handler.onListed?.();
  }

  /** Applies a watch event. */
  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: SliceObject): void {
    const { uid, name, resourceVersion } = object.metadata;
    this.#progress.observe(resourceVersion);
    const key = sliceReporterKey(object);
    const known = this.slice(key, name);
    if (type === 'DELETED') {
      this.#progress.observeDeletion(uid);
      // The deleted slice is a predecessor of the known one, which came from the response to its creation.
      if (known?.uid !== uid) return;
      this.#remove(key, name);
    } else {
      if (this.#progress.isDeleted(uid)) return;
      if (known !== undefined && this.#progress.isOutdated(resourceVersion, known.resourceVersion)) return;
      this.#put(key, object);
    }
    this.#notify(key, name);
  }

  /** Returns true if a watch event of this version shows an own write; see `TunnelCache.acknowledgeOwnWrite`. */
  acknowledgeOwnWrite(resourceVersion: string): boolean {
    return this.#progress.acknowledgeOwnWrite(resourceVersion);
  }

  /**
   * Applies the response to an own create or patch, or to a read.
   *
   * @param sent the manifest that was created
   */
  applyWrite(object: SliceObject, sent?: SliceManifest): void {
    const { uid, name, resourceVersion } = object.metadata;
    const key = sliceReporterKey(object);
    if (this.#progress.isDeleted(uid)) return;
    if (this.#progress.isOutdated(resourceVersion, this.slice(key, name)?.resourceVersion)) return;
    this.#put(key, object, sent);
    this.#progress.addOwnWrite(resourceVersion);
  }

  /** Applies a response that a slice was deleted, or does not exist. */
  applyDelete({ key, name, uid }: ObservedSlice): void {
    const isKnown = this.slice(key, name)?.uid === uid;
    this.#progress.addDeletion(uid, isKnown);
    if (isKnown) this.#remove(key, name);
  }

  #setMissing(isMissing: boolean): void {
    if (this.#isMissing === isMissing) return;
    this.#isMissing = isMissing;
    this.#installations += 1;
  }

  #notify(key: string, sliceName: string): void {
    for (const handler of this.#handlers) handler.onSliceChanged?.(key, sliceName);
  }

  #entry(key: string, name: string): CacheEntry | undefined {
    return this.#byReporter.get(key)?.byName.get(name);
  }

  #put(key: string, object: SliceObject, sent?: SliceManifest): CacheEntry {
    const { name } = object.metadata;
    let slices = this.#byReporter.get(key);
    const known = slices?.byName.get(name);
    const slice = observeSlice(
      this.#names,
      object,
      (tunnelName) => this.#ledger.tunnel(key, tunnelName) ?? known?.slice.entries.get(tunnelName),
      sent,
    );
    if (slices === undefined) {
      slices = { byName: new Map(), byTunnel: new Map() };
      this.#byReporter.set(key, slices);
    }
    const entry = known ?? { slice: { ...slice, entries: new Map() }, generation: 0, listed: 0 };
    slices.byName.set(name, entry);
    entry.generation = this.#progress.generation;
    if (known === undefined) this.#sliceCount += 1;
    this.#replaceEntries(key, slices, entry, slice);
    return entry;
  }

  #remove(key: string, name: string): void {
    const slices = this.#byReporter.get(key);
    const entry = slices?.byName.get(name);
    if (slices === undefined || entry === undefined) return;
    slices.byName.delete(name);
    this.#sliceCount -= 1;
    if (slices.byName.size === 0) this.#byReporter.delete(key);
    this.#replaceEntries(key, slices, entry, undefined);
  }

  /** Updates the index by tunnel name, and reports each tunnel whose state differs. */
  #replaceEntries(
    key: string,
    slices: ReporterSlices,
    entry: CacheEntry,
    after: ObservedSlice | undefined,
  ): void {
    const { byTunnel } = slices;
    const before = entry.slice;
    const changed: [name: string, view: ObservedTunnel | undefined][] = [];
    const sizeBefore = byTunnel.size;
    for (const name of before.entries.keys()) {
      if (after === undefined || isEntryChanged(before, after, name))
        changed.push([name, viewOf(byTunnel.get(name), name)]);
    }
    for (const name of after?.entries.keys() ?? [])
      if (!before.entries.has(name)) changed.push([name, viewOf(byTunnel.get(name), name)]);
    for (const [name] of changed) {
      if (after?.entries.has(name) !== true) removeFrom(byTunnel, name, entry);
      else if (!before.entries.has(name)) addTo(byTunnel, name, entry);
    }
    if (after !== undefined) entry.slice = after;
    this.#size += byTunnel.size - sizeBefore;
    for (const handler of this.#handlers) handler.onSliceObserved?.(key, before.name, after);
    for (const [name, view] of changed) {
      const now = viewOf(byTunnel.get(name), name);
      if (view === undefined && now === undefined) continue;
      for (const handler of this.#handlers) handler.onTunnelObserved?.(key, view, now);
    }
  }
}

function isEntryChanged(before: ObservedSlice, after: ObservedSlice, name: string): boolean {
  const a = observedEntry(before, name);
  const b = observedEntry(after, name);
  return a === undefined || b === undefined || a.drift !== b.drift || !sameTunnel(a.tunnel, b.tunnel);
}

function sameSlice(a: ObservedSlice, b: ObservedSlice): boolean {
  if (a.uid !== b.uid || a.resourceVersion !== b.resourceVersion || a.drift !== b.drift) return false;
  if (a.entries.size !== b.entries.size) return false;
  for (const name of a.entries.keys()) if (isEntryChanged(a, b, name)) return false;
  return true;
}

function entriesOf(found: CacheEntry | readonly CacheEntry[] | undefined): readonly CacheEntry[] {
  if (found === undefined) return [];
  return 'generation' in found ? [found] : found;
}

/** Returns the tunnel as in the slice that contained it first and that is not being deleted, if there is one. */
function viewOf(
  found: CacheEntry | readonly CacheEntry[] | undefined,
  name: string,
): ObservedTunnel | undefined {
  if (found === undefined) return undefined;
  if ('generation' in found) return observedEntry(found.slice, name);
  const entry = found.find(({ slice }) => (slice.drift & Drift.terminating) === 0) ?? found[0];
  return entry === undefined ? undefined : observedEntry(entry.slice, name);
}

function tunnelOf(found: CacheEntry | readonly CacheEntry[] | undefined, name: string): Tunnel | undefined {
  if (found === undefined) return undefined;
  return 'generation' in found ? found.slice.entries.get(name) : viewOf(found, name)?.tunnel;
}

function addTo(byTunnel: ReporterSlices['byTunnel'], name: string, entry: CacheEntry): void {
  const found = byTunnel.get(name);
  byTunnel.set(name, found === undefined ? entry : [...entriesOf(found), entry]);
}

function removeFrom(byTunnel: ReporterSlices['byTunnel'], name: string, entry: CacheEntry): void {
  const others = entriesOf(byTunnel.get(name)).filter((other) => other !== entry);
  const [first, ...more] = others;
  if (first === undefined) byTunnel.delete(name);
  else byTunnel.set(name, more.length === 0 ? first : others);
}
