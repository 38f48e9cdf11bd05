import type { ApiObject } from './api-object.ts';

/** A coordination.k8s.io/v1 Lease: the parts that this project reads. */
export interface LeaseObject extends ApiObject {
  readonly spec?: LeaseSpec;
}

/** Who holds it and since when, by the holder's own clock: of others' clocks only a change means anything. */
export interface LeaseSpec {
  /** Absent or empty: nobody. */
  readonly holderIdentity?: string | null;
  readonly leaseDurationSeconds?: number | null;
  readonly acquireTime?: string | null;
  readonly renewTime?: string | null;
  readonly leaseTransitions?: number | null;
}

/** Where this project's Leases live, beside its objects. */
export function leaseResource(namespace: string) {
  return { group: 'coordination.k8s.io', version: 'v1', plural: 'leases', namespace } as const;
}

/** One for all replicas in a namespace. */
export const LEADER_LEASE = 'reverse-tunnel-operator-leader';

/** Others hold a Lease for dead when it has not changed for so long; the time written into it says so too, for people. */
export const LEASE_DURATION_MS = 15_000;
