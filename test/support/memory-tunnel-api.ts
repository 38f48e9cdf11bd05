import { isDeepStrictEqual } from 'node:util';

import type { TunnelObjectApi } from '../../src/controller/object-api.ts';
import type { ApiFailure } from '../../src/controller/write-outcome.ts';
import type { ApiErrorKind } from '../../src/core/kubernetes.ts';
import {
  OMITTED_CREATED_AT,
  type ObservedTunnel,
  type TunnelManifest,
  type TunnelObject,
  type TunnelObjectPatch,
  type TunnelObjectSpec,
  type TunnelObjectStatus,
} from '../../src/core/tunnel-object.ts';

/** A call of the API. */
export interface TunnelApiCall {
  readonly verb: 'create' | 'patch' | 'patchStatus' | 'delete' | 'read';
  readonly name: string;
}

/** The part of a tunnel cache that a list needs. */
export interface TunnelSink {
  replaceBegin(): void;
  replaceItem(object: TunnelObject): void;
  replaceEnd(version: string): void;
  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: TunnelObject): void;
  acknowledgeOwnWrite?(resourceVersion: string): boolean;
}

/** A manual edit; null removes a label, createdAt or the annotation, and resets a status to its default. */
export interface ManualEdit {
  readonly labels?: Readonly<Record<string, string | null>>;
  readonly createdAt?: string | null;
  readonly omittedCreatedAt?: string | null;
  readonly status?: TunnelObjectStatus | null;
}

interface TunnelEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: TunnelObject;
}

type Admit = (object: TunnelObject, verb: 'create' | 'patch' | 'patchStatus') => TunnelObject;

interface StoredTunnel {
  readonly name: string;
  readonly uid: string;
  resourceVersion: number;
  labels: Readonly<Record<string, string>>;
  /** The only annotation that is stored. */
  omittedCreatedAt: string | undefined;
  spec: TunnelObjectSpec;
  /** Undefined until written: the default is computed for each read and never stored. */
  status: TunnelObjectStatus | undefined;
  deletionTimestamp: string | undefined;
  /** Whether there is a finalizer, which keeps the object after a deletion. */
  hasFinalizer: boolean;
}

const DEFAULT_STATUS: TunnelObjectStatus = {
  state: 'Connected',
  conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
};

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

/**
 * The ReverseTunnels of an API server in memory, with verified behavior: versions of one counter, 409 Conflict for a stale
 * version, 409 AlreadyExists also for an object that is being deleted, the default status, no new version for a patch that
 * changes nothing, and 422 for an object that violates the schema of the CRD.
 *
 * The watch delivers events only when `deliver` is called.
 */
export class MemoryTunnelApi implements TunnelObjectApi {
  /** Every call, including failed ones. */
  readonly calls: TunnelApiCall[] = [];
  /** Runs before a call is executed; if it throws, the call fails and is not executed. */
  before: (call: TunnelApiCall) => void | Promise<void> = () => {};
  /** Runs after a call was executed; if it throws, the call fails nevertheless. */
  after: (call: TunnelApiCall) => void | Promise<void> = () => {};

  /** A mutating admission webhook: returns what is stored. It cannot change the status, except with `patchStatus`. */
  admit: Admit = (object) => object;

  readonly #stored = new Map<string, StoredTunnel>();
  #events: TunnelEvent[] = [];
  readonly #watches = new Set<TunnelEvent[]>();
  #failures: ApiFailure[] = [];
  /** Chosen so that versions get another digit within any test. */
  #version = 95;
  #uids = 0;

