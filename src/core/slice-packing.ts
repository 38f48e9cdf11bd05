import {
  existingOpenSlice,
  openSlice,
  placesOf,
  planMergeOf,
  withMember,
  type PackedSlice,
  type SliceMerge,
  type TenantSlices,
} from './packed-slice.ts';
import { MAX_SLICE_TUNNELS, type ObservedSlice } from './slice-object.ts';
import { Drift } from './tunnel-object.ts';

const NO_ENTRIES: ReadonlyMap<string, unknown> = new Map();
const NO_NAMES: ReadonlySet<string> = new Set();

/**
 * Assigns the tunnels of one reporter to slices. A tunnel stays in its slice, unless its tenant changes, the slice is
 * deleted, or two slices are merged. A new tunnel goes to a slice that is written anyway, otherwise to another one with a
 * place, otherwise to a new one; n tunnels therefore cost at most ceil(n / 100) writes plus one per slice with a place.
 *
 * It must be notified of each change of the observed slices, including the results of own writes.
 */
export class SlicePacking {
  readonly #sliceName: (tenantID: string, ordinal: number) => string;
  readonly #maxTunnels: number;
  readonly #slices = new Map<string, PackedSlice>();
  readonly #tenants = new Map<string, TenantSlices>();
  /** By tunnel name. */
  readonly #assigned = new Map<string, PackedSlice>();
  /** By tunnel name, the slices in which it lingers or which it leaves; a tunnel is rarely in more than one. */
  readonly #remains = new Map<string, Set<PackedSlice>>();
  /** Tenants with several open slices, one of which has changed since they were last found to have nothing to merge. */
  readonly #mergeable = new Set<TenantSlices>();
  /** The slices that must be compared. */
  #changed = new Set<string>();

  /**
   * @param sliceName the name of a slice of the reporter; see `Names.sliceObjectName`
   * @param maxTunnels the most tunnels in a slice: 1 to 100
   */
  constructor(
    sliceName: (tenantID: string, ordinal: number) => string,
    maxTunnels: number = MAX_SLICE_TUNNELS,
  ) {
    this.#sliceName = sliceName;
    this.#maxTunnels = maxTunnels;
  }

  /** Observes all slices of the reporter. A tunnel in two slices is assigned to the one with more tunnels. */
  adopt(slices: Iterable<ObservedSlice>): void {
    const ordered = Array.from(slices).toSorted(
      (a, b) => b.entries.size - a.entries.size || (a.ordinal ?? 0) - (b.ordinal ?? 0),
    );
    for (const slice of ordered) this.observe(slice);
  }

  /**
   * Updates what a slice contains. Tunnels in it that are not assigned yet are assigned to it.
   *
   * @returns tunnels that were assigned to it, and no longer are because it is being deleted; see `assign`
   */
  observe({ name, tenantID, ordinal, entries, drift }: ObservedSlice): string[] {
    const slice = this.#slices.get(name) ?? this.#add(name, tenantID, ordinal);
    const before = slice.observed ?? NO_ENTRIES;
    slice.observed = entries;
    slice.canAssign = ordinal !== undefined && (drift & Drift.terminating) === 0;
    this.#removeEntries(slice, before, entries);
    for (const tunnelName of entries.keys()) this.#observeEntry(slice, tunnelName);
    const orphans = slice.canAssign ? [] : this.#unassignAll(slice);
    this.#update(slice);
    return orphans;
  }

  /** Records that a slice does not exist. What is assigned to it stays so, and it must be created again. */
  observeDeleted(sliceName: string): void {
    const slice = this.#slices.get(sliceName);
    if (slice === undefined) return;
    const before = slice.observed ?? NO_ENTRIES;
    slice.observed = undefined;
    slice.canAssign = slice.ordinal !== undefined;
    this.#removeEntries(slice, before, NO_ENTRIES);
    this.#update(slice);
  }

  /**
   * Records that the name of a slice is taken by an object that belongs to another reporter or tenant.
   *
   * @returns tunnels that were assigned to it, and no longer are; see `assign`
   */
  block(sliceName: string): string[] {
    const slice = this.#slices.get(sliceName);
    if (slice === undefined) return [];
    slice.canAssign = false;
    const orphans = this.#unassignAll(slice);
    this.#update(slice);
    return orphans;
  }

