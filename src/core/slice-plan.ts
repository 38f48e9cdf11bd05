import type { DisconnectPhase } from './grace-timer.ts';
import type { TunnelState } from './ledger.ts';
import { isEntryUnknown, MAX_SLICE_TUNNELS, type ObservedSlice } from './slice-object.ts';
import { Drift } from './tunnel-object.ts';
import { sameIdentity, sameTunnel, type Tunnel } from './tunnel.ts';

/** One API write that brings a slice closer to the desired state. */
export type SliceAction =
  | { readonly type: 'create'; readonly tunnels: readonly Tunnel[] }
  /** Merge patch of the mutable parts: labels, and the entries as a whole. */
  | {
      readonly type: 'patch';
      readonly slice: ObservedSlice;
      readonly tunnels: readonly Tunnel[];
      /**
       * Names of the entries that leave the slice, or become another tunnel. If there are any, the write needs the
       * permission to delete.
       */
      readonly removed: readonly string[];
    }
  | { readonly type: 'patchStatus'; readonly slice: ObservedSlice; readonly unknown: ReadonlySet<string> }
  /** The slice would be empty. */
  | { readonly type: 'delete'; readonly slice: ObservedSlice }
  /** Sets the status of a slice that would be empty, and that a finalizer keeps, to Closed. */
  | { readonly type: 'markClosed'; readonly slice: ObservedSlice }
  /** Expiry delete: the reporter has been disconnected for too long. */
  | { readonly type: 'expire'; readonly slice: ObservedSlice };

/**
 * Where a tunnel must be, seen from one slice:
 *
 * - `here`: in this slice.
 * - `elsewhere`: in another slice, or it must be a ReverseTunnel object, but it is not observed there.
 * - `covered`: as `elsewhere`, and it is observed there with the same identity, so that it can leave this slice.
 */
export type Placement = 'here' | 'elsewhere' | 'covered';

/** What the desired content of a slice depends on. */
export interface SliceContext {
  readonly tenantID: string;
  /** The most tunnels in a slice. Default: 100. */
  readonly maxTunnels?: number | undefined;
  /** Undefined while the reporter is connected. */
  readonly phase: DisconnectPhase | undefined;
  /** False while entries must not be removed, after a takeover for example. */
  readonly canRemove: boolean;
  /** Tunnels that are assigned to the slice, but are not in it. */
  readonly pending: Iterable<string>;
  /** Returns false for entries that are neither added, changed nor removed now. Default: true for all. */
  readonly mayChange?: ((tunnelName: string) => boolean) | undefined;
  /** @param observed the entry in the slice; undefined if it is not in it */
  desired(tunnelName: string, observed: Tunnel | undefined): DesiredEntry;
}

/** What a slice must show about a tunnel. */
export interface DesiredEntry {
  readonly state: TunnelState;
  /** Where the tunnel must be as it is reported, or as the entry shows it if it is not reported. */
  readonly placement: Placement;
}

/** Parts of a slice whose differences are not written now, because an admission webhook rewrites them, as a set of bits. */
export type SliceParts = number;
/** The bits of `SliceParts`. */
export const SliceParts = { content: 1, status: 2 } as const;

/** The next write of a slice. */
export interface SlicePlan {
  /** Undefined if there is no difference. */
  readonly action: SliceAction | undefined;
  /** Pending tunnels without a place, because entries stay that were expected to leave; see `SlicePacking.reassign`. */
  readonly overflow: readonly string[];
}

const NOTHING: SlicePlan = { action: undefined, overflow: [] };

/**
 * Compares the desired content of a slice with the observed one. Repeated calls terminate, because every write removes
 * one difference.
 *
 * An entry leaves a slice only if its tunnel is absent, or is observed elsewhere. That rule alone makes migrations, merges
 * and takeovers complete at every moment: no tunnel is ever without a slice or an object.
 *
 * @param slice undefined if it does not exist
 */
export function planSlice(
  slice: ObservedSlice | undefined,
  context: SliceContext,
  ignored: SliceParts = 0,
): SlicePlan {
  const { phase } = context;
  if (phase === 'expired') {
    const isGone = slice === undefined || (slice.drift & Drift.terminating) !== 0;
    return isGone ? NOTHING : { action: { type: 'expire', slice }, overflow: [] };
  }
  const { tunnels, removed, overflow, isChanged } = desiredContent(slice, context);
  if (slice === undefined) {
    return tunnels.length === 0 ? NOTHING : { action: { type: 'create', tunnels }, overflow };
  }
  const isTerminating = (slice.drift & Drift.terminating) !== 0;
  if (tunnels.length === 0 && context.canRemove) {
    if (!isTerminating) return { action: { type: 'delete', slice }, overflow };
    const isClosed = (slice.drift & Drift.closed) !== 0 || (ignored & SliceParts.status) !== 0;
    return { action: isClosed ? undefined : { type: 'markClosed', slice }, overflow };
  }
  const hasOtherLabels = (slice.drift & Drift.labels) !== 0 && phase !== 'unknown' && !isTerminating;
  if ((isChanged || hasOtherLabels) && (ignored & SliceParts.content) === 0)
    return { action: { type: 'patch', slice, tunnels, removed }, overflow };
  const action = (ignored & SliceParts.status) === 0 ? nextStatusAction(slice, context) : undefined;
  return { action, overflow };
}

