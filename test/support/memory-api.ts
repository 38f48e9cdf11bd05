/** The embedded API server behind the interfaces of the controllers, without HTTP. */
import { mergePatch, type ApiServerObject, type JsonObject } from '../../embedded-api-server/objects.ts';
import { parseApiPath, type ApiRequest } from '../../embedded-api-server/requests.ts';
import { ApiStore } from '../../embedded-api-server/store.ts';
import type { ReporterObjectApi, SliceObjectApi, TunnelObjectApi } from '../../src/controller/object-api.ts';
import type { ApiFailure } from '../../src/controller/write-outcome.ts';
import type { ApiErrorKind } from '../../src/core/kubernetes.ts';
import type {
  ReporterManifest,
  ReporterObject,
  ReporterStatusPatch,
} from '../../src/core/reporter-object.ts';
import type {
  ObservedSlice,
  SliceManifest,
  SliceObject,
  SlicePatch,
  SliceStatusPatch,
} from '../../src/core/slice-object.ts';
import {
  OMITTED_CREATED_AT,
  type ObservedTunnel,
  type TunnelManifest,
  type TunnelObject,
  type TunnelObjectPatch,
  type TunnelObjectStatus,
} from '../../src/core/tunnel-object.ts';
import { type ApiError, errorFromResponse } from '../../src/k8s/api-error.ts';
import { leaseResource, type LeaseObject, type LeaseSpec } from '../../src/k8s/lease.ts';
import {
  createResourceClient,
  HTTP_METHODS,
  resourcePath,
  type Call,
  type Preconditions,
  type ResourceClient,
  type ResourceType,
} from '../../src/k8s/resource-client.ts';
import {
  createReporterApi,
  createSliceApi,
  createTunnelApi,
  reporterResource,
  sliceResource,
  tunnelResource,
} from '../../src/k8s/resources.ts';

const NAMESPACE = 'default';
const NOW = '2026-11-23T05:00:00Z';

/** Returns the error of a call, with the usual status of its kind unless one is given; none without a response. */
export function apiFailure(
  kind: ApiErrorKind,
  details: { readonly retryAfterMs?: number; readonly status?: number | undefined } = {},
): ApiFailure {
  const status = 'status' in details ? details.status : (STATUS[kind] ?? 400);
  return Object.assign(new Error(`the API server responded: ${kind}`), {
    kind,
    status,
    retryAfterMs: details.retryAfterMs,
  });
}

/** Returns the error of a failed connection. */
export function connectionFailure(): ApiFailure {
  return apiFailure('unavailable', { status: undefined });
}

const STATUS: Partial<Record<ApiErrorKind, number>> = {
  conflict: 409,
  already_exists: 409,
  not_found: 404,
  throttled: 429,
  unavailable: 503,
  rejected: 422,
};

/** The part of a cache that a list and a watch need. */
export interface ObjectSink<T> {
  replaceBegin(): void;
  replaceItem(object: T): void;
  replaceEnd(version: string): void;
  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: T): void;
  acknowledgeOwnWrite?(resourceVersion: string): boolean;
  acknowledgeOwnDeletion?(uid: string, resourceVersion: string): boolean;
}

interface ObjectEvent<T> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: T;
}

type AdmittedVerb = 'create' | 'patch' | 'patchStatus';

/** The objects of one kind in an embedded API server of its own. Watches deliver events only when a test asks for it. */
class MemoryApi<T> {
  /** A mutating admission webhook: returns what is stored. It cannot change the status, except with `patchStatus`. */
  admit: ((object: T, verb: AdmittedVerb) => T) | undefined;

  /** Called after each change of an object. */
  onChange: () => void = () => {};

  /** Called for each event when it happens. */
  protected readonly onEvent?: (event: ObjectEvent<T>) => void;
  readonly #resource: string;
  readonly #collection: string;
  readonly #store: ApiStore;
  #events: ObjectEvent<T>[] = [];
  readonly #watches = new Set<ObjectEvent<T>[]>();