  /** Assigns a tunnel that must be in a slice, and returns the name of that slice. It stays where it is if it can. */
  assign(tunnelName: string, tenantID: string): string {
    const current = this.#assigned.get(tunnelName);
    if (current?.tenant.tenantID === tenantID) {
      // The slice may have been compared already, when it could not be written.
      if (current.pending?.has(tunnelName) === true) this.#changed.add(current.name);
      return current.name;
    }
    if (current !== undefined) {
      this.#unassign(current, tunnelName, 'lingering');
      this.#update(current);
    }
    const slice = this.#returnTo(tunnelName, tenantID) ?? this.#choose(tenantID);
    this.#assignTo(slice, tunnelName);
    this.#markDirty(slice);
    return slice.name;
  }

  /**
   * Unassigns a tunnel whose entry must leave with the next write: it is absent, and may be removed, or it must be a
   * ReverseTunnel object and is observed as one. Its place is free from now on.
   */
  release(tunnelName: string): void {
    const slice = this.#assigned.get(tunnelName);
    // Also those that it was to leave before, because a hold may have kept it there.
    this.#leaveOthers(tunnelName);
    if (slice === undefined) return;
    this.#unassign(slice, tunnelName, 'leaving');
    this.#markDirty(slice);
  }

  /** Returns the slices whose desired content has changed since the last call, and that must be compared. */
  takeChanged(): Iterable<string> {
    const changed = this.#changed;
    if (changed.size > 0) this.#changed = new Set();
    return changed;
  }

  /** Returns the name of the slice that a tunnel is assigned to. */
  sliceOf(tunnelName: string): string | undefined {
    return this.#assigned.get(tunnelName)?.name;
  }

  /** Returns true if a slice has no place for another tunnel. */
  isFull(sliceName: string): boolean {
    const slice = this.#slices.get(sliceName);
    return slice !== undefined && placesOf(slice) >= this.#maxTunnels;
  }

  /** Returns the tunnels that are assigned to a slice that does not contain them. */
  pending(sliceName: string): ReadonlySet<string> {
    return this.#slices.get(sliceName)?.pending ?? NO_NAMES;
  }

  /** Returns the tenant and the ordinal of a slice, with which it can be created; undefined if it must not be. */
  identity(sliceName: string): { readonly tenantID: string; readonly ordinal: number } | undefined {
    const slice = this.#slices.get(sliceName);
    if (slice?.ordinal === undefined || !slice.canAssign) return undefined;
    return { tenantID: slice.tenant.tenantID, ordinal: slice.ordinal };
  }

  /** Records that a slice is being compared and written: what is assigned to it later costs another write. */
  writing(sliceName: string): void {
    const slice = this.#slices.get(sliceName);
    if (slice === undefined) return;
    slice.isDirty = false;
    this.#update(slice);
  }