  /** Returns the objects of a list, by name. */
  get stored(): Map<string, TunnelObject> {
    return new Map([...this.#stored].map(([name, row]) => [name, toObject(row)]));
  }

  /** The number of calls other than reads. */
  get writes(): number {
    return this.calls.filter(({ verb }) => verb !== 'read').length;
  }

  /** The number of events that the watch has not delivered yet. */
  get pendingEvents(): number {
    return this.#events.length;
  }

  /** Makes the next calls fail without being executed. */
  failNext(failure: ApiFailure, times = 1): void {
    for (let index = 0; index < times; index += 1) this.#failures.push(failure);
  }

  create(manifest: TunnelManifest): Promise<TunnelObject> {
    return this.#call({ verb: 'create', name: manifest.name }, () => this.#create(manifest, this.admit));
  }

  patch(row: ObservedTunnel, change: TunnelObjectPatch): Promise<TunnelObject> {
    return this.#call({ verb: 'patch', name: row.name }, () => {
      const stored = this.#at(row.name, row.resourceVersion);
      return this.#change(stored, change, 'patch');
    });
  }

  patchStatus(row: ObservedTunnel, status: TunnelObjectStatus): Promise<TunnelObject> {
    return this.#call({ verb: 'patchStatus', name: row.name }, () =>
      this.#change(this.#at(row.name, row.resourceVersion), { status }, 'patchStatus'),
    );
  }

  delete(row: ObservedTunnel): Promise<TunnelObject | undefined> {
    return this.#call({ verb: 'delete', name: row.name }, () => {
      const stored = this.#at(row.name, row.resourceVersion);
      if (stored.uid !== row.uid) throw apiFailure('conflict');
      this.#delete(stored);
      return this.stored.get(row.name);
    });
  }

  read(name: string): Promise<TunnelObject | undefined> {
    return this.#call({ verb: 'read', name }, () => this.stored.get(name));
  }

  /** Delivers up to `count` events of the watch; returns their number. */
  deliver(sink: TunnelSink, maxEvents = Number.POSITIVE_INFINITY): number {
    const delivered = this.#events.splice(0, Math.min(maxEvents, this.#events.length));
    for (const { type, object } of delivered) {
      const known =
        type !== 'DELETED' && sink.acknowledgeOwnWrite?.(object.metadata.resourceVersion) === true;
      if (!known) sink.event(type, object);
    }
    return delivered.length;
  }

  /** Opens another watch from now on. Returns a function that delivers up to `count` of its events. */
  watch(sink: TunnelSink): (maxEvents?: number) => number {
    const events: TunnelEvent[] = [];
    sink.replaceBegin();
    for (const object of this.stored.values()) sink.replaceItem(object);
    sink.replaceEnd(String(this.#version));
    this.#watches.add(events);
    return (maxEvents = Number.POSITIVE_INFINITY) => {
      const delivered = events.splice(0, Math.min(maxEvents, events.length));
      for (const { type, object } of delivered) sink.event(type, object);
      return delivered.length;
    };
  }

  /** Lists the objects. The watch continues after the list, which contains all events that were not delivered. */
  list(): { items: TunnelObject[]; version: string } {
    this.#events = [];
    return { items: [...this.stored.values()], version: String(this.#version) };
  }

  /** Lists everything into `sink`. */
  relist(sink: TunnelSink): void {
    sink.replaceBegin();
    const { items, version } = this.list();
    for (const object of items) sink.replaceItem(object);
    sink.replaceEnd(version);
  }

  /** Creates an object like a user. */
  createManually(manifest: TunnelManifest): TunnelObject {
    return this.#create(manifest);
  }

  /** Edits an object like a user. */
  editManually(name: string, edit: ManualEdit): TunnelObject {
    return this.#change(this.#at(name), edit);
  }

  /** Deletes an object like a user. */
  deleteManually(name: string): void {
    this.#delete(this.#at(name));
  }

  /** Adds a finalizer: after a deletion, the object stays until `removeFinalizer`. */
  addFinalizer(name: string): void {
    this.#at(name).hasFinalizer = true;
  }

  /** Removes the finalizer. */
  removeFinalizer(name: string): void {
    const stored = this.#at(name);
    stored.hasFinalizer = false;
    if (stored.deletionTimestamp !== undefined) this.#remove(stored);
  }

  /** Returns a copy of the stored objects with their versions. */
  backup(): () => void {
    const copies = structuredClone([...this.#stored.values()]);
    const version = this.#version;
    return () => {
      this.#stored.clear();
      for (const row of structuredClone(copies)) this.#stored.set(row.name, row);
      this.#version = version;
      // A watch from a version in the future delivers nothing.
      this.#events = [];
    };
  }

  async #call<T>(call: TunnelApiCall, act: () => T): Promise<T> {
    this.calls.push(call);
    const failure = this.#failures.shift();
    if (failure !== undefined) throw failure;
    await this.before(call);
    const answer = act();
    await this.after(call);
    return answer;
  }

  #at(name: string, resourceVersion?: string): StoredTunnel {
    const stored = this.#stored.get(name);
    if (stored === undefined) throw apiFailure('not_found');
    if (resourceVersion !== undefined && resourceVersion !== String(stored.resourceVersion)) {
      throw apiFailure('conflict');
    }
    return stored;
  }

  #create(manifest: TunnelManifest, admit?: Admit): TunnelObject {
    const { name, labels, annotations, spec } = admit === undefined ? manifest : admitted(manifest, admit);
    if (this.#stored.has(name)) throw apiFailure('already_exists');
    checkName(name);
    checkLabels(labels);
    checkSpec(spec);
    this.#uids += 1;
    const stored: StoredTunnel = {
      name,
      uid: `uid-${this.#uids}`,
      resourceVersion: this.#nextVersion(),
      labels: { ...labels },
      omittedCreatedAt: annotations?.[OMITTED_CREATED_AT],
      spec: wellFormed(spec),
      status: undefined,
      deletionTimestamp: undefined,
      hasFinalizer: false,
    };
    this.#stored.set(name, stored);
    return this.#emit('ADDED', stored);
  }

  /** @param verb undefined: no webhook sees the change */
  #change(
    stored: StoredTunnel,
    { labels, createdAt, omittedCreatedAt, status }: ManualEdit,
    verb?: 'patch' | 'patchStatus',
  ): TunnelObject {
    let labelsAfter = withoutNulls({ ...stored.labels, ...labels });
    const { createdAt: createdAtBefore, ...identity } = stored.spec;
    const createdAtAfter = createdAt === undefined ? createdAtBefore : (createdAt ?? undefined);
    let omittedAfter =
      omittedCreatedAt === undefined ? stored.omittedCreatedAt : (omittedCreatedAt ?? undefined);
    let spec: TunnelObjectSpec = {
      ...identity,
      ...(createdAtAfter === undefined ? {} : { createdAt: createdAtAfter }),
    };
    // A merge patch of the status replaces the whole list of conditions.
    let statusAfter =
      status === undefined ? stored.status : status === null ? undefined : { ...statusOf(stored), ...status };
    if (verb !== undefined) {
      const after = {
        ...stored,
        labels: labelsAfter,
        omittedCreatedAt: omittedAfter,
        spec,
        status: statusAfter,
      };
      const result = this.admit(toObject(after), verb);
      if (verb === 'patch') {
        labelsAfter = { ...result.metadata.labels };
        omittedAfter = result.metadata.annotations?.[OMITTED_CREATED_AT];
        spec = result.spec;
      } else statusAfter = result.status;
    }
    checkLabels(labelsAfter);
    checkSpec(spec);
    const { createdAt: _, ...identityAfter } = spec;
    if (!isDeepStrictEqual(identityAfter, identity)) throw apiFailure('rejected');
    if (statusAfter !== undefined) checkStatus(statusAfter);
    const before = [stored.labels, stored.omittedCreatedAt, stored.spec, stored.status];
    if (isDeepStrictEqual([labelsAfter, omittedAfter, spec, statusAfter], before)) return toObject(stored);
    Object.assign(stored, {
      labels: labelsAfter,
      omittedCreatedAt: omittedAfter,
      spec,
      status: statusAfter,
    });
    stored.resourceVersion = this.#nextVersion();
    return this.#emit('MODIFIED', stored);
  }

  #delete(stored: StoredTunnel): void {
    if (!stored.hasFinalizer) {
      this.#remove(stored);
    } else if (stored.deletionTimestamp === undefined) {
      stored.deletionTimestamp = '2026-11-23T05:00:00Z';
      stored.resourceVersion = this.#nextVersion();
      this.#emit('MODIFIED', stored);
    }
  }

  #remove(stored: StoredTunnel): void {
    this.#stored.delete(stored.name);
    // The event has the version of the deletion.
    stored.resourceVersion = this.#nextVersion();
    this.#emit('DELETED', stored);
  }

  #nextVersion(): number {
    this.#version += 1;
    return this.#version;
  }

  #emit(type: 'ADDED' | 'MODIFIED' | 'DELETED', stored: StoredTunnel): TunnelObject {
    const object = toObject(stored);
    this.#events.push({ type, object });
    for (const events of this.#watches) events.push({ type, object });
    return object;
  }
}

