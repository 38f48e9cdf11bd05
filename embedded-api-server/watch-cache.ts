import type { ApiServerObject } from './objects.ts';
import { expired } from './responses.ts';

/** A change, as watches report it. */
export interface ApiChange {
  readonly resource: string;
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly version: number;
  readonly object: ApiServerObject;
  /** The object as JSON. */
  readonly text: string;
  readonly before: ApiServerObject | undefined;
  readonly actor: string;
}

/** An open watch as the server sees it. */
export interface OpenWatch {
  readonly resource: string;
  /** Only newer versions are sent. */
  fromVersion: number;
  /** Sends one line of the stream, without its line feed. */
  readonly sendLine: (text: string) => void;
  /** Selects objects; an object that is no longer selected is reported as deleted. Default: all. */
  readonly selects?: (object: ApiServerObject) => boolean;
  /** Returns an object as it is sent, given its JSON. Default: that JSON. */
  readonly encode?: (object: ApiServerObject, text: string) => string;
}

/** Number of changes that a watch can start from. */
const MAX_CACHED_CHANGES = 4096;

/**
 * The latest changes of a store, and the watches that receive the next ones. It has no clock: bookmarks are sent, and
 * watches end, when the caller decides.
 */
export class WatchCache<W extends OpenWatch = OpenWatch> {
  readonly #watches = new Set<W>();
  #changes: ApiChange[] = [];
  /** A watch from an older version is answered 410. */
  #oldestVersion: number;

  /** @param version the current version of the store */
  constructor(version: number) {
    this.#oldestVersion = version;
  }

  /** The watches that receive changes. */
  get watches(): ReadonlySet<W> {
    return this.#watches;
  }

  /** Sends a change to the watches and keeps it for watches that start later. */
  onChange(change: ApiChange): void {
    this.#changes.push(change);
    if (this.#changes.length > MAX_CACHED_CHANGES) {
      const removed = this.#changes.splice(0, MAX_CACHED_CHANGES / 2);
      this.#oldestVersion = Math.max(this.#oldestVersion, removed.at(-1)?.version ?? 0);
    }
    for (const watch of this.#watches) sendChange(watch, change);
  }

  /** Removes all changes; watches from versions before `version` are answered 410. */
  clear(version: number): void {
    this.#changes = [];
    this.#oldestVersion = version;
  }

  /** Adds a watch, which receives the next changes. */
  add(watch: W): void {
    this.#watches.add(watch);
  }

  /** Removes a watch; returns false if it was removed before. */
  remove(watch: W): boolean {
    return this.#watches.delete(watch);
  }

  /**
   * Sends the changes since the watch's version. Returns false if they are no longer known: the watch was sent the
   * error event with status 410, and must be ended.
   */
  replay(watch: W): boolean {
    const { fromVersion } = watch;
    if (fromVersion < this.#oldestVersion) {
      const { text } = expired(`too old resource version: ${fromVersion} (${this.#oldestVersion})`);
      watch.sendLine(`{"type":"ERROR","object":${text}}`);
      return false;
    }
    for (const change of this.#changes) sendChange(watch, change);
    return true;
  }

  /**
   * Sends a bookmark with the current version, unless the watch starts from a version in the future.
   *
   * @param content further fields of the bookmark's object
   */
  sendBookmark(watch: W, version: number, content: object = {}): void {
    if (version < watch.fromVersion) return;
    watch.fromVersion = version;
    const object = { ...content, metadata: { ...metadataIn(content), resourceVersion: String(version) } };
    watch.sendLine(JSON.stringify({ type: 'BOOKMARK', object }));
  }
}

function metadataIn(content: { readonly metadata?: object }): object {
  return content.metadata ?? {};
}

function sendChange(watch: OpenWatch, change: ApiChange): void {
  const { resource, version, type, object, text, before } = change;
  if (watch.resource !== resource || version <= watch.fromVersion) return;
  watch.fromVersion = version;
  const { selects = () => true, encode = (_object, encoded) => encoded } = watch;
  const isSelected = type !== 'DELETED' && selects(object);
  const wasSelected = before !== undefined && selects(before);
  if (isSelected) {
    watch.sendLine(`{"type":"${wasSelected ? 'MODIFIED' : 'ADDED'}","object":${encode(object, text)}}`);
  } else if (wasSelected) {
    // The last selected state, with the version of the change.
    const metadata = { ...before.metadata, resourceVersion: String(version) };
    const last = { ...before, metadata };
    watch.sendLine(`{"type":"DELETED","object":${encode(last, JSON.stringify(last))}}`);
  }
}
