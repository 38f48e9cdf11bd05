import { isDeepStrictEqual } from 'node:util';

import type { ApiFailure, RowApi, RowPatch } from '../../src/controller/row-api.ts';
import type { Consequence } from '../../src/core/consequence.ts';
import type { Row, RowManifest, RowObject, RowSpec, RowStatus } from '../../src/core/row.ts';

/** A call as it arrives. */
export interface RowCall {
  readonly verb: 'create' | 'patch' | 'patchStatus' | 'delete' | 'read';
  readonly name: string;
}

/** What a row cache and a relist need of each other. */
export interface RowSink {
  replaceBegin(): void;
  replaceItem(object: RowObject): void;
  replaceEnd(version: string): void;
  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: RowObject): void;
  takeEcho?(resourceVersion: string): boolean;
}

/** What somebody with kubectl may change; null takes a label or createdAt away, and a status back to its default. */
export interface HandEdit {
  readonly labels?: Readonly<Record<string, string | null>>;
  readonly createdAt?: string | null;
  readonly status?: RowStatus | null;
}

interface RowEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: RowObject;
}

interface Stored {
  readonly name: string;
  readonly uid: string;
  resourceVersion: number;
  labels: Readonly<Record<string, string>>;
  spec: RowSpec;
  /** Undefined until written: the default is computed at each read, never stored. */
  status: RowStatus | undefined;
  deletionTimestamp: string | undefined;
  /** Somebody's finalizer: a deletion leaves the row standing. */
  held: boolean;
}

const DEFAULT_STATUS: RowStatus = {
  state: 'Connected',
  conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
};

/** How an API call fails; the status that the consequence has where none is given, and none without an answer. */
export function apiFailure(
  consequence: Consequence,
  facts: { readonly retryAfterMs?: number; readonly status?: number | undefined } = {},
): ApiFailure {
  const status = 'status' in facts ? facts.status : (STATUS[consequence] ?? 400);
  return Object.assign(new Error(`the API server answers: ${consequence}`), {
    consequence,
    status,
    retryAfterMs: facts.retryAfterMs,
  });
}

/** A connection refused, reset or timed out. */
export function noAnswer(): ApiFailure {
  return apiFailure('unavailable', { status: undefined });
}