  /** Assigns tunnels to other slices that have no place in a slice because entries stay that were expected to leave. */
  reassign(sliceName: string, tunnelNames: readonly string[]): void {
    const slice = this.#slices.get(sliceName);
    if (slice === undefined) return;
    for (const leaving of slice.leaving ?? []) this.#setRemain(slice, leaving, 'lingering');
    for (const tunnelName of tunnelNames)
      if (slice.pending?.has(tunnelName) === true) this.#unassign(slice, tunnelName, 'leaving');
    this.#update(slice);
    for (const tunnelName of tunnelNames)
      if (!this.#assigned.has(tunnelName)) this.assign(tunnelName, slice.tenant.tenantID);
  }

  /** Assigns no more tunnels to a slice, until `reopen`: the API server rejects what other slices accept. */
  close(sliceName: string): void {
    this.#setClosed(sliceName, true);
  }

  /** Ends `close`. */
  reopen(sliceName: string): void {
    this.#setClosed(sliceName, false);
  }

  /**
   * Assigns tunnels to other slices, because the API server rejects them in the slice that they are assigned to.
   *
   * @param canOpen true: to slices that do not exist yet, if no other slice has a place
   * @returns the names of the tunnels that are assigned to another slice now
   */
  moveElsewhere(sliceName: string, tunnelNames: Iterable<string>, canOpen: boolean): string[] {
    const slice = this.#slices.get(sliceName);
    if (slice === undefined) return [];
    const { isClosed, tenant } = slice;
    slice.isClosed = true;
    this.#update(slice);
    const moved: string[] = [];
    for (const tunnelName of tunnelNames) {
      if (slice.pending?.has(tunnelName) !== true) continue;
      const other = this.#returnTo(tunnelName, tenant.tenantID) ?? existingOpenSlice(tenant);
      const target = other ?? (canOpen ? this.#choose(tenant.tenantID) : undefined);
      if (target === undefined) continue;
      this.#unassign(slice, tunnelName, 'leaving');
      this.#assignTo(target, tunnelName);
      this.#markDirty(target);
      moved.push(tunnelName);
    }
    slice.isClosed = isClosed;
    this.#update(slice);
    return moved;
  }

  /**
   * Returns two half-empty slices of a tenant that can be merged: the one with the fewest tunnels into the one with the
   * most. Undefined if there are none that are completely written.
   */
  planMerge(): SliceMerge | undefined {
    for (const tenant of this.#mergeable) {
      const merge = planMergeOf(tenant, this.#maxTunnels);
      if (merge !== undefined) return merge;
      // Until one of its slices changes.
      this.#mergeable.delete(tenant);
    }
    return undefined;
  }

  /** Assigns the tunnels of one slice to another one. Both must be written, first `to`. */
  merge({ from, to }: SliceMerge): void {
    const source = this.#slices.get(from);
    const target = this.#slices.get(to);
    if (source === undefined || target === undefined) return;
    for (const tunnelName of source.observed?.keys() ?? []) {
      if (this.#assigned.get(tunnelName) !== source) continue;
      this.#unassign(source, tunnelName, 'lingering');
      this.#assignTo(target, tunnelName);
    }
    this.#markDirty(source);
    this.#markDirty(target);
  }

  /** Handles an entry of an observed slice. */
  #observeEntry(slice: PackedSlice, tunnelName: string): void {
    const owner = this.#assigned.get(tunnelName);
    if (owner === slice) {
      if (slice.pending?.delete(tunnelName) === true && slice.pending.size === 0) slice.pending = undefined;
      // Also if it was here before: it may have got the identity without which it had to stay elsewhere.
      this.#leaveOthers(tunnelName);
    } else if (owner !== undefined) {
      const isCovered = owner.observed?.has(tunnelName) === true;
      this.#setRemain(slice, tunnelName, isCovered ? 'leaving' : 'lingering');
    } else if (!slice.canAssign) this.#setRemain(slice, tunnelName, 'lingering');
    else if (slice.leaving?.has(tunnelName) !== true) {
      slice.assigned += 1;
      this.#assigned.set(tunnelName, slice);
    }
  }

  /** Handles the entries that a slice no longer contains. */
  #removeEntries(
    slice: PackedSlice,
    before: ReadonlyMap<string, unknown>,
    after: ReadonlyMap<string, unknown>,
  ): void {
    for (const tunnelName of before.keys()) {
      if (after.has(tunnelName)) continue;
      this.#setRemain(slice, tunnelName, undefined);
      if (this.#assigned.get(tunnelName) !== slice) continue;
      (slice.pending ??= new Set()).add(tunnelName);
      // Elsewhere it must stay again, until it is back.
      for (const remaining of this.#remains.get(tunnelName) ?? []) {
        this.#setRemain(remaining, tunnelName, 'lingering');
        this.#update(remaining);
      }
      this.#changed.add(slice.name);
    }
  }

  /** Returns the slice that a tunnel is about to leave, if its place there is still free. */
  #returnTo(tunnelName: string, tenantID: string): PackedSlice | undefined {
    let found: PackedSlice | undefined;
    for (const slice of this.#remains.get(tunnelName) ?? []) {
      if (slice.tenant.tenantID === tenantID && slice.canAssign && placesOf(slice) < this.#maxTunnels) {
        found ??= slice;
      }
    }
    if (found !== undefined) return found;
    // Its place was given away, but it must stay there until it is elsewhere.
    for (const slice of this.#remains.get(tunnelName) ?? []) {
      this.#setRemain(slice, tunnelName, 'lingering');
      this.#update(slice);
    }
    return undefined;
  }

  #choose(tenantID: string): PackedSlice {
    const tenant = this.#tenant(tenantID);
    const open = openSlice(tenant);
    if (open !== undefined) return open;
    let ordinal = tenant.lowestFree;
    while (tenant.ordinals.has(ordinal)) ordinal += 1;
    tenant.lowestFree = ordinal;
    return this.#add(this.#sliceName(tenantID, ordinal), tenantID, ordinal);
  }

  #setClosed(sliceName: string, isClosed: boolean): void {
    const slice = this.#slices.get(sliceName);
    if (slice === undefined) return;
    slice.isClosed = isClosed;
    this.#update(slice);
  }

