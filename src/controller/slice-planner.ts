import { isEntryUnknown, type ObservedSlice } from '../core/slice-object.ts';
import {
  planSlice,
  type DesiredEntry,
  type Placement,
  type SliceParts,
  type SlicePlan,
} from '../core/slice-plan.ts';
import { Drift } from '../core/tunnel-object.ts';
import { sameIdentity, sameTunnel, type Tunnel } from '../core/tunnel.ts';
import { departureScope, type Departures } from './departures.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { DesiredTunnel, Representations } from './representations.ts';
import type { SliceAssignments } from './slice-assignments.ts';
import type { SliceCache } from './slice-cache.ts';
import type { TunnelCache } from './tunnel-cache.ts';

export interface SlicePlannerOptions {
  readonly objects: TunnelCache;
  readonly slices: SliceCache;
  readonly assignments: SliceAssignments;
  readonly representations: Representations;
  readonly registry: ReporterRegistry;
  readonly departures: Departures;
}

/** A slice that a finalizer keeps, and whose status shows that its tunnels have closed. */
const DELETED = Drift.terminating | Drift.closed;

const NO_WRITE: SlicePlan = { action: undefined, overflow: [] };

/** Compares the desired state of slices (ledger, assignments) with the slices (cache). */
export class SlicePlanner {
  readonly #options: SlicePlannerOptions;

  constructor(options: SlicePlannerOptions) {
    this.#options = options;
  }

  /** Returns true if a reporter has slices, or tunnels that are represented in slices now or were so before. */
  isUsed(key: string): boolean {
    const { slices, assignments, representations } = this.#options;
    const wasUsed = slices.sliceCountOf(key) > 0 || assignments.known(key) !== undefined;
    return wasUsed || representations.mayUseSlices(key);
  }

  /**
   * Returns the next write that a slice needs.
   *
   * @param canRemove false: no entry leaves the slice
   * @param ignored parts whose differences are not written now
   * @param mayChange returns false for entries that do not change now
   */
  plan(
    key: string,
    sliceName: string,
    canRemove: boolean,
    ignored: SliceParts = 0,
    mayChange?: (tunnelName: string) => boolean,
  ): SlicePlan {
    const { slices, assignments, registry } = this.#options;
    const observed = slices.slice(key, sliceName);
    const packing = assignments.packing(key);
    const tenantID = observed?.tenantID ?? packing.identity(sliceName)?.tenantID;
    if (tenantID === undefined) return NO_WRITE;
    const context = {
      tenantID,
      maxTunnels: assignments.maxTunnels,
      phase: registry.phase(key),
      canRemove,
      pending: packing.pending(sliceName),
      mayChange,
      desired: (name: string, entry: Tunnel | undefined): DesiredEntry =>
        this.#desiredIn(key, sliceName, name, entry),
    };
    return planSlice(observed, context, ignored);
  }

  /** Returns true if a slice is not in the desired state, even if that is not written now. */
  sliceNeedsWrite(key: string, sliceName: string): boolean {
    return this.plan(key, sliceName, true).action !== undefined;
  }

  /** Returns true if entries must leave a slice. */
  needsRemoval(key: string, sliceName: string): boolean {
    const { action } = this.plan(key, sliceName, true);
    return action?.type === 'delete' || (action?.type === 'patch' && action.removed.length > 0);
  }

  /** Returns true if the slices do not show a tunnel as they should, even if that is not written now. */
  needsWrite(key: string, tunnelName: string): boolean {
    const { slices, assignments } = this.#options;
    const shown = slices.slicesOf(key, tunnelName);
    const desired = this.desired(key, tunnelName);
    const tunnel = entryOf(desired);
    const assigned = assignments.known(key)?.sliceOf(tunnelName);
    if (tunnel !== undefined) {
      const isShown = shown.some((slice) => {
        const entry = slice.entries.get(tunnelName);
        const isHere = entry !== undefined && (assigned ?? slice.name) === slice.name;
        return isHere && sameTunnel(entry, tunnel) && !isEntryUnknown(slice, tunnelName);
      });
      if (!isShown) return true;
    }
    return shown.some(
      (slice) =>
        (tunnel === undefined || slice.name !== assigned) &&
        (slice.drift & DELETED) !== DELETED &&
        this.#mayLeave(key, slice, tunnelName, desired),
    );
  }