const STATUS: Partial<Record<Consequence, number>> = {
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
export class MemoryRowApi implements RowApi {
  /** Every call that arrived, failed ones included. */
  readonly calls: RowCall[] = [];
  /** Runs before a call acts: what it throws is the answer, and nothing was done. */
  before: (call: RowCall) => void | Promise<void> = () => {};
  /** Runs after a call acted: what it throws is the answer, though it was done. */
  after: (call: RowCall) => void | Promise<void> = () => {};

  readonly #rows = new Map<string, Stored>();
  #events: RowEvent[] = [];
  readonly #watches = new Set<RowEvent[]>();
  #failures: ApiFailure[] = [];
  /** So that versions grow a digit within any test. */
  #version = 95;
  #uids = 0;

  /** The rows as a list would show them, by name. */
  get rows(): Map<string, RowObject> {
    return new Map([...this.#rows].map(([name, row]) => [name, shown(row)]));
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

  create(manifest: RowManifest): Promise<RowObject> {
    return this.#call({ verb: 'create', name: manifest.name }, () => this.#create(manifest));
  }

  patch(row: Row, change: RowPatch): Promise<RowObject> {
    return this.#call({ verb: 'patch', name: row.name }, () => {
      const stored = this.#at(row.name, row.resourceVersion);
      return this.#change(stored, { labels: change.labels, createdAt: change.createdAt });
    });
  }

  patchStatus(row: Row, status: RowStatus): Promise<RowObject> {
    return this.#call({ verb: 'patchStatus', name: row.name }, () =>
      this.#change(this.#at(row.name, row.resourceVersion), { status }),
    );
  }

  delete(row: Row): Promise<RowObject | undefined> {
    return this.#call({ verb: 'delete', name: row.name }, () => {
      const stored = this.#at(row.name, row.resourceVersion);
      if (stored.uid !== row.uid) throw apiFailure('conflict');
      this.#delete(stored);
      return this.rows.get(row.name);
    });
  }

  read(name: string): Promise<RowObject | undefined> {
    return this.#call({ verb: 'read', name }, () => this.rows.get(name));
  }

  /** The watch brings at most so many events; gives how many. */
  deliver(sink: RowSink, most = Number.POSITIVE_INFINITY): number {
    const delivered = this.#events.splice(0, Math.min(most, this.#events.length));
    for (const { type, object } of delivered) {
      const known = type !== 'DELETED' && sink.takeEcho?.(object.metadata.resourceVersion) === true;
      if (!known) sink.event(type, object);
    }
    return delivered.length;
  }

  /** One more watch, which begins with what is there now; gives what brings at most so many of its events. */
  watch(sink: RowSink): (most?: number) => number {
    const events: RowEvent[] = [];
    sink.replaceBegin();
    for (const object of this.rows.values()) sink.replaceItem(object);
    sink.replaceEnd(String(this.#version));
    this.#watches.add(events);
    return (most = Number.POSITIVE_INFINITY) => {
      const delivered = events.splice(0, Math.min(most, events.length));
      for (const { type, object } of delivered) sink.event(type, object);
      return delivered.length;
    };
  }

  /** A list as of now. The watch goes on after it: what it had not brought yet is in the list. */
  list(): { items: RowObject[]; version: string } {
    this.#events = [];
    return { items: [...this.rows.values()], version: String(this.#version) };
  }

  /** Lists into `sink`, whole. */
  relist(sink: RowSink): void {
    sink.replaceBegin();
    const { items, version } = this.list();
    for (const object of items) sink.replaceItem(object);
    sink.replaceEnd(version);
  }

  /** Somebody makes a row by hand. */
  put(manifest: RowManifest): RowObject {
    return this.#create(manifest);
  }

  /** Somebody edits a row by hand. */
  edit(name: string, edit: HandEdit): RowObject {
    return this.#change(this.#at(name), edit);
  }

  /** Somebody deletes a row by hand. */
  remove(name: string): void {
    this.#delete(this.#at(name));
  }

  /** Puts a finalizer on a row: deleted, it stays until `release`. */
  hold(name: string): void {
    this.#at(name).held = true;
  }

  /** The finalizer is done. */
  release(name: string): void {
    const stored = this.#at(name);
    stored.held = false;
    if (stored.deletionTimestamp !== undefined) this.#vanish(stored);
  }

  /** A copy of everything that is stored, versions included. */
  backup(): () => void {
    const rows = structuredClone([...this.#rows.values()]);
    const version = this.#version;
    return () => {
      this.#rows.clear();
      for (const row of structuredClone(rows)) this.#rows.set(row.name, row);
      this.#version = version;
      // A watch from a version that is in the future now: silence.
      this.#events = [];
    };
  }

  async #call<T>(call: RowCall, act: () => T): Promise<T> {
    this.calls.push(call);
    const failure = this.#failures.shift();
    if (failure !== undefined) throw failure;
    await this.before(call);
    const answer = act();
    await this.after(call);
    return answer;
  }

  #at(name: string, resourceVersion?: string): Stored {
    const stored = this.#rows.get(name);
    if (stored === undefined) throw apiFailure('not_found');
    if (resourceVersion !== undefined && resourceVersion !== String(stored.resourceVersion)) {
      throw apiFailure('conflict');
    }
    return stored;
  }

  #create({ name, labels, spec }: RowManifest): RowObject {
    if (this.#rows.has(name)) throw apiFailure('already_exists');
    checkName(name);
    checkLabels(labels);
    checkSpec(spec);
    this.#uids += 1;
    const stored: Stored = {
      name,
      uid: `uid-${this.#uids}`,
      resourceVersion: this.#nextVersion(),
      labels: { ...labels },
      spec: wellFormed(spec),
      status: undefined,
      deletionTimestamp: undefined,
      held: false,
    };
    this.#rows.set(name, stored);
    return this.#tell('ADDED', stored);
  }

  #change(stored: Stored, { labels, createdAt, status }: HandEdit): RowObject {
    const labelsAfter = withoutNulls({ ...stored.labels, ...labels });
    checkLabels(labelsAfter);
    const { createdAt: createdAtBefore, ...identity } = stored.spec;
    const createdAtAfter = createdAt === undefined ? createdAtBefore : (createdAt ?? undefined);
    const spec: RowSpec = {
      ...identity,
      ...(createdAtAfter === undefined ? {} : { createdAt: createdAtAfter }),
    };
    checkSpec(spec);
    // A merge patch of the status replaces its conditions whole.
    const statusAfter =
      status === undefined ? stored.status : status === null ? undefined : { ...statusOf(stored), ...status };
    if (statusAfter !== undefined) checkStatus(statusAfter);
    if (isDeepStrictEqual([labelsAfter, spec, statusAfter], [stored.labels, stored.spec, stored.status])) {
      return shown(stored);
    }
    Object.assign(stored, { labels: labelsAfter, spec, status: statusAfter });
    stored.resourceVersion = this.#nextVersion();
    return this.#tell('MODIFIED', stored);
  }

  #delete(stored: Stored): void {
    if (!stored.held) {
      this.#vanish(stored);
    } else if (stored.deletionTimestamp === undefined) {
      stored.deletionTimestamp = '2026-11-23T05:00:00Z';
      stored.resourceVersion = this.#nextVersion();
      this.#tell('MODIFIED', stored);
    }
  }

  #vanish(stored: Stored): void {
    this.#rows.delete(stored.name);
    // The event has the deletion's own version.
    stored.resourceVersion = this.#nextVersion();
    this.#tell('DELETED', stored);
  }

  #nextVersion(): number {
    this.#version += 1;
    return this.#version;
  }

  #tell(type: 'ADDED' | 'MODIFIED' | 'DELETED', stored: Stored): RowObject {
    const object = shown(stored);
    this.#events.push({ type, object });
    for (const events of this.#watches) events.push({ type, object });
    return object;
  }
}

function statusOf(stored: Stored): RowStatus {
  return stored.status ?? DEFAULT_STATUS;
}

function shown(stored: Stored): RowObject {
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
function wellFormed(spec: RowSpec): RowSpec {
  return JSON.parse(JSON.stringify(spec), (_key, value: unknown) =>
    typeof value === 'string' ? value.toWellFormed() : value,
  ) as RowSpec;
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

function checkSpec(spec: RowSpec): void {
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

function checkText(text: string, least: number, most: number): void {
  const points = Array.from(text).length;
  // oxlint-disable-next-line no-control-regex -- the CRD's own pattern
  const pattern = /^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$/;
  if (points < least || points > most || !pattern.test(text)) throw apiFailure('rejected');
}

function checkStatus({ state, conditions }: RowStatus): void {
  const types = (conditions ?? []).map(({ type }) => type);
  if (
    (state !== 'Connected' && state !== 'Unknown') ||
    types.length === 0 ||
    new Set(types).size < types.length
  ) {
    throw apiFailure('rejected');
  }
}
