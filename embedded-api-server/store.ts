import { isDeepStrictEqual } from 'node:util';
import type { ApiKind } from './api-kind.ts';
import { API_KINDS, kindOfCrd } from './kinds.ts';
import {
  checkObject,
  CRDS,
  incrementGeneration,
  newObject,
  updatedObject,
  type Write,
} from './object-content.ts';
import {
  type ApiServerObject,
  isJsonObject,
  type JsonObject,
  mergePatch,
  metadataOf,
  sortFields,
} from './objects.ts';
import { ListPages } from './list-pages.ts';
import { type ApiPath, type ApiRequest, parseApiPath, parseBody } from './requests.ts';
import * as responses from './responses.ts';
import type { ApiResponse } from './responses.ts';
import { parseFieldSelector, parseLabelSelector, type Selector, SelectorError } from './selectors.ts';
import type { ApiChange } from './watch-cache.ts';

interface StoredObject {
  readonly object: ApiServerObject;
  readonly text: string;
}

/** The content of a store at one time. */
export interface Backup {
  readonly atMs: number;
  readonly version: number;
  readonly objects: ReadonlyMap<string, ReadonlyMap<string, StoredObject>>;
}

/** What a store needs. */
export interface StoreOptions {
  /** A namespace that exists from the start; the default of `get`. */
  readonly namespace: string;
  /** Returns the time in RFC 3339, without fractions of seconds. */
  readonly now: () => string;
  /** Receives each change, in the order of versions. */
  readonly onChange: (change: ApiChange) => void;
  /** Returns a new uid. Default: a counter, so that runs can be repeated. */
  readonly createUid?: () => string;
}

/** State of a CRD. */
export type KindState = 'served' | 'terminating' | 'missing';
/** State of a namespace. */
export type NamespaceState = 'active' | 'terminating' | 'missing';

/** The API server keeps Events for an hour; this is more than the operator records in that time. */
const MAX_EVENTS = 1000;
const NAMESPACES = 'namespaces';

/**
 * The objects of an API server, with the verified behavior of a real one: one version counter for all kinds,
 * schemas with defaults and validation, preconditions, merge patches, the status subresource, finalizers, selectors,
 * paged lists from one version, namespaces and CRDs that are deleted and created, and backups that can be restored.
 * `test/integration/api-contract.test.ts` compares it with a real one. It does not record managed fields.
 *
 * Fields are in alphabetical order, as the real one writes those of custom objects.
 */
export class ApiStore {
  readonly namespace: string;
  readonly #onChange: (change: ApiChange) => void;
  readonly #now: () => string;
  readonly #createUid: () => string;
  #objects = new Map<string, Map<string, StoredObject>>();
  /**
   * Objects that were not written since they were created. A create stores no status, and reads add its defaults; so the
   * first write that follows changes what is stored, even if it changes nothing else.
   */
  readonly #withoutStoredStatus = new WeakSet<ApiServerObject>();
  #version = 95;
  #uids = 0;
  readonly #pages = new ListPages();
  readonly #kinds = new Map<string, ApiKind>(Object.entries(API_KINDS));
  readonly #kindStates = new Map<string, KindState>();
  readonly #namespaceStates = new Map<string, NamespaceState>();

  constructor({ namespace, now, onChange, createUid }: StoreOptions) {
    this.namespace = namespace;
    this.#now = now;
    this.#onChange = onChange;
    this.#createUid = createUid ?? (() => `uid-${(this.#uids += 1)}`);
    this.#namespaceStates.set(namespace, 'active');
  }

  get version(): number {
    return this.#version;
  }

