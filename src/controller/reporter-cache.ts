import type { Names } from '../core/names.ts';
import { reporterIdOf, type ReporterObject } from '../core/reporter-object.ts';
import { compareResourceVersions } from '../core/kubernetes.ts';
import { reporterKey } from '../core/tunnel.ts';

export interface ReporterCacheEventHandler {
  /** A reporter object was added, changed or removed; undefined where it does not exist. */
  onReporterObjectChanged?(
    key: string,
    after: ReporterObject | undefined,
    before: ReporterObject | undefined,
  ): void;
  /** A list is complete. */
  onListed?(): void;
}

/**
 * The reporter objects as last seen, by reporter key. Like `TunnelCache` it is filled by lists, by the watch, and by the
 * responses to own writes and reads, which are ahead of the watch. An older version never replaces a newer one, except
 * in a list and in `resetTo`.
 *
 * An object whose name does not match its spec was created manually, and is ignored.
 */
export class ReporterCache {
  readonly #names: Names;
  readonly #handlers: ReporterCacheEventHandler[] = [];
  readonly #byKey = new Map<string, ReporterObject>();
  /** Uids of objects whose deletion is known, but was not shown by the watch yet. */
  readonly #deletedUids = new Set<string>();
  #pendingList: Map<string, ReporterObject> | undefined;
  /** Keys of objects that were written or read since the list began, and may be newer than the list. */
  readonly #sinceListBegan = new Set<string>();
  /** The number of lists that were started, and the number of the last one that was complete. */
  #listsBegun = 0;
  #lastCompleteList = 0;

  constructor(names: Names) {
    this.#names = names;
  }

  addEventHandler(handler: ReporterCacheEventHandler): void {
    this.#handlers.push(handler);
  }

  /** True once a list was complete. */
  get hasSynced(): boolean {
    return this.#lastCompleteList > 0;
  }

  get(key: string): ReporterObject | undefined {
    return this.#byKey.get(key);
  }

  entries(): IterableIterator<[string, ReporterObject]> {
    return this.#byKey.entries();
  }

  /** The number of the next list, for comparison with `completeList`. */
  get nextList(): number {
    return this.#listsBegun + 1;
  }

  /** The number of the last complete list; 0 before the first. */
  get completeList(): number {
    return this.#lastCompleteList;
  }

  replaceBegin(): void {
    this.#listsBegun += 1;
    this.#pendingList = new Map();
    this.#sinceListBegan.clear();
    this.#deletedUids.clear();
  }

  replaceItem(object: ReporterObject): void {
    const key = this.#keyOf(object);
    if (key !== undefined) this.#pendingList?.set(key, withoutManagedFields(object));
  }

  /**
   * Completes a list: removes objects that it did not contain, except those that were written after it was read.
   *
   * @param version the resourceVersion of the list. An object that was written after the list began, but is not newer than
   *   the list, was deleted by another client; the watch continues from this version and never shows that deletion
   */
  replaceEnd(version: string): void {
    const pendingList = this.#pendingList ?? new Map<string, ReporterObject>();
    this.#pendingList = undefined;
    this.#lastCompleteList = this.#listsBegun;
    for (const [key, object] of pendingList) {
      const known = this.#byKey.get(key);
      if (this.#deletedUids.has(object.metadata.uid)) continue;
      if (this.#sinceListBegan.has(key) && known !== undefined && isNewer(known, object)) continue;
      // Versions are not compared: after a restore of etcd an object may differ at the same version.
      if (JSON.stringify(known) !== JSON.stringify(object)) this.#set(key, object);
    }
    for (const [key, { metadata }] of this.#byKey) {
      if (pendingList.has(key)) continue;
      const isNewerThanList =
        this.#sinceListBegan.has(key) && compareResourceVersions(metadata.resourceVersion, version) > 0;
      if (!isNewerThanList) this.#set(key, undefined);
    }
    for (const handler of this.#handlers) handler.onListed?.();
  }

  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: ReporterObject): void {
    const key = this.#keyOf(object);
    if (key === undefined) return;
    const known = this.#byKey.get(key);
    if (type === 'DELETED') {
      this.#deletedUids.delete(object.metadata.uid);
      if (known?.metadata.uid === object.metadata.uid) this.#set(key, undefined);
      return;
    }
    this.#upsertIfNewer(key, object, known);
  }

  /** Adds the response to an own write or read, unless a newer version is known. */
  upsert(object: ReporterObject): void {
    const key = this.#keyOf(object);
    if (key === undefined) return;
    this.#sinceListBegan.add(key);
    this.#upsertIfNewer(key, object, this.#byKey.get(key));
  }

  /** Replaces an object with an older version: etcd was restored. */
  resetTo(object: ReporterObject): void {
    const key = this.#keyOf(object);
    if (key !== undefined) this.#set(key, withoutManagedFields(object));
  }

  /** Removes an object that does not exist according to the API server. */
  remove(key: string): void {
    const known = this.#byKey.get(key);
    if (known === undefined) return;
    this.#deletedUids.add(known.metadata.uid);
    this.#sinceListBegan.delete(key);
    this.#set(key, undefined);
  }

  #upsertIfNewer(key: string, object: ReporterObject, known: ReporterObject | undefined): void {
    if (this.#deletedUids.has(object.metadata.uid)) return;
    if (known !== undefined && !isNewer(object, known)) return;
    this.#set(key, withoutManagedFields(object));
  }

  #set(key: string, object: ReporterObject | undefined): void {
    const before = this.#byKey.get(key);
    if (object === undefined) this.#byKey.delete(key);
    else this.#byKey.set(key, object);
    if (before === object) return;
    for (const handler of this.#handlers) handler.onReporterObjectChanged?.(key, object, before);
  }

  #keyOf(object: ReporterObject): string | undefined {
    const reporter = reporterIdOf(object);
    return object.metadata.name === this.#names.reporterObjectName(reporter)
      ? reporterKey(reporter)
      : undefined;
  }
}

function isNewer(a: ReporterObject, b: ReporterObject): boolean {
  return compareResourceVersions(a.metadata.resourceVersion, b.metadata.resourceVersion) > 0;
}

/** Returns the parts of an object that are used. The others, such as managedFields, take most of its memory. */
function withoutManagedFields({ metadata, spec, status }: ReporterObject): ReporterObject {
  const { name, uid, resourceVersion, deletionTimestamp } = metadata;
  return {
    metadata: {
      name,
      uid,
      resourceVersion,
      ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
    },
    spec: { id: spec.id, cluster: spec.cluster },
    ...(status === undefined ? {} : { status }),
  };
}