/** Returns what a webhook makes of a new object. */
function admitted({ spec, ...metadata }: TunnelManifest, admit: Admit): TunnelManifest {
  const object = { metadata: { ...metadata, uid: '', resourceVersion: '' }, spec };
  const { metadata: after, spec: specAfter } = admit(object, 'create');
  const { name, labels = {}, annotations } = after;
  return { name, labels, ...(annotations === undefined ? {} : { annotations }), spec: specAfter };
}

function statusOf(stored: StoredTunnel): TunnelObjectStatus {
  return stored.status ?? DEFAULT_STATUS;
}

function toObject(stored: StoredTunnel): TunnelObject {
  const { name, uid, resourceVersion, labels, omittedCreatedAt, spec, deletionTimestamp } = stored;
  return {
    metadata: {
      name,
      uid,
      resourceVersion: String(resourceVersion),
      labels: { ...labels },
      ...(omittedCreatedAt === undefined ? {} : { annotations: { [OMITTED_CREATED_AT]: omittedCreatedAt } }),
      ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
    },
    spec,
    status: statusOf(stored),
  };
}

function withoutNulls(labels: Readonly<Record<string, string | null>>): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [label, value] of Object.entries(labels)) {
    if (value !== null) kept[label] = value;
  }
  return kept;
}