  /** The kinds that are served. */
  get kinds(): Iterable<ApiKind> {
    return [...this.#kinds.values()].filter(({ plural }) => this.isServed(plural));
  }

  /** Returns the kind of a path; undefined if it is not served. */
  kindAt({ resource, group, version }: Pick<ApiPath, 'resource' | 'group' | 'version'>): ApiKind | undefined {
    const kind = this.#kinds.get(resource);
    return kind?.group === group && kind.version === version && this.isServed(resource) ? kind : undefined;
  }

  kindState(resource: string): KindState {
    return this.#kindStates.get(resource) ?? 'served';
  }

  isServed(resource: string): boolean {
    return this.kindState(resource) !== 'missing';
  }

  setKindState(resource: string, state: KindState): void {
    this.#kindStates.set(resource, state);
  }

  /**
   * Changes a namespace from active to terminating to missing and back, without an object for it; a terminating
   * namespace is emptied first.
   */
  setNamespaceState(state: NamespaceState, namespace = this.namespace): void {
    const from = this.#namespaceState(namespace);
    if ((from === 'missing' && state === 'terminating') || (from === 'active' && state === 'missing')) return;
    if (from === 'terminating' && state !== from)
      for (const resource of this.#objects.keys()) this.deleteAll(resource, namespace);
    this.#namespaceStates.set(namespace, state);
  }

  /** Iterates over the objects of a kind in all namespaces. */
  *objects(resource: string): Iterable<ApiServerObject> {
    for (const { object } of this.#objects.get(resource)?.values() ?? []) yield object;
  }

  get(
    resource: string,
    name: string,
    namespace: string | undefined = this.namespace,
  ): ApiServerObject | undefined {
    return this.#objects.get(resource)?.get(keyOf(this.#kinds.get(resource), namespace, name))?.object;
  }

  /**
   * Deletes all objects of a kind in one or all namespaces and removes their finalizers, as when its CRD or the
   * namespace is deleted.
   */
  deleteAll(resource: string, namespace?: string): void {
    for (const { apiVersion, metadata } of [...this.objects(resource)]) {
      if (namespace !== undefined && metadata.namespace !== namespace) continue;
      const scope = metadata.namespace === undefined ? '' : `/namespaces/${metadata.namespace}`;
      const root = apiVersion.includes('/') ? '/apis' : '/api';
      const path = `${root}/${apiVersion}${scope}/${resource}/${metadata.name}`;
      if (metadata.finalizers !== undefined) {
        this.handle({ method: 'PATCH', path, body: '{"metadata":{"finalizers":null}}', actor: 'server' });
      }
      if (this.get(resource, metadata.name, metadata.namespace) !== undefined)
        this.handle({ method: 'DELETE', path, actor: 'server' });
    }
  }

  /** Invalidates the continue tokens of unfinished lists. */
  compact(): void {
    this.#pages.clear();
  }

  /** @param atMs the time of the backup */
  backup(atMs: number): Backup {
    const objects = new Map([...this.#objects].map(([resource, byKey]) => [resource, new Map(byKey)]));
    return { atMs, version: this.#version, objects };
  }

  /** Restores a backup of etcd; watches do not notice. UIDs are never reused, because real ones are random. */
  restore({ version, objects }: Backup): void {
    this.#objects = new Map([...objects].map(([resource, byKey]) => [resource, new Map(byKey)]));
    this.#version = version;
    this.#pages.clear();
  }

  handle(request: ApiRequest): ApiResponse {
    const path = parseApiPath(request.path);
    const { name, query } = path;
    const kind = this.kindAt(path);
    if (kind === undefined || (path.status && !kind.hasStatus)) return responses.NO_KIND_MATCH;
    const { method, actor } = request;
    const write = { method, kind, path, actor, dryRun: query.has('dryRun') };
    try {
      switch (method) {
        case 'GET':
          return name === undefined ? this.#list(kind, path) : this.#get(kind, path, name);
        case 'POST':
          return name === undefined
            ? this.#create(write, parseBody(request.body))
            : responses.methodNotAllowed();
        case 'PUT':
        case 'PATCH':
          return name === undefined
            ? responses.methodNotAllowed()
            : this.#update(write, name, parseBody(request.body));
        case 'DELETE':
          return name === undefined
            ? this.#deleteCollection(write)
            : this.#delete(write, name, parseBody(request.body));
      }
    } catch (error) {
      if (error instanceof SelectorError || error instanceof SyntaxError)
        return responses.badRequest(error.message);
      throw error;
    }
  }

  /**
   * Returns what a list or watch selects.
   *
   * @throws SelectorError if a selector is not valid
   */
  selectorFor(kind: ApiKind, { namespace, name, query }: ApiPath): Selector {
    const byLabel = parseLabelSelector(query.get('labelSelector') ?? '');
    const byField = parseFieldSelector(query.get('fieldSelector') ?? '', kind);
    return (object) =>
      (namespace === undefined || !kind.namespaced || object.metadata.namespace === namespace) &&
      (name === undefined || object.metadata.name === name) &&
      byLabel(object) &&
      byField(object);
  }

  /** Returns the selected objects with their texts, in the order of their keys. */
  select(kind: ApiKind, selector: Selector): readonly StoredObject[] {
    return [...(this.#objects.get(kind.plural) ?? [])]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([, stored]) => (selector(stored.object) ? [stored] : []));
  }

  #namespaceState(namespace: string): NamespaceState {
    return this.#namespaceStates.get(namespace) ?? 'missing';
  }

  #get(kind: ApiKind, { namespace }: ApiPath, name: string): ApiResponse {
    const stored = this.#objects.get(kind.plural)?.get(keyOf(kind, namespace, name));
    return stored === undefined ? responses.notFound(kind, name) : responses.ok(stored.text);
  }

  #list(kind: ApiKind, path: ApiPath): ApiResponse {
    const { query } = path;
    const token = query.get('continue') ?? '';
    const page =
      token === ''
        ? this.#pages.first(
            this.#version,
            this.select(kind, this.selectorFor(kind, path)).map(({ text }) => text),
            Number(query.get('limit') ?? 0),
          )
        : this.#pages.next(token, Number(query.get('limit') ?? 0));
    if (page === undefined) return responses.expired('The provided continue parameter is too old');
    const isFiltered = (query.get('labelSelector') ?? query.get('fieldSelector') ?? '') !== '';
    const metadata = JSON.stringify({
      continue: page.token,
      // The real one counts the rest only without a selector.
      ...(page.remaining === 0 || isFiltered ? {} : { remainingItemCount: page.remaining }),
      resourceVersion: String(page.version),
    });
    return responses.ok(
      `{"apiVersion":"${kind.apiVersion}","items":[${page.items.join(',')}],"kind":"${kind.kind}List","metadata":${metadata}}`,
    );
  }

  #create(write: Write, sent: JsonObject): ApiResponse {
    const { kind, path } = write;
    const metadata = metadataOf(sent);
    const namespace = kind.namespaced ? (path.namespace ?? metadata.namespace ?? '') : undefined;
    const name = metadata.name ?? `${metadata.generateName ?? ''}${this.#version + 1}`;
    if (namespace !== undefined) {
      const state = this.#namespaceState(namespace);
      if (state === 'missing') return responses.missingNamespace(namespace);
      if (state === 'terminating') return responses.namespaceTerminating(kind, name, namespace);
    }
    if (this.kindState(kind.plural) === 'terminating') return responses.kindTerminating(kind, name);
    if ((metadata.resourceVersion ?? '') !== '')
      return responses.internalError('resourceVersion should not be set on objects to be created');
    const object = newObject(write, sent, {
      creationTimestamp: this.#now(),
      name,
      ...(namespace === undefined ? {} : { namespace }),
      resourceVersion: '',
      uid: this.#createUid(),
    });
    const checked = checkObject(write, object, undefined);
    if (!('object' in checked)) return checked;
    const existing = this.get(kind.plural, name, namespace);
    if (existing !== undefined) {
      return responses.alreadyExists(kind, name, existing.metadata.deletionTimestamp !== undefined);
    }
    const rejection = this.#onCreate(write, checked.object);
    if (rejection !== undefined) return rejection;
    const text = this.#put('ADDED', write, checked.object);
    const created = this.get(kind.plural, name, namespace);
    if (kind.isCustom && kind.hasStatus && created?.status !== undefined)
      this.#withoutStoredStatus.add(created);
    return { ...responses.ok(text), status: 201 };
  }

  /** Executes a PUT, which replaces the object, or a merge patch. */
  #update(write: Write, name: string, sent: JsonObject): ApiResponse {
    const { kind, path, method } = write;
    const before = this.get(kind.plural, name, path.namespace);
    if (before === undefined) return responses.notFound(kind, name);
    const { resourceVersion } = metadataOf(sent);
    if (
      resourceVersion !== undefined &&
      resourceVersion !== null &&
      resourceVersion !== before.metadata.resourceVersion
    ) {
      return responses.conflict(kind, name);
    }
    if (method === 'PUT' && kind.isCustom && (resourceVersion ?? '') === '')
      return responses.missingVersion(kind, name);
    const merged = (method === 'PUT' ? sent : mergePatch(before, sent)) as JsonObject;
    const content = updatedObject(write, before, merged);
    const checked = checkObject(write, content, before);
    if (!('object' in checked)) return checked;
    const { object } = checked;
    if (isDeepStrictEqual(object, before) && !this.#withoutStoredStatus.has(before))
      return responses.ok(this.#text(kind, before));
    const after = incrementGeneration(object, before);
    const { deletionTimestamp, finalizers = [] } = after.metadata;
    if (deletionTimestamp === undefined || finalizers.length > 0) {
      const text = this.#put('MODIFIED', write, after);
      if (kind.plural === CRDS) this.#serve(after);
      return responses.ok(text);
    }
    this.#remove(write, after);
    return responses.ok(JSON.stringify(after));
  }

  #delete(write: Write, name: string, { preconditions }: JsonObject): ApiResponse {
    const { kind, path } = write;
    const object = this.get(kind.plural, name, path.namespace);
    if (object === undefined) return responses.notFound(kind, name);
    const { uid, resourceVersion, finalizers = [], deletionTimestamp, generation } = object.metadata;
    const expected = isJsonObject(preconditions) ? preconditions : {};
    if (typeof expected['uid'] === 'string' && expected['uid'] !== uid)
      return responses.preconditionFailed(kind, name, 'UID', [expected['uid'], uid]);
    if (typeof expected['resourceVersion'] === 'string' && expected['resourceVersion'] !== resourceVersion)
      return responses.preconditionFailed(kind, name, 'ResourceVersion', [
        expected['resourceVersion'],
        resourceVersion,
      ]);
    if (write.dryRun) return responses.deleted(kind, name, uid);
    if (finalizers.length === 0) {
      this.#remove(write, object);
      return responses.deleted(kind, name, uid);
    }
    if (deletionTimestamp !== undefined) return responses.ok(this.#text(kind, object));
    const metadata = {
      ...object.metadata,
      deletionGracePeriodSeconds: 0,
      deletionTimestamp: this.#now(),
      ...(generation === undefined ? {} : { generation: generation + 1 }),
    };
    return responses.ok(this.#put('MODIFIED', write, { ...object, metadata }));
  }

  #deleteCollection(write: Write): ApiResponse {
    const { kind, path } = write;
    const selected = this.select(kind, this.selectorFor(kind, path));
    for (const { object } of selected) {
      const { name, namespace } = object.metadata;
      this.#delete({ ...write, path: { ...path, name, namespace } }, name, {});
    }
    const items = selected.map(({ text }) => text).join(',');
    const metadata = `{"continue":"","resourceVersion":"${this.#version}"}`;
    return responses.ok(
      `{"apiVersion":"${kind.apiVersion}","items":[${items}],"kind":"${kind.kind}List","metadata":${metadata}}`,
    );
  }

  #text({ plural }: ApiKind, { metadata }: ApiServerObject): string {
    const key = keyOf(this.#kinds.get(plural), metadata.namespace, metadata.name);
    return this.#objects.get(plural)?.get(key)?.text ?? '';
  }

  #put(type: 'ADDED' | 'MODIFIED', write: Write, unversioned: ApiServerObject): string {
    const { kind, actor, dryRun } = write;
    if (dryRun) {
      const { resourceVersion, ...metadata } = unversioned.metadata;
      const shown = resourceVersion === '' ? metadata : unversioned.metadata;
      return JSON.stringify(sortFields({ ...unversioned, metadata: shown }));
    }
    this.#version += 1;
    const object = sortFields({
      ...unversioned,
      metadata: { ...unversioned.metadata, resourceVersion: String(this.#version) },
    });
    const text = JSON.stringify(object);
    const resource = kind.plural;
    let byKey = this.#objects.get(resource);
    if (byKey === undefined) this.#objects.set(resource, (byKey = new Map()));
    const key = keyOf(kind, object.metadata.namespace, object.metadata.name);
    const before = byKey.get(key)?.object;
    byKey.set(key, { object, text });
    this.#onChange({ resource, type, version: this.#version, object, text, before, actor });
    const [oldest] = byKey.values();
    if (resource === 'events' && byKey.size > MAX_EVENTS && oldest !== undefined)
      this.#remove(write, oldest.object);
    return text;
  }

  /** The event carries a version of its own for the deletion. */
  #remove({ kind, actor }: Write, { metadata: { name, namespace } }: ApiServerObject): void {
    const resource = kind.plural;
    const byKey = this.#objects.get(resource);
    const key = keyOf(kind, namespace, name);
    const before = byKey?.get(key)?.object;
    if (byKey === undefined || before === undefined) return;
    byKey.delete(key);
    this.#version += 1;
    const object = { ...before, metadata: { ...before.metadata, resourceVersion: String(this.#version) } };
    const text = JSON.stringify(object);
    this.#onChange({ resource, type: 'DELETED', version: this.#version, object, text, before, actor });
    this.#onRemove(resource, before);
  }

  /** Applies what the object of a namespace or a CRD stands for; returns a response if that is not possible. */
  #onCreate({ kind, dryRun }: Write, object: ApiServerObject): ApiResponse | undefined {
    if (dryRun) return undefined;
    const { name } = object.metadata;
    if (kind.plural === NAMESPACES) this.#namespaceStates.set(name, 'active');
    if (kind.plural !== CRDS) return undefined;
    const message = this.#serve(object);
    if (message === undefined) return undefined;
    return responses.invalid(kind, name, [
      { reason: 'FieldValueInvalid', message: `Invalid value: ${message}`, field: 'spec' },
    ]);
  }

  /** Removes what a deleted namespace or CRD contains. */
  #onRemove(resource: string, { spec, metadata: { name } }: ApiServerObject): void {
    if (resource === NAMESPACES) {
      this.#namespaceStates.set(name, 'terminating');
      this.setNamespaceState('missing', name);
    } else if (resource === CRDS) {
      const { plural } = spec['names'] as { plural: string };
      this.deleteAll(plural);
      this.#kinds.delete(plural);
    }
  }

  /** Serves the kind of a CRD; returns why that is not possible. */
  #serve(crd: ApiServerObject): string | undefined {
    try {
      const kind = kindOfCrd(crd);
      const existing = this.#kinds.get(kind.plural);
      if (existing !== undefined && existing.group !== kind.group)
        return `${kind.plural} exists in the group ${existing.group}; this API server needs distinct plurals`;
      this.#kinds.set(kind.plural, kind);
      return undefined;
    } catch (error) {
      return (error as Error).message;
    }
  }
}

function keyOf(kind: ApiKind | undefined, namespace: string | undefined, name: string): string {
  return kind?.namespaced === false || namespace === undefined ? name : `${namespace}/${name}`;
}
