/** The slices of a reporter as `SlicePacking` assigns tunnels to them. */

/** A slice of the reporter: one that exists, or one that will be created for the tunnels that are assigned to it. */
export interface PackedSlice {
  readonly name: string;
  readonly tenant: TenantSlices;
  /** Undefined if the name is not derived: nothing is assigned to such a slice. */
  readonly ordinal: number | undefined;
  /** As last observed; undefined if it does not exist. */
  observed: ReadonlyMap<string, unknown> | undefined;
  /** False while it is being deleted, and if its name is taken by an object of another reporter. */
  canAssign: boolean;
  /** True while no tunnel should be assigned to it, because the API server rejects its writes. */
  isClosed: boolean;
  /** True from a change of what it must contain until it is written. */
  isDirty: boolean;
  /** The number of tunnels that are assigned to it. */
  assigned: number;
  /** Assigned tunnels that are not in it. Undefined: none; the same for the following. */
  pending: Set<string> | undefined;
  /** Tunnels in it that are assigned to another slice, which does not contain them yet. They need a place until then. */
  lingering: Set<string> | undefined;
  /** Tunnels in it that leave it with its next write, and whose places are free. */
  leaving: Set<string> | undefined;
}

/** The slices of one tenant. */
export interface TenantSlices {
  readonly tenantID: string;
  readonly ordinals: Set<number>;
  /** No lower ordinal is free. */
  lowestFree: number;
  /** Slices to which a tunnel can be assigned. Undefined: none, because a reporter may have many tenants. */
  open: Set<PackedSlice> | undefined;
  /** The dirty ones of `open`. */
  dirty: Set<PackedSlice> | undefined;
}

/** Two half-empty slices that can become one. */
export interface SliceMerge {
  /** The slice that becomes empty. */
  readonly from: string;
  readonly to: string;
}

/** Returns a slice for a new tunnel: one that is written anyway, otherwise one that exists; undefined if all are full. */
export function openSlice(tenant: TenantSlices): PackedSlice | undefined {
  const [dirty] = tenant.dirty ?? [];
  if (dirty !== undefined) return dirty;
  // The creation of one that does not exist is in flight, or was rejected.
  const [open] = tenant.open ?? [];
  return existingOpenSlice(tenant) ?? open;
}

/** Returns a slice that exists and has a place for another tunnel. */
export function existingOpenSlice({ open }: TenantSlices): PackedSlice | undefined {
  for (const slice of open ?? []) if (slice.observed !== undefined) return slice;
  return undefined;
}

/** Returns two half-empty slices of a tenant that are completely written; see `SlicePacking.planMerge`. */
export function planMergeOf({ open }: TenantSlices, maxTunnels: number): SliceMerge | undefined {
  let from: PackedSlice | undefined;
  let to: PackedSlice | undefined;
  for (const slice of open ?? []) {
    if (!isSettled(slice) || slice.assigned > maxTunnels / 2) continue;
    if (from === undefined || slice.assigned < from.assigned) {
      to ??= from;
      from = slice;
    } else if (to === undefined || slice.assigned > to.assigned) to = slice;
  }
  return from !== undefined && to !== undefined ? { from: from.name, to: to.name } : undefined;
}

/** Returns the number of places that are not free. */
export function placesOf({ assigned, lingering }: PackedSlice): number {
  return assigned + (lingering?.size ?? 0);
}

/** Returns true if a slice exists with exactly what is assigned to it. */
function isSettled({ observed, assigned, isDirty, pending, lingering, leaving }: PackedSlice): boolean {
  if (observed === undefined || assigned === 0 || isDirty) return false;
  return pending === undefined && lingering === undefined && leaving === undefined;
}

/** Returns the set with or without a member; undefined if it is empty. */
export function withMember<T>(members: Set<T> | undefined, member: T, isIn: boolean): Set<T> | undefined {
  if (isIn) return (members ?? new Set()).add(member);
  if (members?.delete(member) === true && members.size === 0) return undefined;
  return members;
}
