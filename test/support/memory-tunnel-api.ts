import { isDeepStrictEqual } from 'node:util';

import type { TunnelObjectApi, TunnelObjectPatch } from '../../src/controller/object-api.ts';
import type { ApiFailure } from '../../src/controller/write-outcome.ts';
import type { ApiErrorKind } from '../../src/core/kubernetes.ts';
import type {
  ObservedTunnel,
  TunnelManifest,
  TunnelObject,
  TunnelObjectSpec,
  TunnelObjectStatus,
} from '../../src/core/tunnel-object.ts';

/** A call as it arrives. */
export interface TunnelApiCall {
  readonly verb: 'create' | 'patch' | 'patchStatus' | 'delete' | 'read';
  readonly name: string;
}

/** What a row cache and a relist need of each other. */
export interface TunnelSink {
  replaceBegin(): void;
  replaceItem(object: TunnelObject): void;
  replaceEnd(version: string): void;
  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: TunnelObject): void;
  acknowledgeOwnWrite?(resourceVersion: string): boolean;
}

/** What somebody with kubectl may change; null takes a label or createdAt away, and a status back to its default. */
export interface ManualEdit {
  readonly labels?: Readonly<Record<string, string | null>>;
  readonly createdAt?: string | null;
  readonly status?: TunnelObjectStatus | null;
}

interface TunnelEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: TunnelObject;
}

interface StoredTunnel {
  readonly name: string;
  readonly uid: string;
  resourceVersion: number;
  labels: Readonly<Record<string, string>>;
  spec: TunnelObjectSpec;
  /** Undefined until written: the default is computed at each read, never stored. */
  status: TunnelObjectStatus | undefined;
  deletionTimestamp: string | undefined;
  /** Somebody's finalizer: a deletion leaves the row standing. */
  hasFinalizer: boolean;
}

const DEFAULT_STATUS: TunnelObjectStatus = {
  state: 'Connected',
  conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
};

/** How an API call fails; the status that the consequence has where none is given, and none without an answer. */
export function apiFailure(
  kind: ApiErrorKind,
  details: { readonly retryAfterMs?: number; readonly status?: number | undefined } = {},
): ApiFailure {
  const status = 'status' in details ? details.status : (STATUS[kind] ?? 400);
  return Object.assign(new Error(`the API server answers: ${kind}`), {
    kind,
    status,
    retryAfterMs: details.retryAfterMs,
  });
}

/** A connection refused, reset or timed out. */
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
 * The API server's rows, in memory, with what was tried on a real one: versions of one counter, 409 Conflict on a
 * stale version, 409 AlreadyExists also for a row that is being deleted, the status default, no new version for a patch
 * that changes nothing, and 422 for what the CRD's schema refuses.
 *
 * Its watch brings events when `deliver` is called, and not before.
 */
export class MemoryTunnelApi implements TunnelObjectApi {
  /** Every call that arrived, failed ones included. */
  readonly calls: TunnelApiCall[] = [];
  /** Runs before a call acts: what it throws is the answer, and nothing was done. */
  before: (call: TunnelApiCall) => void | Promise<void> = () => {};
  /** Runs after a call acted: what it throws is the answer, though it was done. */
  after: (call: TunnelApiCall) => void | Promise<void> = () => {};

  readonly #stored = new Map<string, StoredTunnel>();
  #events: TunnelEvent[] = [];
  readonly #watches = new Set<TunnelEvent[]>();
  #failures: ApiFailure[] = [];
  /** So that versions grow a digit within any test. */
  #version = 95;
  #uids = 0;

  /** The rows as a list would show them, by name. */
  get stored(): Map<string, TunnelObject> {
    return new Map([...this.#stored].map(([name, row]) => [name, toObject(row)]));
  }

  /** Calls that arrived and would change something. */
  get writes(): number {
    return this.calls.filter(({ verb }) => verb !== 'read').length;
  }

  /** Events that the watch has not brought yet. */
  get pendingEvents(): number {
    return this.#events.length;
  }

  /** The next calls fail, and nothing is done. */
  failNext(failure: ApiFailure, times = 1): void {
    for (let index = 0; index < times; index += 1) this.#failures.push(failure);
  }

  create(manifest: TunnelManifest): Promise<TunnelObject> {
    return this.#call({ verb: 'create', name: manifest.name }, () => this.#create(manifest));
  }

  patch(row: ObservedTunnel, change: TunnelObjectPatch): Promise<TunnelObject> {
    return this.#call({ verb: 'patch', name: row.name }, () => {
      const stored = this.#at(row.name, row.resourceVersion);
      return this.#change(stored, { labels: change.labels, createdAt: change.createdAt });
    });
  }

