import type { Earlier } from '../core/fold.ts';
import type { Names } from '../core/names.ts';
import { compareResourceVersions } from '../core/resource-version.ts';
import {
  observedRow,
  rowPlace,
  type Row,
  type RowManifest,
  type RowObject,
  type RowPlace,
} from '../core/row.ts';
import { sameTunnel, type Tunnel } from '../core/tunnel.ts';

interface Entry {
  row: Row;
  /** The replacement since whose begin it was last set, by a list, an event or an own write. */
  generation: number;
  /** The replacement whose list held it; what an older one left behind is swept. */
  listed: number;
  /** Another row with the same reporter and tunnel name, made by hand. */
  next: Entry | undefined;
}

/**
 * Own writes and deletions that the watch has yet to show. It shows them within moments; but while it is forbidden, or the
 * lines it brings are not taken, they would be remembered without end. What is forgotten costs a look at an event.
 */
const MOST_AWAITED = 20_000;

/** Told of each change that somebody else may have made, by reporter key and tunnel name. */
export type RowChanged = (key: string, tunnelName: string) => void;

/** Gives the tunnel that the ledger holds under a place, to share its memory. */
export type HeldTunnel = (key: string, tunnelName: string) => Tunnel | undefined;

/**
 * The rows as last seen, indexed by what their spec says: reporter (cluster and id), then tunnel name.
 *
 * Three sources feed it: lists, watch events, and the answers to own writes, which run ahead of the watch. So a watch
 * event older than what is known changes nothing; a deletion is remembered by uid until the watch has caught up; only
 * a relist replaces without comparing versions, since an etcd restored from a backup goes back in time.
 */
export class RowCache {
  readonly #names: Names;
  readonly #changed: RowChanged;
  readonly #held: HeldTunnel;
  readonly #byReporter = new Map<string, Map<string, Entry>>();
  /** Uids of rows whose deletion was answered but not yet seen on the watch. */
  readonly #deletedUids = new Set<string>();
  /** Versions that an own write, or the read after a conflict, has shown and the watch has not yet. */
  readonly #echoes = new Set<string>();
  /** The newest version that the list or the watch has shown: they have told all there is to tell of older ones. */
  #shownVersion = '';
  #generation = 0;
  #replacing = false;
  #hasListed = false;
  #size = 0;

  constructor(names: Names, held: HeldTunnel, changed: RowChanged) {
    this.#names = names;
    this.#held = held;
    this.#changed = changed;
  }

  /** Rows known. */
  get size(): number {
    return this.#size;
  }

  /** True once a whole list has been read. */
  get hasListed(): boolean {
    return this.#hasListed;
  }

  /** The newest version that a list or the watch has shown; "" before the first. */
  get shownVersion(): string {
    return this.#shownVersion;
  }

