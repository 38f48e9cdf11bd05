import { isManaged, type Names } from '../core/names.ts';
import type { Clock } from '../clock.ts';

/** A Lease as far as it says who is alive. */
export interface ObservedLease {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly spec?: { readonly holderIdentity?: string | null };
}

interface ReplicaEntry {
  lease: ObservedLease;
  /** What its spec said last, and when that was first seen: only a change is a sign of life. */
  lastSpec: string;
  changedMs: number;
  deleted: boolean;
}

/** As in `src/k8s/lease.ts`: the holder has given itself up 5 s before. */
const EXPIRED_AFTER_MS = 15_000;
/** So long a dead replica's Lease is kept, for people to look at. */
const LEASE_RETENTION_MS = 3_600_000;

/**
 * Which replicas live, by their Leases as the watch shows them. A Lease proves its holder for 15 s from when a change of
 * it was *seen here*; what time stands in it does not matter, as clocks may be hours apart. One that is deleted proves
 * its holder for the rest of that time: who was shut down has reporters that are about to come back somewhere.
 */
export class ReplicaRegistry {
  readonly #names: Names;
  readonly #clock: Clock;
  readonly #byName = new Map<string, ReplicaEntry>();
  #listed: Set<string> | undefined;
  /** Called for each Lease that is seen, with undefined when it is gone. */
  onLease: (name: string, lease: ObservedLease | undefined) => void = () => {};

  constructor(names: Names, clock: Clock) {
    this.#names = names;
    this.#clock = clock;
  }

  /** True while the Lease of a replica proves it. */
  isAlive(replica: string): boolean {
    const known = this.#byName.get(this.#names.leaseName(replica));
    return (
      known?.lease.spec?.holderIdentity === replica &&
      this.#clock.monotonicMs() - known.changedMs < EXPIRED_AFTER_MS
    );
  }

  /** True while it lives and has not given its Lease up. */
  isServing(replica: string): boolean {
    return this.isAlive(replica) && this.#byName.get(this.#names.leaseName(replica))?.deleted === false;
  }

  /** Leases of replicas that have been dead for an hour; others' Leases are not among them. */
  *expiredLeases(): Iterable<ObservedLease> {
    const nowMs = this.#clock.monotonicMs();
    for (const [name, { lease, changedMs, deleted }] of this.#byName) {
      if (nowMs - changedMs < (deleted ? EXPIRED_AFTER_MS : LEASE_RETENTION_MS)) continue;
      if (deleted) this.#byName.delete(name);
      else if (this.#isReplicaLease(lease)) yield lease;
    }
  }

  replaceBegin(): void {
    this.#listed = new Set();
  }

  replaceItem(lease: ObservedLease): void {
    this.#listed?.add(lease.metadata.name);
    this.#upsert(lease);
  }

  replaceEnd(): void {
    for (const name of this.#byName.keys()) if (this.#listed?.has(name) === false) this.#markDeleted(name);
    this.#listed = undefined;
  }

  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', lease: ObservedLease): void {
    if (type === 'DELETED') this.#markDeleted(lease.metadata.name);
    else this.#upsert(lease);
  }

  #upsert(lease: ObservedLease): void {
    const { name, uid, resourceVersion, labels } = lease.metadata;
    const lastSpec = JSON.stringify(lease.spec ?? null);
    const known = this.#byName.get(name);
    const stored: ObservedLease = {
      metadata: { name, uid, resourceVersion, ...(labels === undefined ? {} : { labels }) },
      ...(lease.spec === undefined ? {} : { spec: lease.spec }),
    };
    const changedMs = known?.lastSpec === lastSpec ? known.changedMs : this.#clock.monotonicMs();
    this.#byName.set(name, { lease: stored, lastSpec, changedMs, deleted: false });
    this.onLease(name, stored);
  }

  #markDeleted(name: string): void {
    const known = this.#byName.get(name);
    if (known === undefined) return;
    known.deleted = true;
    this.onLease(name, undefined);
  }

  /** By label and by name: the leader's Lease, and others' in the namespace, are none. */
  #isReplicaLease({ metadata, spec }: ObservedLease): boolean {
    return isManaged(metadata.labels) && metadata.name === this.#names.leaseName(spec?.holderIdentity ?? '');
  }
}
