import type { Names } from '../core/names.ts';
import type { Clock } from '../clock.ts';

/** The parts of a Lease that show whether its holder is alive. */
export interface ObservedLease {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
  };
  readonly spec?: { readonly holderIdentity?: string | null };
}

interface ReplicaEntry {
  lease: ObservedLease;
  /** The spec as JSON, and when it was first seen: only a change proves that the holder is alive. */
  lastSpec: string;
  changedMs: number;
  deleted: boolean;
}

/** As in `src/k8s/lease.ts`: the holder itself stopped using the Lease 5 s earlier. */
const EXPIRED_AFTER_MS = 15_000;
/** How long the Lease of a dead replica is kept for inspection. */
const LEASE_RETENTION_MS = 3_600_000;

export interface LeaseWatchHandler {
  /** A Lease was listed, or changed; undefined if it was deleted. */
  onWatchEvent(lease: ObservedLease | undefined): void;
}

/**
 * The replicas that are alive, by their Leases. A Lease proves that its holder is alive for 15 s from the moment when a
 * change of its spec was *seen by this replica*, whatever times it contains, because clocks may differ by hours. A deleted
 * Lease counts for the rest of its 15 s: the reporters of a replica that was shut down are about to reconnect.
 */
export class ReplicaRegistry {
  readonly #names: Names;
  readonly #clock: Clock;
  readonly #handlers = new Map<string, LeaseWatchHandler>();
  readonly #byName = new Map<string, ReplicaEntry>();
  #listed: Set<string> | undefined;

  constructor(names: Names, clock: Clock) {
    this.#names = names;
    this.#clock = clock;
  }

  /** Registers the handler of the Lease with this name. */
  addEventHandler(leaseName: string, handler: LeaseWatchHandler): void {
    this.#handlers.set(leaseName, handler);
  }

  /** Returns true while the Lease of a replica proves that it is alive. */
  isAlive(replica: string): boolean {
    const known = this.#byName.get(this.#names.leaseName(replica));
    return (
      known?.lease.spec?.holderIdentity === replica &&
      this.#clock.monotonicMs() - known.changedMs < EXPIRED_AFTER_MS
    );
  }

  /** Returns true while a replica is alive and has not released its Lease. */
  isServing(replica: string): boolean {
    return this.isAlive(replica) && this.#byName.get(this.#names.leaseName(replica))?.deleted === false;
  }

  /** Yields the Leases of replicas that have been dead for an hour, never Leases of other programs. */
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
    const { name, uid, resourceVersion } = lease.metadata;
    const lastSpec = JSON.stringify(lease.spec ?? null);
    const known = this.#byName.get(name);
    const stored: ObservedLease = {
      metadata: { name, uid, resourceVersion },
      ...(lease.spec === undefined ? {} : { spec: lease.spec }),
    };
    const changedMs = known?.lastSpec === lastSpec ? known.changedMs : this.#clock.monotonicMs();
    this.#byName.set(name, { lease: stored, lastSpec, changedMs, deleted: false });
    this.#handlers.get(name)?.onWatchEvent(stored);
  }

  #markDeleted(name: string): void {
    const known = this.#byName.get(name);
    if (known === undefined) return;
    known.deleted = true;
    this.#handlers.get(name)?.onWatchEvent(undefined);
  }

  /** Returns true for Leases of replicas, by name: admission may rewrite labels. False for the leader's Lease and those of other programs. */
  #isReplicaLease({ metadata, spec }: ObservedLease): boolean {
    return metadata.name === this.#names.leaseName(spec?.holderIdentity ?? '');
  }
}