/** Replaces a lone surrogate with U+FFFD, without an error. */
function wellFormed(spec: TunnelObjectSpec): TunnelObjectSpec {
  return JSON.parse(JSON.stringify(spec), (_key, value: unknown) =>
    typeof value === 'string' ? value.toWellFormed() : value,
  ) as TunnelObjectSpec;
}

function checkName(name: string): void {
  const subdomain = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/;
  if (name.length > 253 || !subdomain.test(name)) throw apiFailure('rejected');
}

function checkLabels(labels: Readonly<Record<string, string>>): void {
  for (const value of Object.values(labels)) {
    if (value.length > 63 || !/^(?:(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/.test(value)) {
      throw apiFailure('rejected');
    }
  }
}

function checkSpec(spec: TunnelObjectSpec): void {
  checkText(spec.tunnelName, 1, 512);
  checkText(spec.tenantID, 1, 128);
  checkText(spec.clusterID, 1, 257);
  checkText(spec.nodeID, 1, 257);
  checkText(spec.reporter.id, 1, 256);
  checkText(spec.reporter.cluster, 0, 256);
  if (
    spec.createdAt !== undefined &&
    !/^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})$/.test(spec.createdAt)
  ) {
    throw apiFailure('rejected');
  }
}

function checkText(text: string, min: number, max: number): void {
  const points = Array.from(text).length;
  // oxlint-disable-next-line no-control-regex -- the pattern of the CRD
  const pattern = /^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$/;
  if (points < min || points > max || !pattern.test(text)) throw apiFailure('rejected');
}

function checkStatus({ state, conditions }: TunnelObjectStatus): void {
  const types = (conditions ?? []).map(({ type }) => type);
  if (
    (state !== 'Connected' && state !== 'Unknown') ||
    types.length === 0 ||
    new Set(types).size < types.length
  ) {
    throw apiFailure('rejected');
  }
}
