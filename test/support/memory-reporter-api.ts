import type { Condition } from '../../src/core/kubernetes.ts';
import type { ReporterObjectApi } from '../../src/controller/object-api.ts';
import type {
  ReporterManifest,
  ReporterObject,
  ReporterStatus,
  ReporterStatusPatch,
} from '../../src/core/reporter-object.ts';
import { apiFailure } from './memory-tunnel-api.ts';

/** The part of a reporter cache that a list needs. */
export interface ReporterSink {
  replaceBegin(): void;
  replaceItem(object: ReporterObject): void;
  replaceEnd(version: string): void;
  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: ReporterObject): void;
}

interface ReporterEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: ReporterObject;
}

const PENDING = ['Connected', 'Synced', 'Ready'].map((type): Condition => ({
  type,
  status: 'Unknown',
  reason: 'Pending',
  message: '',
  lastTransitionTime: '1970-01-01T00:00:00Z',
}));

const NO_WEBHOOK: MemoryReporterApi['admit'] = (object) => object;

/** The reporter objects of an API server in memory, with versions, 409 for a stale one, merge patches and the default status. */
export class MemoryReporterApi implements ReporterObjectApi {
  /** Every executed call, as `verb name`. */
  readonly calls: string[] = [];
  /** A mutating admission webhook. */
  admit: (object: ReporterObject, verb: 'create' | 'patchStatus') => ReporterObject = (object) => object;
  readonly #objects = new Map<string, ReporterObject>();
  /** Names of objects with a finalizer. */
  readonly #finalized = new Set<string>();
  readonly #watches = new Set<ReporterEvent[]>();
  #version = 995;
  #uids = 0;

  get objects(): ReadonlyMap<string, ReporterObject> {
    return this.#objects;
  }

  /** Opens a watch from now on. Returns a function that delivers up to `count` of its events. */
  watch(sink: ReporterSink): (maxEvents?: number) => number {
    const events: ReporterEvent[] = [];
    this.list(sink);
    this.#watches.add(events);
    return (maxEvents = Number.POSITIVE_INFINITY) => {
      const delivered = events.splice(0, Math.min(maxEvents, events.length));
      for (const { type, object } of delivered) sink.event(type, object);
      return delivered.length;
    };
  }

  /** Lists everything into `sink`. */
  list(sink: ReporterSink): void {
    sink.replaceBegin();
    for (const object of this.#objects.values()) sink.replaceItem(object);
    sink.replaceEnd(String(this.#version));
  }

  async create({ metadata: { name, labels, annotations }, spec }: ReporterManifest): Promise<ReporterObject> {
    this.calls.push(`create ${name}`);
    if (this.#objects.has(name)) throw apiFailure('already_exists');
    this.#uids += 1;
    const uid = `reporter-uid-${this.#uids}`;
    const metadata = { name, labels, annotations, uid, resourceVersion: '' };
    return this.#put('ADDED', this.admit({ metadata, spec, status: { conditions: PENDING } }, 'create'));
  }

  async patchStatus(
    name: string,
    resourceVersion: string,
    patch: ReporterStatusPatch,
  ): Promise<ReporterObject> {
    const object = this.#at(name);
    if (object.metadata.resourceVersion !== resourceVersion) throw apiFailure('conflict');
    this.calls.push(`patchStatus ${name}`);
    return this.#change(object, patch, this.admit);
  }

  async read(name: string): Promise<ReporterObject | undefined> {
    this.calls.push(`read ${name}`);
    return this.#objects.get(name);
  }

  async delete(name: string, uid: string, resourceVersion: string): Promise<ReporterObject | undefined> {
    const object = this.#at(name);
    const { metadata } = object;
    if (metadata.resourceVersion !== resourceVersion || metadata.uid !== uid) throw apiFailure('conflict');
    this.calls.push(`delete ${name}`);
    if (this.#finalized.has(name)) {
      const terminating = { ...metadata, deletionTimestamp: '2026-11-23T05:00:00Z' };
      return this.#put('MODIFIED', { ...object, metadata: terminating });
    }
    this.deleteManually(name);
    return undefined;
  }

  /** Adds a finalizer: after a deletion, the object stays until `remove`. */
  addFinalizer(name: string): void {
    this.#finalized.add(name);
  }

  /** Deletes an object like a user. */
  deleteManually(name: string): void {
    const object = this.#at(name);
    this.#objects.delete(name);
    this.#finalized.delete(name);
    this.#emit('DELETED', {
      ...object,
      metadata: { ...object.metadata, resourceVersion: this.#nextVersion() },
    });
  }

  /** Restores an object from a backup of etcd, without a watch event. */
  restore(object: ReporterObject): void {
    this.#objects.set(object.metadata.name, object);
    this.#version = Number(object.metadata.resourceVersion);
  }

  /** Edits the status like a user. */
  editManually(name: string, patch: ReporterStatusPatch): void {
    this.#change(this.#at(name), patch);
  }

  #at(name: string): ReporterObject {
    const object = this.#objects.get(name);
    if (object === undefined) throw apiFailure('not_found');
    return object;
  }

  #change(object: ReporterObject, patch: ReporterStatusPatch, admit = NO_WEBHOOK): ReporterObject {
    const entries = Object.entries({ ...object.status, ...patch }).filter(([, value]) => value !== null);
    const status = Object.fromEntries(entries) as ReporterStatus;
    return this.#put('MODIFIED', admit({ ...object, status }, 'patchStatus'));
  }

  #put(type: 'ADDED' | 'MODIFIED', object: ReporterObject): ReporterObject {
    const stored = { ...object, metadata: { ...object.metadata, resourceVersion: this.#nextVersion() } };
    this.#objects.set(object.metadata.name, stored);
    this.#emit(type, stored);
    return stored;
  }

  #nextVersion(): string {
    this.#version += 1;
    return String(this.#version);
  }

  #emit(type: ReporterEvent['type'], object: ReporterObject): void {
    for (const events of this.#watches) events.push({ type, object });
  }
}