  patchStatus(row: ObservedTunnel, status: TunnelObjectStatus): Promise<TunnelObject> {
    return this.#call({ verb: 'patchStatus', name: row.name }, () =>
      this.#change(this.#at(row.name, row.resourceVersion), { status }),
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

  /** The watch brings at most so many events; gives how many. */
  deliver(sink: TunnelSink, maxEvents = Number.POSITIVE_INFINITY): number {
    const delivered = this.#events.splice(0, Math.min(maxEvents, this.#events.length));
    for (const { type, object } of delivered) {
      const known =
        type !== 'DELETED' && sink.acknowledgeOwnWrite?.(object.metadata.resourceVersion) === true;
      if (!known) sink.event(type, object);
    }
    return delivered.length;
  }

  /** One more watch, which begins with what is there now; gives what brings at most so many of its events. */
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

  /** A list as of now. The watch goes on after it: what it had not brought yet is in the list. */
  list(): { items: TunnelObject[]; version: string } {
    this.#events = [];
    return { items: [...this.stored.values()], version: String(this.#version) };
  }

  /** Lists into `sink`, whole. */
  relist(sink: TunnelSink): void {
    sink.replaceBegin();
    const { items, version } = this.list();
    for (const object of items) sink.replaceItem(object);
    sink.replaceEnd(version);
  }

  /** Somebody makes a row by hand. */
  createManually(manifest: TunnelManifest): TunnelObject {
    return this.#create(manifest);
  }

  /** Somebody edits a row by hand. */
  editManually(name: string, edit: ManualEdit): TunnelObject {
    return this.#change(this.#at(name), edit);
  }

  /** Somebody deletes a row by hand. */
  deleteManually(name: string): void {
    this.#delete(this.#at(name));
  }

  /** Puts a finalizer on a row: deleted, it stays until `release`. */
  addFinalizer(name: string): void {
    this.#at(name).hasFinalizer = true;
  }

  /** The finalizer is done. */
  removeFinalizer(name: string): void {
    const stored = this.#at(name);
    stored.hasFinalizer = false;
    if (stored.deletionTimestamp !== undefined) this.#remove(stored);
  }

  /** A copy of everything that is stored, versions included. */
  backup(): () => void {
    const copies = structuredClone([...this.#stored.values()]);
    const version = this.#version;
    return () => {
      this.#stored.clear();
      for (const row of structuredClone(copies)) this.#stored.set(row.name, row);
      this.#version = version;
      // A watch from a version that is in the future now: silence.
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

  #create({ name, labels, spec }: TunnelManifest): TunnelObject {
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
      spec: wellFormed(spec),
      status: undefined,
      deletionTimestamp: undefined,
      hasFinalizer: false,
    };
    this.#stored.set(name, stored);
    return this.#emit('ADDED', stored);
  }

  #change(stored: StoredTunnel, { labels, createdAt, status }: ManualEdit): TunnelObject {
    const labelsAfter = withoutNulls({ ...stored.labels, ...labels });
    checkLabels(labelsAfter);
    const { createdAt: createdAtBefore, ...identity } = stored.spec;
    const createdAtAfter = createdAt === undefined ? createdAtBefore : (createdAt ?? undefined);
    const spec: TunnelObjectSpec = {
      ...identity,
      ...(createdAtAfter === undefined ? {} : { createdAt: createdAtAfter }),
    };
    checkSpec(spec);
    // A merge patch of the status replaces its conditions whole.
    const statusAfter =
      status === undefined ? stored.status : status === null ? undefined : { ...statusOf(stored), ...status };
    if (statusAfter !== undefined) checkStatus(statusAfter);
    if (isDeepStrictEqual([labelsAfter, spec, statusAfter], [stored.labels, stored.spec, stored.status])) {
      return toObject(stored);
    }
    Object.assign(stored, { labels: labelsAfter, spec, status: statusAfter });
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
    // The event has the deletion's own version.
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

function statusOf(stored: StoredTunnel): TunnelObjectStatus {
  return stored.status ?? DEFAULT_STATUS;
}

function toObject(stored: StoredTunnel): TunnelObject {
  const { name, uid, resourceVersion, labels, spec, deletionTimestamp } = stored;
  return {
    metadata: {
      name,
      uid,
      resourceVersion: String(resourceVersion),
      labels: { ...labels },
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

/** A lone surrogate is stored as U+FFFD, without a word. */
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
  // oxlint-disable-next-line no-control-regex -- the CRD's own pattern
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