  /** Returns what must be shown about a tunnel; see `entryOf`. */
  desired(key: string, tunnelName: string): DesiredTunnel {
    const { slices, representations } = this.#options;
    return representations.desired(key, tunnelName, slices.tunnel(key, tunnelName)?.tunnel);
  }

  /** Returns true if a slice shows a tunnel, so that its object is not needed. */
  covers(key: string, tunnel: Tunnel): boolean {
    return this.#options.slices.slicesOf(key, tunnel.name).some((slice) => this.#shows(key, slice, tunnel));
  }

  /** Returns true if a slice has an entry for a tunnel name. */
  hasEntry(key: string, tunnelName: string): boolean {
    return this.#options.slices.tunnel(key, tunnelName) !== undefined;
  }

  /** Returns the names of the tunnels that a slice shows, or that are assigned to it. */
  namesIn(key: string, sliceName: string): string[] {
    const { slices, assignments } = this.#options;
    const shown = slices.slice(key, sliceName)?.entries.keys() ?? [];
    return [...shown, ...(assignments.known(key)?.pending(sliceName) ?? [])];
  }

  /**
   * Returns true if a slice contains a tunnel that is not needed there.
   *
   * @param desired as `desired` returns it
   */
  mayLeave(key: string, tunnelName: string, desired: DesiredTunnel): boolean {
    return this.#options.slices
      .slicesOf(key, tunnelName)
      .some((slice) => this.#mayLeave(key, slice, tunnelName, desired));
  }

  #mayLeave(key: string, slice: ObservedSlice, tunnelName: string, desired: DesiredTunnel): boolean {
    const entry = slice.entries.get(tunnelName);
    if (entry === undefined) return false;
    // What is not reported is decided by the entry.
    const { state, placement } =
      desired.state.state === 'present'
        ? {
            state: desired.state,
            placement: this.#placement(key, slice.name, desired.state.tunnel, desired.usesSlice),
          }
        : this.#desiredIn(key, slice.name, tunnelName, entry);
    return state.state === 'absent' || placement === 'covered';
  }

  #desiredIn(key: string, sliceName: string, tunnelName: string, entry: Tunnel | undefined): DesiredEntry {
    const { state, usesSlice } = this.#options.representations.desired(key, tunnelName, entry);
    const tunnel = state.state === 'present' ? state.tunnel : entry;
    if (state.state === 'absent' || tunnel === undefined) return { state, placement: 'elsewhere' };
    return { state, placement: this.#placement(key, sliceName, tunnel, usesSlice) };
  }

  #placement(key: string, sliceName: string, tunnel: Tunnel, usesSlice: boolean): Placement {
    const { slices, assignments } = this.#options;
    if (!usesSlice) return this.#hasObject(key, tunnel) ? 'covered' : 'elsewhere';
    const assigned = assignments.known(key)?.sliceOf(tunnel.name);
    if (assigned === sliceName) return 'here';
    const other = assigned === undefined ? undefined : slices.slice(key, assigned);
    return other !== undefined && this.#shows(key, other, tunnel) ? 'covered' : 'elsewhere';
  }

  /** Returns true if a tunnel has an object that shows it, so that its entry is not needed. */
  #hasObject(key: string, tunnel: Tunnel): boolean {
    const { objects, departures } = this.#options;
    if (departures.has(key, tunnel.name)) return false;
    return objects
      .objects(key, tunnel.name)
      .some(({ drift, tunnel: shown }) => (drift & Drift.terminating) === 0 && sameIdentity(shown, tunnel));
  }

  #shows(key: string, slice: ObservedSlice, tunnel: Tunnel): boolean {
    const entry = slice.entries.get(tunnel.name);
    return (
      entry !== undefined &&
      (slice.drift & Drift.terminating) === 0 &&
      sameIdentity(entry, tunnel) &&
      !this.#options.departures.has(departureScope(key, slice.name), tunnel.name)
    );
  }
}

/** Returns the tunnel that slices must show; undefined if they must not show one. */
export function entryOf({ state, usesSlice }: DesiredTunnel): Tunnel | undefined {
  return usesSlice && state.state === 'present' ? state.tunnel : undefined;
}