  /** The rows of one tunnel: none, one, or more where somebody made one by hand. */
  rows(key: string, tunnelName: string): Row[] {
    const rows: Row[] = [];
    for (let entry = this.#byReporter.get(key)?.get(tunnelName); entry !== undefined; entry = entry.next) {
      rows.push(entry.row);
    }
    return rows;
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
  earlier(key: string): Earlier {
    const ofReporter = this.#byReporter.get(key);
    return {
      tunnel: (name) => ofReporter?.get(name)?.row.tunnel,
      *tunnels() {
        for (const entry of ofReporter?.values() ?? []) yield entry.row.tunnel;
      },
    };
  }

  /** A list begins. Until it ends the rows known so far stay. */
  replaceBegin(): void {
    this.#generation += 1;
    this.#replacing = true;
    // The list is read after these deletions were answered, so it does not hold them.
    this.#deletedUids.clear();
    this.#echoes.clear();
    this.#shownVersion = '';
  }

  /** One object of the list, whatever version was known; but not older than an own write since the list began. */
  replaceItem(object: RowObject): void {
    const { uid, name, resourceVersion } = object.metadata;
    this.#shows(resourceVersion);
    if (this.#deletedUids.has(uid)) return;
    const place = rowPlace(object);
    const known = this.#entry(place, name);
    const before = known?.row;
    if (
      known?.generation === this.#generation &&
      compareResourceVersions(known.row.resourceVersion, resourceVersion) >= 0
    ) {
      known.listed = this.#generation;
      return;
    }
    const entry = this.#put(place, object);
    entry.listed = this.#generation;
    // In a restored etcd labels and status may be others at the version that was known; the spec is one for each uid.
    const { drift } = entry.row;
    if (before?.uid !== uid || before.resourceVersion !== resourceVersion || before.drift !== drift) {
      this.#changed(place.key, place.tunnelName);
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
    this.#shows(version);
    // The watch goes on from the list: it shows nothing that is older.
    for (const echo of this.#echoes)
      if (compareResourceVersions(echo, version) <= 0) this.#echoes.delete(echo);
    for (const [key, ofReporter] of this.#byReporter) {
      for (const [tunnelName, first] of ofReporter) {
        for (let entry: Entry | undefined = first; entry !== undefined; entry = entry.next) {
          const since =
            entry.generation === this.#generation &&
            compareResourceVersions(entry.row.resourceVersion, version) > 0;
          if (since || entry.listed === this.#generation) continue;
          this.#remove(key, tunnelName, entry.row.name);
          this.#changed(key, tunnelName);
        }
      }
    }
    this.#hasListed = true;
  }

  /** A watch event. */
  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: RowObject): void {
    const { uid, name, resourceVersion } = object.metadata;
    this.#shows(resourceVersion);
    this.#echoes.delete(resourceVersion);
    const place = rowPlace(object);
    const known = this.#entry(place, name)?.row;
    if (type === 'DELETED') {
      this.#deletedUids.delete(uid);
      // Of an earlier row of that name: the one known is its successor, learnt from the answer to its creation.
      if (known?.uid !== uid) return;
      this.#remove(place.key, place.tunnelName, name);
    } else {
      if (this.#deletedUids.has(uid)) return;
      if (known !== undefined && compareResourceVersions(known.resourceVersion, resourceVersion) >= 0) return;
      this.#put(place, object);
    }
    this.#changed(place.key, place.tunnelName);
  }

  /**
   * A watch event of this version has come; true when it shows what an own write was answered with, so that there is
   * nothing to learn from it and it need not be read. Each version is asked for once.
   */
  takeEcho(resourceVersion: string): boolean {
    if (!this.#echoes.delete(resourceVersion)) return false;
    this.#shows(resourceVersion);
    return true;
  }

  /**
   * What the API server answered to an own create or patch.
   *
   * @param sent what was created
   */
  wrote(object: RowObject, sent?: RowManifest): void {
    const place = rowPlace(object);
    const known = this.#entry(place, object.metadata.name)?.row;
    if (this.#deletedUids.has(object.metadata.uid)) return;
    // The watch may have been quicker, and have shown a later change by somebody else: if it is past this version and
    // the row is not there, that change was its deletion.
    const newest = known?.resourceVersion ?? this.#shownVersion;
    if (compareResourceVersions(newest, object.metadata.resourceVersion) >= 0) return;
    this.#put(place, object, sent);
    if (compareResourceVersions(object.metadata.resourceVersion, this.#shownVersion) > 0) {
      addBounded(this.#echoes, object.metadata.resourceVersion);
    }
  }

  /** The API server answered that a row is deleted, or that it is not there. */
  deleted(key: string, tunnelName: string, row: Row): void {
    let entry = this.#byReporter.get(key)?.get(tunnelName);
    while (entry !== undefined && entry.row.uid !== row.uid) entry = entry.next;
    // Not known any more: the watch was quicker, and there is nothing to remember.
    if (entry === undefined && !this.#replacing) return;
    addBounded(this.#deletedUids, row.uid);
    if (entry !== undefined) this.#remove(key, tunnelName, row.name);
  }

  #shows(version: string): void {
    if (compareResourceVersions(version, this.#shownVersion) > 0) this.#shownVersion = version;
  }

  #entry(place: RowPlace, name: string): Entry | undefined {
    let entry = this.#byReporter.get(place.key)?.get(place.tunnelName);
    while (entry !== undefined && entry.row.name !== name) entry = entry.next;
    return entry;
  }

  #put(place: RowPlace, object: RowObject, sent?: RowManifest): Entry {
    const { key, tunnelName } = place;
    const seen = observedRow(this.#names, object, sent);
    const held = this.#held(key, tunnelName);
    const row = held !== undefined && sameTunnel(held, seen.tunnel) ? { ...seen, tunnel: held } : seen;
    const known = this.#entry(place, row.name);
    if (known !== undefined) {
      known.row = row;
      known.generation = this.#generation;
      return known;
    }
    let ofReporter = this.#byReporter.get(key);
    if (ofReporter === undefined) {
      ofReporter = new Map();
      this.#byReporter.set(key, ofReporter);
    }
    const next = ofReporter.get(row.tunnel.name);
    const entry = { row, generation: this.#generation, listed: 0, next };
    ofReporter.set(row.tunnel.name, entry);
    this.#size += 1;
    return entry;
  }

  #remove(key: string, tunnelName: string, rowName: string): void {
    const ofReporter = this.#byReporter.get(key);
    let before: Entry | undefined;
    let entry = ofReporter?.get(tunnelName);
    while (entry !== undefined && entry.row.name !== rowName) [before, entry] = [entry, entry.next];
    if (ofReporter === undefined || entry === undefined) return;
    this.#size -= 1;
    if (before !== undefined) before.next = entry.next;
    else if (entry.next !== undefined) ofReporter.set(tunnelName, entry.next);
    else ofReporter.delete(tunnelName);
    if (ofReporter.size === 0) this.#byReporter.delete(key);
  }
}

/** Adds one, and drops the one that was added first where there are too many. */
function addBounded(awaited: Set<string>, one: string): void {
  awaited.add(one);
  if (awaited.size <= MOST_AWAITED) return;
  const [oldest] = awaited;
  if (oldest !== undefined) awaited.delete(oldest);
}
