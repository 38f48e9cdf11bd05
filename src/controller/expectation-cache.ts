import type { ExpectationObject } from '../core/expectation-object.ts';
import { compareResourceVersions } from '../core/kubernetes.ts';

export interface ExpectationCacheEventHandler {
  /** An expectation was added, changed or removed. */
  onExpectationChanged(name: string): void;
}

/**
 * The expectations as last seen, by name. It is filled by lists, by the watch, and by the responses to own writes, which
 * are ahead of the watch. An older version never replaces a newer one, except in a list: etcd may have been restored.
 */
export class ExpectationCache {
  readonly #handlers: ExpectationCacheEventHandler[] = [];
  readonly #byName = new Map<string, ExpectationObject>();
  #listed: Map<string, ExpectationObject> | undefined;
  /** Names of expectations that were written since the list began, and may be newer than the list. */
  readonly #sinceListBegan = new Set<string>();
  #hasSynced = false;

  addEventHandler(handler: ExpectationCacheEventHandler): void {
    this.#handlers.push(handler);
  }

  /** True once a list was complete. */
  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  get size(): number {
    return this.#byName.size;
  }

  get(name: string): ExpectationObject | undefined {
    return this.#byName.get(name);
  }

  names(): Iterable<string> {
    return this.#byName.keys();
  }

  replaceBegin(): void {
    this.#listed = new Map();
    this.#sinceListBegan.clear();
  }

  replaceItem(object: ExpectationObject): void {
    this.#listed?.set(object.metadata.name, withoutManagedFields(object));
  }

  replaceEnd(): void {
    const listed = this.#listed ?? new Map<string, ExpectationObject>();
    this.#listed = undefined;
    this.#hasSynced = true;
    for (const [name, object] of listed) {
      const known = this.#byName.get(name);
      const isOwnNewer = known !== undefined && this.#sinceListBegan.has(name) && isNewer(known, object);
      // Versions are not compared: after a restore of etcd, an object may differ at the same version.
      if (!isOwnNewer && JSON.stringify(known) !== JSON.stringify(object)) this.#set(name, object);
    }
    for (const name of this.#byName.keys()) if (!listed.has(name)) this.#set(name, undefined);
  }

  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: ExpectationObject): void {
    const { name, uid } = object.metadata;
    const known = this.#byName.get(name);
    if (type === 'DELETED') {
      if (known?.metadata.uid === uid) this.#set(name, undefined);
    } else if (known?.metadata.uid !== uid || isNewer(object, known)) {
      this.#set(name, withoutManagedFields(object));
    }
  }

  /** Applies the response to an own write, unless the object was deleted or changed in the meantime. */
  applyWrite(object: ExpectationObject): void {
    const { name, uid } = object.metadata;
    const known = this.#byName.get(name);
    if (known?.metadata.uid !== uid || !isNewer(object, known)) return;
    this.#sinceListBegan.add(name);
    this.#set(name, withoutManagedFields(object));
  }

  /** Stores an object. A spec that has not changed stays the same object, so that it need not be parsed again. */
  #set(name: string, object: ExpectationObject | undefined): void {
    const spec = this.#byName.get(name)?.spec;
    if (object === undefined) this.#byName.delete(name);
    else if (JSON.stringify(spec) === JSON.stringify(object.spec))
      this.#byName.set(name, { ...object, spec: spec ?? object.spec });
    else this.#byName.set(name, object);
    for (const handler of this.#handlers) handler.onExpectationChanged(name);
  }
}

function isNewer(a: ExpectationObject, b: ExpectationObject): boolean {
  return compareResourceVersions(a.metadata.resourceVersion, b.metadata.resourceVersion) > 0;
}

/** Returns the parts of an object that are used. The others, such as managedFields, take most of its memory. */
function withoutManagedFields({ metadata, spec, status }: ExpectationObject): ExpectationObject {
  const { name, uid, resourceVersion, generation } = metadata;
  return {
    metadata: { name, uid, resourceVersion, generation },
    spec,
    ...(status === undefined ? {} : { status }),
  };
}