/** The entries that a write changes, by name. */
export interface SliceChanges {
  /** Entries that leave the slice, or become another tunnel. */
  readonly removed: readonly string[];
  /** Entries that are added, or that change otherwise. */
  readonly others: readonly string[];
}

/** Returns which entries a write changes; none if it writes the status, or deletes the slice of an expired reporter. */
export function sliceChanges(action: SliceAction): SliceChanges {
  switch (action.type) {
    case 'create':
      return { removed: [], others: action.tunnels.map(({ name }) => name) };
    case 'patch': {
      const removed = new Set(action.removed);
      const others: string[] = [];
      for (const tunnel of action.tunnels) {
        const entry = action.slice.entries.get(tunnel.name);
        if (removed.has(tunnel.name) || (entry !== undefined && sameTunnel(entry, tunnel))) continue;
        others.push(tunnel.name);
      }
      return { removed: action.removed, others };
    }
    case 'delete':
      return { removed: [...action.slice.entries.keys()], others: [] };
    case 'patchStatus':
    case 'markClosed':
    case 'expire':
      return { removed: [], others: [] };
  }
}

interface DesiredContent {
  readonly tunnels: readonly Tunnel[];
  readonly removed: readonly string[];
  readonly overflow: readonly string[];
  readonly isChanged: boolean;
}

/** Returns the entries in their observed order, then the pending tunnels. */
function desiredContent(slice: ObservedSlice | undefined, context: SliceContext): DesiredContent {
  const tunnels: Tunnel[] = [];
  const removed: string[] = [];
  let isChanged = false;
  const { mayChange } = context;
  for (const entry of slice?.entries.values() ?? []) {
    const desired = desiredEntry(entry, context);
    const isFixed = desired !== entry && mayChange?.(entry.name) === false;
    const kept = isFixed ? entry : desired;
    if (kept === undefined || !sameIdentity(kept, entry)) removed.push(entry.name);
    if (kept === undefined) continue;
    tunnels.push(kept);
    if (!sameTunnel(kept, entry)) isChanged = true;
  }
  const kept = tunnels.length;
  const overflow: string[] = [];
  // Nothing is added once the state of the tunnels is unknown.
  for (const name of context.phase === 'unknown' ? [] : context.pending) {
    if (mayChange?.(name) === false) continue;
    const { state, placement } = context.desired(name, undefined);
    if (state.state !== 'present' || !isInPlace(state.tunnel, placement, context)) continue;
    if (tunnels.length < (context.maxTunnels ?? MAX_SLICE_TUNNELS)) tunnels.push(state.tunnel);
    else overflow.push(name);
  }
  return {
    tunnels,
    removed,
    overflow,
    isChanged: isChanged || removed.length > 0 || tunnels.length > kept,
  };
}

/** Returns what an entry must be; undefined if it must leave. */
function desiredEntry(entry: Tunnel, context: SliceContext): Tunnel | undefined {
  const { phase, canRemove } = context;
  const { state, placement } = context.desired(entry.name, entry);
  if (state.state === 'absent') return canRemove ? undefined : entry;
  const tunnel = state.state === 'present' ? state.tunnel : entry;
  if (placement === 'covered') return canRemove ? undefined : entry;
  // As for an object: another tunnel under the same name waits until the old one may be removed.
  if (!canRemove && !sameIdentity(tunnel, entry)) return entry;
  const isPresent = state.state === 'present' && phase !== 'unknown';
  return isPresent && isInPlace(tunnel, placement, context) ? tunnel : entry;
}

function isInPlace({ tenantID }: Tunnel, placement: Placement, context: SliceContext): boolean {
  return tenantID === context.tenantID && placement === 'here';
}

/** Returns the write of the status of a slice whose content is as desired. */
function nextStatusAction(slice: ObservedSlice, context: SliceContext): SliceAction | undefined {
  const unknown = new Set<string>();
  let isChanged = (slice.drift & Drift.status) !== 0;
  for (const entry of slice.entries.values()) {
    const isUnknown = isEntryUnknown(slice, entry.name);
    const mustBeUnknown =
      context.phase === 'unknown' ||
      (isUnknown && context.desired(entry.name, entry).state.state !== 'present');
    if (mustBeUnknown) unknown.add(entry.name);
    if (mustBeUnknown !== isUnknown) isChanged = true;
  }
  return isChanged ? { type: 'patchStatus', slice, unknown } : undefined;
}
