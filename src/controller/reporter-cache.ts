import type { Names } from '../core/names.ts';
import { reporterIdOf, type ReporterObject } from '../core/reporter-object.ts';
import { compareResourceVersions } from '../core/kubernetes.ts';
import { reporterKey } from '../core/tunnel.ts';

/** Told of each change of what is known of a reporter's object; either side undefined when there is none. */
export type ReporterChangeHandler = (
  key: string,
  after: ReporterObject | undefined,
  before: ReporterObject | undefined,
) => void;

/**
 * The reporters' objects as last seen, by reporter key. Fed as the rows' cache is: by lists and the watch, and by answers
 * to own writes and reads, which run ahead of the watch. An older version never replaces a newer one, but
 * for a list and `restored`.
 *
 * An object under a name that its spec does not derive is somebody's own and counts for nothing.
 */
export class ReporterCache {
  readonly #names: Names;
  readonly #onChange: ReporterChangeHandler;
  readonly #byKey = new Map<string, ReporterObject>();
  /** Uids of objects whose deletion is known though the watch has not told it. */
  readonly #deletedUids = new Set<string>();
  #pendingList: Map<string, ReporterObject> | undefined;
  /** Written or read since the list began: the list may be older than these. */
  readonly #sinceListBegan = new Set<string>();
  /** Lists that have begun; and the number of the last one that was complete. */
  #listsBegun = 0;
  #lastCompleteList = 0;
  /** Called after each complete list. */
  onListed: () => void = () => {};

  constructor(names: Names, onChange: ReporterChangeHandler) {
    this.#names = names;
    this.#onChange = onChange;
  }

  get(key: string): ReporterObject | undefined {
    return this.#byKey.get(key);
  }

  entries(): IterableIterator<[string, ReporterObject]> {
    return this.#byKey.entries();
  }

  /** The number that the next list to begin will have, to be compared with `completeList`. */
  get nextList(): number {
    return this.#listsBegun + 1;
  }

  /** The number of the last list that was handed over whole. */
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
   * The list is complete: what it did not hold is gone, but for what was written after it was read.
   *
   * @param version the list's own, which tells that from what was written while the list was on its way, and deleted by
   *   somebody before it was read: the watch goes on from this version and never shows the deletion
   */
  replaceEnd(version: string): void {
    const pendingList = this.#pendingList ?? new Map<string, ReporterObject>();
    this.#pendingList = undefined;
    this.#lastCompleteList = this.#listsBegun;
    for (const [key, object] of pendingList) {
      const known = this.#byKey.get(key);
      if (this.#deletedUids.has(object.metadata.uid)) continue;
      if (this.#sinceListBegan.has(key) && known !== undefined && isNewer(known, object)) continue;
      // Not by its version: in a restored etcd an object may be another at the version that was known.
      if (JSON.stringify(known) !== JSON.stringify(object)) this.#set(key, object);
    }
    for (const [key, { metadata }] of this.#byKey) {
      if (pendingList.has(key)) continue;
      const isNewerThanList =
        this.#sinceListBegan.has(key) && compareResourceVersions(metadata.resourceVersion, version) > 0;
      if (!isNewerThanList) this.#set(key, undefined);
    }
    this.onListed();
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

  /** What the API server answered to an own write or read. */
  upsert(object: ReporterObject): void {
    const key = this.#keyOf(object);
    if (key === undefined) return;
    this.#sinceListBegan.add(key);
    this.#upsertIfNewer(key, object, this.#byKey.get(key));
  }

  /** What a read has shown that was sent when a newer version was known: etcd was restored, and goes on from here. */
  resetTo(object: ReporterObject): void {
    const key = this.#keyOf(object);
    if (key !== undefined) this.#set(key, withoutManagedFields(object));
  }

  /** The API server answered that there is no such object (any more). */
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
    if (before !== object) this.#onChange(key, object, before);
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

/** Without managedFields and the like, which are most of an object. */
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
