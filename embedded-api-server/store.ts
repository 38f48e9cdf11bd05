import { isDeepStrictEqual } from 'node:util';
import { API_KINDS, isImmutable } from './kinds.ts';
import {
  type ApiServerObject,
  isJsonObject,
  type JsonObject,
  mergePatch,
  metadataOf,
  metadataViolation,
  sortFields,
  updateMetadata,
} from './objects.ts';
import { type ApiPath, type ApiRequest, parseApiPath, parseBody } from './requests.ts';
import * as responses from './responses.ts';
import type { ApiResponse } from './responses.ts';
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
  /** The namespace of all objects. */
  readonly namespace: string;
  /** Returns the time in RFC 3339, without fractions of seconds. */
  readonly now: () => string;
  /** Receives each change, in the order of versions. */
  readonly onChange: (change: ApiChange) => void;
}

/** State of a CRD. */
export type KindState = 'served' | 'terminating' | 'missing';
/** State of the namespace. */
export type NamespaceState = 'active' | 'terminating' | 'missing';

/**
 * The objects of one namespace, with the verified behavior of a real API server: one version counter for all kinds,
 * preconditions, merge patches, the status subresource and its default, immutable specs, finalizers, paged lists
 * from one version, a namespace and CRDs that are deleted and created, and backups that can be restored.
 * `test/integration/api-contract.test.ts` compares it with a real one.
 *
 * Fields are in alphabetical order, as the real one writes them.
 */
export class ApiStore {
  readonly namespace: string;
  readonly #onChange: (change: ApiChange) => void;
  readonly #now: () => string;
  #objects = new Map<string, Map<string, StoredObject>>();
  #version = 95;
  #uids = 0;
  /** Unfinished lists, by continue token. */
  readonly #pages = new Map<string, { readonly version: number; readonly remaining: readonly string[] }>();
  readonly #kinds = new Map<string, KindState>();
  #namespaceState: NamespaceState = 'active';

  constructor({ namespace, now, onChange }: StoreOptions) {
    this.namespace = namespace;
    this.#now = now;
    this.#onChange = onChange;
  }

  get version(): number {
    return this.#version;
  }

  kindState(resource: string): KindState {
    return this.#kinds.get(resource) ?? 'served';
  }

  isServed(resource: string): boolean {
    return this.kindState(resource) !== 'missing';
  }

  setKindState(resource: string, state: KindState): void {
    this.#kinds.set(resource, state);
  }

