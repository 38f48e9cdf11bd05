import { isManaged } from '../core/managed-by.ts';
import type { Names } from '../core/names.ts';
import type { Clock } from '../clock.ts';

/** A Lease as far as it says who is alive. */
export interface LeaseSeen {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly spec?: { readonly holderIdentity?: string | null };
}

interface Replica {
  lease: LeaseSeen;
  /** What its spec said last, and when that was first seen: only a change is a sign of life. */
  said: string;
  changedMs: number;
  deleted: boolean;
}

/** As in `src/k8s/lease.ts`: the holder has given itself up 5 s before. */
const DEAD_AFTER_MS = 15_000;
/** So long a dead replica's Lease is kept, for people to look at. */
const LEASE_KEPT_MS = 3_600_000;

/**
 * Which replicas live, by their Leases as the watch shows them. A Lease proves its holder for 15 s from when a change of
 * it was *seen here*; what time stands in it does not matter, as clocks may be hours apart. One that is deleted proves
 * its holder for the rest of that time: who was shut down has reporters that are about to come back somewhere.
 */
export class ReplicaDirectory {
  readonly #names: Names;
  readonly #clock: Clock;
  readonly #byName = new Map<string, Replica>();
  #listed: Set<string> | undefined;
  /** Called for each Lease that is seen, with undefined when it is gone. */
  onLease: (name: string, lease: LeaseSeen | undefined) => void = () => {};

  constructor(names: Names, clock: Clock) {
    this.#names = names;
    this.#clock = clock;
  }

  /** True while the Lease of a replica proves it. */
  isAlive(replica: string): boolean {
    const known = this.#byName.get(this.#names.leaseName(replica));
    return (
      known?.lease.spec?.holderIdentity === replica &&
      this.#clock.monotonicMs() - known.changedMs < DEAD_AFTER_MS
    );
  }

  /** True while it lives and has not given its Lease up. */
  isServing(replica: string): boolean {
    return this.isAlive(replica) && this.#byName.get(this.#names.leaseName(replica))?.deleted === false;
  }

  /** Leases of replicas that have been dead for an hour; others' Leases are not among them. */
  *longDead(): Iterable<LeaseSeen> {
    const nowMs = this.#clock.monotonicMs();
    for (const [name, { lease, changedMs, deleted }] of this.#byName) {
      if (nowMs - changedMs < (deleted ? DEAD_AFTER_MS : LEASE_KEPT_MS)) continue;
      if (deleted) this.#byName.delete(name);
      else if (this.#isReplicas(lease)) yield lease;
    }
  }

  replaceBegin(): void {
    this.#listed = new Set();
  }

  replaceItem(lease: LeaseSeen): void {
    this.#listed?.add(lease.metadata.name);
    this.#seen(lease);
  }

  replaceEnd(): void {
    for (const name of this.#byName.keys()) if (this.#listed?.has(name) === false) this.#gone(name);
    this.#listed = undefined;
  }

  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', lease: LeaseSeen): void {
    if (type === 'DELETED') this.#gone(lease.metadata.name);
    else this.#seen(lease);
  }

  #seen(lease: LeaseSeen): void {
    const { name, uid, resourceVersion, labels } = lease.metadata;
    const said = JSON.stringify(lease.spec ?? null);
    const known = this.#byName.get(name);
    const kept: LeaseSeen = {
      metadata: { name, uid, resourceVersion, ...(labels === undefined ? {} : { labels }) },
      ...(lease.spec === undefined ? {} : { spec: lease.spec }),
    };
    const changedMs = known?.said === said ? known.changedMs : this.#clock.monotonicMs();
    this.#byName.set(name, { lease: kept, said, changedMs, deleted: false });
    this.onLease(name, kept);
  }

  #gone(name: string): void {
    const known = this.#byName.get(name);
    if (known === undefined) return;
    known.deleted = true;
    this.onLease(name, undefined);
  }

  /** By label and by name: the leader's Lease, and others' in the namespace, are none. */
  #isReplicas({ metadata, spec }: LeaseSeen): boolean {
    return isManaged(metadata.labels) && metadata.name === this.#names.leaseName(spec?.holderIdentity ?? '');
  }
}