  #assignTo(slice: PackedSlice, tunnelName: string): void {
    slice.assigned += 1;
    this.#assigned.set(tunnelName, slice);
    if (slice.observed?.has(tunnelName) !== true) {
      (slice.pending ??= new Set()).add(tunnelName);
      return;
    }
    this.#setRemain(slice, tunnelName, undefined);
    this.#leaveOthers(tunnelName);
  }

  /** Handles that the slice of a tunnel contains it: it may leave those in which it lingers. */
  #leaveOthers(tunnelName: string): void {
    for (const slice of this.#remains.get(tunnelName) ?? []) {
      this.#setRemain(slice, tunnelName, 'leaving');
      this.#markDirty(slice);
    }
  }

  #unassign(slice: PackedSlice, tunnelName: string, remain: 'lingering' | 'leaving'): void {
    slice.assigned -= 1;
    this.#assigned.delete(tunnelName);
    if (slice.pending?.delete(tunnelName) === true) {
      if (slice.pending.size === 0) slice.pending = undefined;
    } else this.#setRemain(slice, tunnelName, remain);
  }

  #unassignAll(slice: PackedSlice): string[] {
    const names = [...(slice.pending ?? [])];
    for (const name of slice.observed?.keys() ?? []) if (this.#assigned.get(name) === slice) names.push(name);
    for (const name of names) this.#unassign(slice, name, 'lingering');
    return names;
  }

  /** Sets how a tunnel that is assigned to no slice, or to another one, remains in a slice; undefined if it does not. */
  #setRemain(slice: PackedSlice, tunnelName: string, remain: 'lingering' | 'leaving' | undefined): void {
    if (remain === undefined && slice.lingering === undefined && slice.leaving === undefined) return;
    slice.lingering = withMember(slice.lingering, tunnelName, remain === 'lingering');
    slice.leaving = withMember(slice.leaving, tunnelName, remain === 'leaving');
    const slices = this.#remains.get(tunnelName);
    if (remain !== undefined) {
      if (slices === undefined) this.#remains.set(tunnelName, new Set([slice]));
      else slices.add(slice);
    } else if (slices?.delete(slice) === true && slices.size === 0) this.#remains.delete(tunnelName);
  }

  #add(name: string, tenantID: string, ordinal: number | undefined): PackedSlice {
    const tenant = this.#tenant(tenantID);
    if (ordinal !== undefined) tenant.ordinals.add(ordinal);
    const slice: PackedSlice = {
      name,
      tenant,
      ordinal,
      observed: undefined,
      canAssign: ordinal !== undefined,
      isClosed: false,
      isDirty: false,
      assigned: 0,
      pending: undefined,
      lingering: undefined,
      leaving: undefined,
    };
    this.#slices.set(name, slice);
    return slice;
  }

  #tenant(tenantID: string): TenantSlices {
    let tenant = this.#tenants.get(tenantID);
    if (tenant === undefined) {
      tenant = { tenantID, ordinals: new Set(), lowestFree: 0, open: undefined, dirty: undefined };
      this.#tenants.set(tenantID, tenant);
    }
    return tenant;
  }

  #markDirty(slice: PackedSlice): void {
    slice.isDirty = true;
    this.#changed.add(slice.name);
    this.#update(slice);
  }

  /** Records whether a slice has a place, or forgets it if it neither exists nor will be created. */
  #update(slice: PackedSlice): void {
    const { tenant, name, ordinal } = slice;
    // A slice that loses all of its tunnels to another one will be deleted.
    const isMerged = slice.assigned === 0 && slice.lingering !== undefined;
    const canAssign = slice.canAssign && !slice.isClosed;
    const isOpen = canAssign && !isMerged && placesOf(slice) < this.#maxTunnels;
    const isKnown = slice.observed !== undefined || slice.assigned > 0 || !slice.canAssign;
    tenant.open = withMember(tenant.open, slice, isOpen && isKnown);
    tenant.dirty = withMember(tenant.dirty, slice, isOpen && isKnown && slice.isDirty);
    if ((tenant.open?.size ?? 0) > 1) this.#mergeable.add(tenant);
    else this.#mergeable.delete(tenant);
    if (isKnown) return;
    this.#slices.delete(name);
    if (ordinal !== undefined) {
      tenant.ordinals.delete(ordinal);
      tenant.lowestFree = Math.min(tenant.lowestFree, ordinal);
    }
    if (tenant.ordinals.size === 0 && this.#tenants.get(tenant.tenantID) === tenant)
      this.#tenants.delete(tenant.tenantID);
  }
}