  /**
   * Changes the namespace from active to terminating to missing and back; a terminating namespace is emptied first.
   */
  setNamespaceState(state: NamespaceState): void {
    const from = this.#namespaceState;
    if ((from === 'missing' && state === 'terminating') || (from === 'active' && state === 'missing')) return;
    if (from === 'terminating' && state !== from)
      for (const resource of this.#objects.keys()) this.deleteAll(resource);
    this.#namespaceState = state;
  }

  /** Iterates over the objects of a kind. */
  *objects(resource: string): Iterable<ApiServerObject> {
    for (const { object } of this.#objects.get(resource)?.values() ?? []) yield object;
  }

  get(resource: string, name: string): ApiServerObject | undefined {
    return this.#objects.get(resource)?.get(name)?.object;
  }

  /** Deletes all objects of a kind and removes their finalizers, as when its CRD or the namespace is deleted. */
  deleteAll(resource: string): void {
    for (const { metadata } of [...this.objects(resource)]) {
      const path = `/apis/group/version/namespaces/${this.namespace}/${resource}/${metadata.name}`;
      if (metadata.finalizers !== undefined) {
        this.handle({ method: 'PATCH', path, body: '{"metadata":{"finalizers":null}}', actor: 'server' });
      }
      if (this.get(resource, metadata.name) !== undefined)
        this.handle({ method: 'DELETE', path, actor: 'server' });
    }
  }

  /** Invalidates the continue tokens of unfinished lists. */
  compact(): void {
    this.#pages.clear();
  }

  /** @param atMs the time of the backup */
  backup(atMs: number): Backup {
    const objects = new Map([...this.#objects].map(([resource, byName]) => [resource, new Map(byName)]));
    return { atMs, version: this.#version, objects };
  }

  /** Restores a backup of etcd; watches do not notice. UIDs are never reused, because real ones are random. */
  restore({ version, objects }: Backup): void {
    this.#objects = new Map([...objects].map(([resource, byName]) => [resource, new Map(byName)]));
    this.#version = version;
    this.#pages.clear();
  }

  handle(request: ApiRequest): ApiResponse {
    const path = parseApiPath(request.path);
    const { resource, name } = path;
    const kind = this.kindState(resource);
    if (kind === 'missing' || !(resource in API_KINDS)) return responses.NO_KIND_MATCH;
    switch (request.method) {
      case 'GET':
        return name === undefined ? this.#list(path) : this.#get(path, name);
      case 'POST':
        return this.#create(path, request);
      case 'PATCH':
        return this.#patch(path, name ?? '', request);
      case 'DELETE':
        return this.#delete(path, name ?? '', request);
    }
  }

  #get({ resource }: ApiPath, name: string): ApiResponse {
    const stored = this.#objects.get(resource)?.get(name);
    return stored === undefined ? responses.notFound(resource, name) : responses.ok(stored.text);
  }

  #list({ resource, query }: ApiPath): ApiResponse {
    const token = query.get('continue');
    let { version, remaining }: { version: number; remaining: readonly string[] } = {
      version: this.#version,
      remaining: [],
    };
    if (token === null) {
      const only = /^metadata\.name=(.*)$/.exec(query.get('fieldSelector') ?? '')?.[1];
      const sorted = [...(this.#objects.get(resource) ?? [])].toSorted(([a], [b]) => (a < b ? -1 : 1));
      remaining = sorted.filter(([name]) => only === undefined || name === only).map(([, { text }]) => text);
    } else {
      const page = this.#pages.get(token);
      if (page === undefined) return responses.expired('The provided continue parameter is too old');
      ({ version, remaining } = page);
    }
    const limit = Number(query.get('limit') ?? remaining.length);
    const nextPage = remaining.slice(limit);
    const next = nextPage.length === 0 ? '' : `${version}-${nextPage.length}-${resource}`;
    if (next !== '') this.#pages.set(next, { version, remaining: nextPage });
    const { kind, apiVersion } = kindOf(resource);
    const metadata = JSON.stringify({ continue: next, resourceVersion: String(version) });
    const items = remaining.slice(0, limit).join(',');
    return responses.ok(
      `{"apiVersion":"${apiVersion}","items":[${items}],"kind":"${kind}List","metadata":${metadata}}`,
    );
  }

  #create({ resource, namespace }: ApiPath, { body, actor }: ApiRequest): ApiResponse {
    const sent = parseBody(body);
    const { name: givenName, generateName, labels, finalizers, resourceVersion } = metadataOf(sent);
    const name = givenName ?? `${generateName ?? ''}${this.#version + 1}`;
    if (this.#namespaceState === 'missing') return responses.missingNamespace(namespace);
    if (this.#namespaceState === 'terminating')
      return responses.namespaceTerminating(resource, name, namespace);
    if (this.kindState(resource) === 'terminating') return responses.kindTerminating(resource, name);
    if (resourceVersion !== undefined) return responses.internalError('resourceVersion should not be set');
    const violation = metadataViolation(name, labels ?? {});
    if (violation !== undefined) return responses.invalid(resource, name, violation);
    const existing = this.get(resource, name);
    if (existing !== undefined) {
      return responses.alreadyExists(resource, name, existing.metadata.deletionTimestamp !== undefined);
    }
    const { kind, apiVersion, defaultStatus } = kindOf(resource);
    this.#uids += 1;
    const object: ApiServerObject = {
      apiVersion,
      kind,
      metadata: {
        creationTimestamp: this.#now(),
        ...(finalizers === undefined || finalizers === null ? {} : { finalizers }),
        ...(labels === undefined ? {} : { labels }),
        name,
        namespace,
        resourceVersion: '',
        uid: `uid-${this.#uids}`,
      },
      spec: isJsonObject(sent['spec']) ? sent['spec'] : {},
      ...(defaultStatus === undefined ? {} : { status: defaultStatus }),
    };
    if (resource === 'events') {
      this.#version += 1;
      return { status: 201, text: JSON.stringify(object), retryAfter: undefined };
    }
    return { ...responses.ok(this.#put('ADDED', resource, object, actor)), status: 201 };
  }

  #patch({ resource, status }: ApiPath, name: string, { body, actor }: ApiRequest): ApiResponse {
    const before = this.get(resource, name);
    if (before === undefined) return responses.notFound(resource, name);
    const sent = parseBody(body);
    const { resourceVersion, labels, finalizers } = metadataOf(sent);
    if (resourceVersion !== undefined && resourceVersion !== before.metadata.resourceVersion) {
      return responses.conflict(resource, name);
    }
    const kind = kindOf(resource);
    let after: ApiServerObject;
    if (status) {
      const merged = sent['status'] === null ? undefined : mergePatch(before.status, sent['status'] ?? {});
      after = { ...before, status: isJsonObject(merged) ? merged : (kind.defaultStatus ?? {}) };
    } else {
      const merged = mergePatch(before.spec, sent['spec'] ?? {});
      const spec = isJsonObject(merged) ? merged : before.spec;
      const labelled = mergePatch(before.metadata.labels ?? {}, labels ?? {}) as JsonObject;
      const violation = metadataViolation(name, labelled);
      if (violation !== undefined) return responses.invalid(resource, name, violation);
      if (isImmutable(kind, before.spec, spec)) {
        return responses.invalid(resource, name, 'spec: Forbidden: immutable');
      }
      after = {
        ...before,
        metadata: updateMetadata(before.metadata, {
          // Null removes the finalizers.
          finalizers: finalizers === undefined ? before.metadata.finalizers : (finalizers ?? []),
          labels: labelled,
        }),
        spec,
      };
    }
    if (isDeepStrictEqual(after, before)) return responses.ok(this.#text(resource, name));
    const isFinalized =
      after.metadata.deletionTimestamp !== undefined && (after.metadata.finalizers ?? []).length === 0;
    if (!isFinalized) return responses.ok(this.#put('MODIFIED', resource, after, actor));
    this.#remove(resource, name, actor);
    return responses.ok(JSON.stringify(after));
  }

  #delete({ resource }: ApiPath, name: string, { body, actor }: ApiRequest): ApiResponse {
    const object = this.get(resource, name);
    if (object === undefined) return responses.notFound(resource, name);
    const { uid, resourceVersion, finalizers, deletionTimestamp } = object.metadata;
    const preconditions = parseBody(body)['preconditions'] as
      { uid?: string; resourceVersion?: string } | undefined;
    if (
      (preconditions?.uid !== undefined && preconditions.uid !== uid) ||
      (preconditions?.resourceVersion !== undefined && preconditions.resourceVersion !== resourceVersion)
    ) {
      return responses.conflict(resource, name);
    }
    if ((finalizers ?? []).length === 0) {
      this.#remove(resource, name, actor);
      return responses.deleted(resource, name, uid);
    }
    if (deletionTimestamp !== undefined) return responses.ok(this.#text(resource, name));
    const metadata = updateMetadata(object.metadata, { deletionTimestamp: this.#now() });
    return responses.ok(this.#put('MODIFIED', resource, { ...object, metadata }, actor));
  }

  #text(resource: string, name: string): string {
    return this.#objects.get(resource)?.get(name)?.text ?? '';
  }

  #put(type: 'ADDED' | 'MODIFIED', resource: string, unversioned: ApiServerObject, by: string): string {
    this.#version += 1;
    const { name } = unversioned.metadata;
    const object = sortFields({
      ...unversioned,
      metadata: { ...unversioned.metadata, resourceVersion: String(this.#version) },
    });
    const text = JSON.stringify(object);
    let byName = this.#objects.get(resource);
    if (byName === undefined) this.#objects.set(resource, (byName = new Map()));
    const before = byName.get(name)?.object;
    byName.set(name, { object, text });
    this.#onChange({ resource, type, version: this.#version, object, text, before, actor: by });
    return text;
  }

  /** The event carries a version of its own for the deletion. */
  #remove(resource: string, name: string, by: string): void {
    const byName = this.#objects.get(resource);
    const before = byName?.get(name)?.object;
    if (byName === undefined || before === undefined) return;
    byName.delete(name);
    this.#version += 1;
    const object = { ...before, metadata: { ...before.metadata, resourceVersion: String(this.#version) } };
    const text = JSON.stringify(object);
    this.#onChange({ resource, type: 'DELETED', version: this.#version, object, text, before, actor: by });
  }
}

function kindOf(resource: string) {
  const kind = API_KINDS[resource];
  if (kind === undefined) throw new Error(`${resource}: not a kind of this store`);
  return kind;
}
