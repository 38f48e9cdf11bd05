import type { Ledger, TunnelState } from '../core/ledger.ts';
import { isEntryUnknown, type ObservedSlice } from '../core/slice-object.ts';
import { planSlice, type Placement, type SliceParts, type SlicePlan } from '../core/slice-plan.ts';
import { Drift } from '../core/tunnel-object.ts';
import { sameIdentity, sameTunnel, type Tunnel } from '../core/tunnel.ts';
import { departureScope, type Departures } from './departures.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { Representations } from './representations.ts';
import type { SliceAssignments } from './slice-assignments.ts';
import type { SliceCache } from './slice-cache.ts';
import type { TunnelCache } from './tunnel-cache.ts';

export interface SlicePlannerOptions {
  readonly ledger: Ledger;
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
   * @param canAdd false: no entry is added
   */
  plan(
    key: string,
    sliceName: string,
    canRemove: boolean,
    ignored: SliceParts = 0,
    canAdd = true,
  ): SlicePlan {
    const { ledger, slices, assignments, registry } = this.#options;
    const observed = slices.slice(key, sliceName);
    const packing = assignments.packing(key);
    const tenantID = observed?.tenantID ?? packing.identity(sliceName)?.tenantID;
    if (tenantID === undefined) return NO_WRITE;
    const context = {
      tenantID,
      maxTunnels: assignments.maxTunnels,
      phase: registry.phase(key),
      canRemove,
      pending: canAdd ? packing.pending(sliceName) : [],
      tunnelState: (name: string, entry: Tunnel | undefined): TunnelState =>
        ledger.tunnelState(key, name, entry),
      placement: (tunnel: Tunnel): Placement => this.#placement(key, sliceName, tunnel),
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
    const assigned = assignments.known(key)?.sliceOf(tunnelName);
    if (desired !== undefined) {
      const isShown = shown.some((slice) => {
        const entry = slice.entries.get(tunnelName);
        const isHere = entry !== undefined && (assigned ?? slice.name) === slice.name;
        return isHere && sameTunnel(entry, desired) && !isEntryUnknown(slice, tunnelName);
      });
      if (!isShown) return true;
    }
    return shown.some(
      ({ name, drift }) =>
        (desired === undefined || name !== assigned) &&
        (drift & DELETED) !== DELETED &&
        this.mayLeave(key, name, tunnelName),
    );
  }

  /** Returns the tunnel that slices should show under a name; undefined if they should not show one. */
  desired(key: string, tunnelName: string): Tunnel | undefined {
    const { ledger, slices, representations } = this.#options;
    const observed = slices.tunnel(key, tunnelName)?.tunnel;
    const state = ledger.tunnelState(key, tunnelName, observed);
    return state.state === 'present' && representations.usesSlice(key, state.tunnel)
      ? state.tunnel
      : undefined;
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

  /** Returns true if the entry of a tunnel in a slice is not needed there. */
  mayLeave(key: string, sliceName: string, tunnelName: string): boolean {
    const { ledger, slices } = this.#options;
    const entry = slices.slice(key, sliceName)?.entries.get(tunnelName);
    if (entry === undefined) return false;
    const state = ledger.tunnelState(key, tunnelName, entry);
    if (state.state === 'absent') return true;
    const tunnel = state.state === 'present' ? state.tunnel : entry;
    return this.#placement(key, sliceName, tunnel) === 'covered';
  }

  #placement(key: string, sliceName: string, tunnel: Tunnel): Placement {
    const { slices, assignments, representations } = this.#options;
    if (!representations.usesSlice(key, tunnel))
      return this.#hasObject(key, tunnel) ? 'covered' : 'elsewhere';
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
