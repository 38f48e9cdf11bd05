import { ApiError } from '../../src/k8s/api-error.ts';
import type { LeaseObject, LeaseSpec } from '../../src/k8s/lease.ts';

interface LeasePatch {
  readonly metadata?: { readonly resourceVersion?: string };
  readonly spec?: LeaseSpec;
}

/** Leases of an API server in memory, with versions, 404 and 409. Calls can fail or hang. */
export class MemoryLeases {
  readonly title = 'leases in memory';
  readonly objects = new Map<string, LeaseObject>();
  /** Executed writes, as `verb name holder`. */
  readonly writes: string[] = [];
  /** Called for each change, like a watch. */
  readonly watches: ((name: string, object: LeaseObject | undefined) => void)[] = [];
  /** The error of every call. */
  failure: ApiError | undefined;
  /** Awaited by every call. */
  delay: Promise<void> | undefined;
  /** A mutating admission webhook: returns the spec that is stored. */
  admit: (spec: LeaseSpec | undefined) => LeaseSpec | undefined = (spec) => spec;
  #version = 95;

  async get(name: string): Promise<LeaseObject> {
    await this.#beforeCall();
    const object = this.objects.get(name);
    if (object === undefined) throw new ApiError('not_found', `get ${name}: 404`, { status: 404 });
    return object;
  }

  async create(object: object): Promise<LeaseObject> {
    await this.#beforeCall();
    const { metadata, spec } = object as { metadata: { name: string }; spec: LeaseSpec };
    if (this.objects.has(metadata.name)) throw new ApiError('already_exists', 'create: 409', { status: 409 });
    return this.#put('create', {
      metadata: { name: metadata.name, uid: `uid-${this.#version}`, resourceVersion: '' },
      ...withSpec(this.admit(spec)),
    });
  }

  async patch(name: string, patch: object): Promise<LeaseObject> {
    await this.#beforeCall();
    const { metadata, spec } = patch as LeasePatch;
    const object = this.#at(name, metadata?.resourceVersion);
    const { spec: _, ...others } = object;
    return this.#put('patch', { ...others, ...withSpec(this.admit({ ...object.spec, ...spec })) });
  }

  async delete(name: string, { resourceVersion }: { resourceVersion: string }): Promise<undefined> {
    await this.#beforeCall();
    this.#at(name, resourceVersion);
    this.deleteManually(name);
    this.writes.push(`delete ${name}`);
    return undefined;
  }

  /** Deletes a Lease like a user. */
  deleteManually(name: string): void {
    this.objects.delete(name);
    for (const watch of this.watches) watch(name, undefined);
  }

  /** Restores a Lease from a backup of etcd, without a watch event. */
  restore(name: string, object: LeaseObject): void {
    this.objects.set(name, object);
  }

  /** Edits a Lease like a user. */
  editManually(name: string, spec: LeaseSpec): void {
    const object = this.#at(name, undefined);
    this.#put('edit', { ...object, spec: { ...object.spec, ...spec } });
  }

  /** Restores the resource version from a backup of etcd. */
  restoreVersion(version: number): void {
    this.#version = version;
  }

  async #beforeCall(): Promise<void> {
    await this.delay;
    if (this.failure !== undefined) throw this.failure;
  }

  #at(name: string, version: string | undefined): LeaseObject {
    const object = this.objects.get(name);
    if (object === undefined) throw new ApiError('not_found', `${name}: 404`, { status: 404 });
    if (version !== undefined && version !== object.metadata.resourceVersion) {
      throw new ApiError('conflict', `${name}: 409`, { status: 409 });
    }
    return object;
  }

  #put(verb: string, object: LeaseObject): LeaseObject {
    this.#version += 1;
    const stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(this.#version) } };
    this.objects.set(stored.metadata.name, stored);
    this.writes.push(`${verb} ${stored.metadata.name} ${stored.spec?.holderIdentity ?? ''}`);
    for (const watch of this.watches) watch(stored.metadata.name, stored);
    return stored;
  }
}

function withSpec(spec: LeaseSpec | undefined): Pick<LeaseObject, 'spec'> {
  return spec === undefined ? {} : { spec };
}