  constructor(resource: ResourceType) {
    this.#resource = resource.plural;
    this.#collection = resourcePath('', resource).collection;
    this.#store = new ApiStore({
      namespace: NAMESPACE,
      now: () => NOW,
      onChange: ({ type, object }) => {
        const event = { type, object: object as unknown as T };
        this.#events.push(event);
        for (const events of this.#watches) events.push(event);
        this.onEvent?.(event);
        this.onChange();
      },
    });
  }

  /** The objects by name. */
  get stored(): Map<string, T> {
    const objects = [...this.#store.objects(this.#resource)];
    return new Map(objects.map((object) => [object.metadata.name, object as unknown as T]));
  }

  /** The number of events that the watch has not delivered yet. */
  get pendingEvents(): number {
    return this.#events.length;
  }

  /** Delivers up to `count` events of the watch; returns their number. */
  deliver(sink: ObjectSink<T>, maxEvents = Number.POSITIVE_INFINITY): number {
    const delivered = this.#events.splice(0, Math.min(maxEvents, this.#events.length));
    for (const { type, object } of delivered) {
      const { uid, resourceVersion } = (object as unknown as ApiServerObject).metadata;
      const isKnown =
        type === 'DELETED'
          ? sink.acknowledgeOwnDeletion?.(uid, resourceVersion)
          : sink.acknowledgeOwnWrite?.(resourceVersion);
      if (isKnown !== true) sink.event(type, object);
    }
    return delivered.length;
  }

  /** Opens another watch from now on. Returns a function that delivers up to `count` of its events. */
  watch(sink: ObjectSink<T>): (maxEvents?: number) => number {
    const events: ObjectEvent<T>[] = [];
    this.#replace(sink);
    this.#watches.add(events);
    return (maxEvents = Number.POSITIVE_INFINITY) => {
      const delivered = events.splice(0, Math.min(maxEvents, events.length));
      for (const { type, object } of delivered) sink.event(type, object);
      return delivered.length;
    };
  }

  /** Lists the objects. The watch continues after the list, which contains all events that were not delivered. */
  list(): { items: T[]; version: string } {
    this.#events = [];
    return { items: [...this.stored.values()], version: String(this.#store.version) };
  }

  /** Deletes the CRD, and with it all objects. Every request fails until `install`. */
  uninstall(): void {
    this.#store.deleteAll(this.#resource);
    this.#store.setKindState(this.#resource, 'missing');
  }

  /** Creates the CRD again. */
  install(): void {
    this.#store.setKindState(this.#resource, 'served');
  }

  /** Lists everything into `sink`. The watch continues after the list. */
  relist(sink: ObjectSink<T>): void {
    this.#events = [];
    this.#replace(sink);
  }

  /** Deletes an object like a user; with a finalizer, it stays until `removeFinalizer`. */
  deleteManually(name: string): void {
    this.manually('DELETE', name);
  }

  /** Adds a finalizer, which keeps the object after a deletion. */
  addFinalizer(name: string): void {
    this.manually('PATCH', name, { metadata: { finalizers: ['example.com/keep'] } });
  }

  /** Removes the finalizer. */
  removeFinalizer(name: string): void {
    this.manually('PATCH', name, { metadata: { finalizers: null } });
  }

  /** Backs up etcd. Returns a function that restores it, which no watch notices. */
  backup(): () => void {
    const backup = this.#store.backup(0);
    return () => {
      this.#store.restore(backup);
      // A watch from a version in the future delivers nothing.
      this.#events = [];
    };
  }

  /** Sends a request as a user. */
  protected manually(method: ApiRequest['method'], name: string, body?: object): T {
    const path = method === 'POST' ? this.#collection : `${this.#collection}/${name}`;
    return JSON.parse(this.#handle(method, path, body === undefined ? undefined : JSON.stringify(body)));
  }

  /** Sends a call of the operator. */
  protected readonly send = (call: Call): Promise<string> => {
    const admitted = this.#admitted(call);
    return new Promise((resolve) => {
      resolve(admitted ?? this.#handle(HTTP_METHODS[call.verb], call.path, call.body));
    });
  };

  #replace(sink: ObjectSink<T>): void {
    sink.replaceBegin();
    for (const object of this.stored.values()) sink.replaceItem(object);
    sink.replaceEnd(String(this.#store.version));
  }

  /** Executes a write that the webhook changes; undefined if it sees none. */
  #admitted({ verb, path, body }: Call): string | undefined {
    if (this.admit === undefined || body === undefined || (verb !== 'create' && verb !== 'patch'))
      return undefined;
    const sent = JSON.parse(body) as JsonObject;
    if (verb === 'create') {
      const { metadata, spec } = this.admit(sent as T, 'create') as unknown as ApiServerObject;
      return this.#handle('POST', path, JSON.stringify({ ...sent, metadata, spec }));
    }
    const { name = '', status } = parseApiPath(path);
    const current = this.#store.get(this.#resource, name);
    if (current === undefined) return undefined;
    const changed = this.admit(mergePatch(current, sent) as T, status ? 'patchStatus' : 'patch');
    return this.#handle('PUT', path, JSON.stringify(changed));
  }

  /** @throws ApiError if the API server rejects it */
  #handle(method: ApiRequest['method'], path: string, body: string | undefined): string {
    const { status, text, retryAfter } = this.#store.handle({ method, path, body, actor: 'test' });
    if (status >= 400) throw errorFromResponse(`${method} ${path}`, { status, text, retryAfter });
    return text;
  }
}

/** A call of the API of ReverseTunnels or ReverseTunnelSlices. */
export interface TunnelApiCall {
  readonly verb: 'create' | 'patch' | 'patchStatus' | 'delete' | 'read';
  readonly name: string;
}

/** A manual edit; null removes a label, createdAt or the annotation, and resets a status to its default. */
export interface ManualEdit {
  readonly labels?: Readonly<Record<string, string | null>>;
  readonly createdAt?: string | null;
  readonly omittedCreatedAt?: string | null;
  readonly status?: TunnelObjectStatus | null;
}

/** Objects with calls that a test can hold, fail or reorder. */
class InterceptedApi<T> extends MemoryApi<T> {
  /** Every call, including failed ones. */
  readonly calls: TunnelApiCall[] = [];
  /** Runs before a call is executed; if it throws, the call fails and is not executed. */
  before: (call: TunnelApiCall) => void | Promise<void> = () => {};
  /** Runs after a call was executed; if it throws, the call fails nevertheless. */
  after: (call: TunnelApiCall) => void | Promise<void> = () => {};

  #failures: ApiFailure[] = [];

  /** The number of calls other than reads. */
  get writes(): number {
    return this.calls.filter(({ verb }) => verb !== 'read').length;
  }

  /** Makes the next calls fail without being executed. */
  failNext(failure: ApiFailure, times = 1): void {
    for (let index = 0; index < times; index += 1) this.#failures.push(failure);
  }

  protected async call<R>(call: TunnelApiCall, act: () => Promise<R>): Promise<R> {
    this.calls.push(call);
    const failure = this.#failures.shift();
    if (failure !== undefined) throw failure;
    await this.before(call);
    const answer = await act();
    await this.after(call);
    return answer;
  }
}

/** ReverseTunnels. */
export class MemoryTunnelApi extends InterceptedApi<TunnelObject> implements TunnelObjectApi {
  readonly #api: TunnelObjectApi;

  constructor() {
    const resource = tunnelResource(NAMESPACE);
    super(resource);
    this.#api = createTunnelApi(createResourceClient<TunnelObject>(resourcePath('', resource), this.send));
  }

  create(manifest: TunnelManifest): Promise<TunnelObject> {
    return this.call({ verb: 'create', name: manifest.name }, () => this.#api.create(manifest));
  }

  patch(object: ObservedTunnel, change: TunnelObjectPatch): Promise<TunnelObject> {
    return this.call({ verb: 'patch', name: object.name }, () => this.#api.patch(object, change));
  }

  patchStatus(object: ObservedTunnel, status: TunnelObjectStatus): Promise<TunnelObject> {
    return this.call({ verb: 'patchStatus', name: object.name }, () => this.#api.patchStatus(object, status));
  }

  delete(object: ObservedTunnel): Promise<TunnelObject | undefined> {
    return this.call({ verb: 'delete', name: object.name }, () => this.#api.delete(object));
  }

  read(name: string): Promise<TunnelObject | undefined> {
    return this.call({ verb: 'read', name }, () => this.#api.read(name));
  }

  /** Creates an object like a user. */
  createManually({ spec, ...metadata }: TunnelManifest): TunnelObject {
    return this.manually('POST', '', { metadata, spec });
  }

  /** Edits an object like a user. */
  editManually(name: string, edit: ManualEdit): TunnelObject {
    const { labels, createdAt, omittedCreatedAt, status } = edit;
    const annotations = { [OMITTED_CREATED_AT]: omittedCreatedAt };
    const object = this.manually('PATCH', name, { metadata: { labels, annotations }, spec: { createdAt } });
    return status === undefined ? object : this.manually('PATCH', `${name}/status`, { status });
  }
}

/** ReverseTunnelSlices. */
export class MemorySliceApi extends InterceptedApi<SliceObject> implements SliceObjectApi {
  /** A validating admission webhook: returns true to reject a create or a patch of a slice. */
  reject: (change: SlicePatch, sliceName: string) => boolean = () => false;

  readonly #api: SliceObjectApi;

  constructor() {
    const resource = sliceResource(NAMESPACE);
    super(resource);
    this.#api = createSliceApi(createResourceClient<SliceObject>(resourcePath('', resource), this.send));
  }

  create(manifest: SliceManifest): Promise<SliceObject> {
    return this.call({ verb: 'create', name: manifest.name }, () => {
      const { name, labels, spec } = manifest;
      if (this.reject({ labels, ...spec }, name)) throw apiFailure('rejected');
      return this.#api.create(manifest);
    });
  }

  patch(slice: ObservedSlice, change: SlicePatch): Promise<SliceObject> {
    return this.call({ verb: 'patch', name: slice.name }, () => {
      if (this.reject(change, slice.name)) throw apiFailure('rejected');
      return this.#api.patch(slice, change);
    });
  }

  patchStatus(slice: ObservedSlice, status: SliceStatusPatch): Promise<SliceObject> {
    return this.call({ verb: 'patchStatus', name: slice.name }, () => this.#api.patchStatus(slice, status));
  }

  delete(slice: ObservedSlice): Promise<SliceObject | undefined> {
    return this.call({ verb: 'delete', name: slice.name }, () => this.#api.delete(slice));
  }

  read(name: string): Promise<SliceObject | undefined> {
    return this.call({ verb: 'read', name }, () => this.#api.read(name));
  }

  /** Creates a slice like a user. */
  createManually({ spec, ...metadata }: SliceManifest): SliceObject {
    return this.manually('POST', '', { metadata, spec });
  }

  /** Sends a merge patch like a user. */
  editManually(name: string, patch: object): SliceObject {
    return this.manually('PATCH', name, patch);
  }
}

/** ReverseTunnelReporters. */
export class MemoryReporterApi extends MemoryApi<ReporterObject> implements ReporterObjectApi {
  /** Creates and reads, and the other calls that met their preconditions, as `verb name`. */
  readonly calls: string[] = [];

  readonly #api: ReporterObjectApi;

  constructor() {
    const resource = reporterResource(NAMESPACE);
    super(resource);
    this.#api = createReporterApi(
      createResourceClient<ReporterObject>(resourcePath('', resource), this.send),
    );
  }

  async create(manifest: ReporterManifest): Promise<ReporterObject> {
    this.calls.push(`create ${manifest.metadata.name}`);
    return await this.#api.create(manifest);
  }

  async patchStatus(name: string, version: string, patch: ReporterStatusPatch): Promise<ReporterObject> {
    const stored = await this.#api.patchStatus(name, version, patch);
    this.calls.push(`patchStatus ${name}`);
    return stored;
  }

  async read(name: string): Promise<ReporterObject | undefined> {
    this.calls.push(`read ${name}`);
    return await this.#api.read(name);
  }

  async delete(name: string, uid: string, version: string): Promise<ReporterObject | undefined> {
    const remaining = await this.#api.delete(name, uid, version);
    this.calls.push(`delete ${name}`);
    return remaining;
  }

  /** Edits the status like a user. */
  editManually(name: string, status: ReporterStatusPatch): void {
    this.manually('PATCH', `${name}/status`, { status });
  }
}

/** Leases. */
export class MemoryLeases extends MemoryApi<LeaseObject> {
  readonly title: string;
  /** Executed writes, as `verb name holder`. */
  readonly writes: string[] = [];
  /** Called for each change, like a watch. */
  readonly watches: ((name: string, object: LeaseObject | undefined) => void)[] = [];
  /** The error of every call. */
  failure: ApiError | undefined;
  /** Awaited by every call. */
  delay: Promise<void> | undefined;

  protected override readonly onEvent = ({ type, object }: ObjectEvent<LeaseObject>): void => {
    for (const watch of this.watches) watch(object.metadata.name, type === 'DELETED' ? undefined : object);
  };

  readonly #client: ResourceClient<LeaseObject>;

  constructor() {
    const path = resourcePath('', leaseResource(NAMESPACE));
    super(leaseResource(NAMESPACE));
    this.title = path.title;
    this.#client = createResourceClient<LeaseObject>(path, this.send);
  }

  get(name: string): Promise<LeaseObject> {
    return this.#call(() => this.#client.get(name));
  }

  create(object: object): Promise<LeaseObject> {
    return this.#write('create', () => this.#client.create(object));
  }

  patch(name: string, patch: object): Promise<LeaseObject> {
    return this.#write('patch', () => this.#client.patch(name, patch));
  }

  async delete(name: string, preconditions: Preconditions): Promise<LeaseObject | undefined> {
    const remaining = await this.#call(() => this.#client.delete(name, preconditions));
    this.writes.push(`delete ${name}`);
    return remaining;
  }

  /** Edits a Lease like a user. */
  editManually(name: string, spec: LeaseSpec, labels: Readonly<Record<string, string>> = {}): void {
    this.manually('PATCH', name, { metadata: { labels }, spec });
  }

  async #write(verb: string, act: () => Promise<LeaseObject>): Promise<LeaseObject> {
    const stored = await this.#call(act);
    this.writes.push(`${verb} ${stored.metadata.name} ${stored.spec?.holderIdentity ?? ''}`);
    return stored;
  }

  async #call<R>(act: () => Promise<R>): Promise<R> {
    await this.delay;
    if (this.failure !== undefined) throw this.failure;
    return await act();
  }
}
