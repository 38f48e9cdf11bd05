import { compareResourceVersions } from '../core/kubernetes.ts';

/**
 * Own writes and deletes that the watch has not shown yet. It usually shows them within moments, but not while it is
 * forbidden or its events are invalid; the bound limits the memory. Forgetting one costs the comparison of an event.
 */
const MAX_PENDING_OWN_WRITES = 20_000;

/** When a cached object was last set, as the numbers of lists. */
export interface Stamp {
  /** The list after whose start the object was last set: by that list, an event or an own write. */
  generation: number;
  /** The last list that contained the object. */
  listed: number;
}

/**
 * How far the lists and the watch of one kind have come, and which responses to own writes are ahead of them. A watch
 * event that is older than the known version must be ignored, and a deletion is remembered by uid until the watch has
 * caught up. Only a list replaces objects without comparing versions, because a restored etcd goes back in time.
 */
export class CacheProgress {
  /** Uids of objects whose deletion was answered, but was not shown by the watch yet. */
  readonly #deletedUids = new Set<string>();
  /** Versions from responses to own writes and reads that the watch has not shown yet. */
  readonly #pendingOwnWrites = new Set<string>();
  #latestResourceVersion = '';
  #generation = 0;
  #isListing = false;

  /** The newest version that a list or the watch has shown, which will not show older ones; empty before the first list. */
  get latestResourceVersion(): string {
    return this.#latestResourceVersion;
  }

  /** The number of the list that began last. */
  get generation(): number {
    return this.#generation;
  }

  /** Records that a list has begun. */
  beginList(): void {
    this.#generation += 1;
    this.#isListing = true;
    // The list is read after these deletions were answered, so it does not contain the objects.
    this.#deletedUids.clear();
    this.#pendingOwnWrites.clear();
    this.#latestResourceVersion = '';
  }

  /** Records the version of an object that a list or the watch shows. */
  advance(version: string): void {
    if (compareResourceVersions(version, this.#latestResourceVersion) > 0)
      this.#latestResourceVersion = version;
  }

  /** Returns true if an object was set since the start of the list, and not to an older version than the list has. */
  isAheadOfItem({ generation }: Stamp, knownVersion: string, listedVersion: string): boolean {
    return generation === this.#generation && compareResourceVersions(knownVersion, listedVersion) >= 0;
  }

  /**
   * Records that a list is complete.
   *
   * @param version the resourceVersion of the list
   */
  endList(version: string): void {
    this.#isListing = false;
    this.advance(version);
    // The watch continues from the list and shows nothing older.
    for (const ownVersion of this.#pendingOwnWrites)
      if (compareResourceVersions(ownVersion, version) <= 0) this.#pendingOwnWrites.delete(ownVersion);
  }

  /**
   * Returns true if an object no longer exists according to a complete list. One that was written after the list began,
   * but is not newer than the list, was deleted by another client before the list was read.
   *
   * @param listVersion the resourceVersion of the list
   */
  isGone({ generation, listed }: Stamp, knownVersion: string, listVersion: string): boolean {
    const isNewerThanList =
      generation === this.#generation && compareResourceVersions(knownVersion, listVersion) > 0;
    return !isNewerThanList && listed !== this.#generation;
  }

  /** Records the version of a watch event that is applied. */
  observe(version: string): void {
    this.advance(version);
    this.#pendingOwnWrites.delete(version);
  }

  /** Returns true if a watch event of this version shows an own write. Must be called once per version. */
  acknowledgeOwnWrite(version: string): boolean {
    if (!this.#pendingOwnWrites.delete(version)) return false;
    this.advance(version);
    return true;
  }

  /**
   * Returns true if a watch event shows a deletion that was answered already: the cache does not contain the object.
   *
   * @param version the version of the deletion
   */
  acknowledgeOwnDeletion(uid: string, version: string): boolean {
    if (!this.#deletedUids.delete(uid)) return false;
    this.advance(version);
    return true;
  }

  /** Returns true if the deletion of an object was answered, and not shown by the watch yet. */
  isDeleted(uid: string): boolean {
    return this.#deletedUids.has(uid);
  }

  /** Records that the watch shows a deletion. */
  observeDeletion(uid: string): void {
    this.#deletedUids.delete(uid);
  }

  /**
   * Returns true if the response to an own write shows nothing new: the watch may have been faster, and may have shown a
   * later change by another client. If it is past this version and the object does not exist, that change was its
   * deletion.
   *
   * @param knownVersion the version of the object in the cache; undefined if it does not exist there
   */
  isOutdated(version: string, knownVersion: string | undefined): boolean {
    return compareResourceVersions(knownVersion ?? this.#latestResourceVersion, version) >= 0;
  }

  /** Records a response to an own write that was applied. */
  addOwnWrite(version: string): void {
    if (compareResourceVersions(version, this.#latestResourceVersion) > 0)
      addBounded(this.#pendingOwnWrites, version);
  }

  /**
   * Records a response that an object was deleted. Without a list in progress, an unknown object means that the watch was
   * faster, and there is nothing to remember.
   */
  addDeletion(uid: string, isKnown: boolean): void {
    if (isKnown || this.#isListing) addBounded(this.#deletedUids, uid);
  }
}

/** Adds a value, and removes the oldest one if there are too many. */
function addBounded(values: Set<string>, value: string): void {
  values.add(value);
  if (values.size <= MAX_PENDING_OWN_WRITES) return;
  const [oldest] = values;
  if (oldest !== undefined) values.delete(oldest);
}
