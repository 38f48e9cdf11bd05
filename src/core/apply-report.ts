import type { Grant } from './grant.ts';
import { HeldRemovals, holdsRemovals, NO_REMOVAL_HOLD, type RemovalHoldRule } from './removal-hold.ts';
import type { Report } from './report.ts';
import { sameTunnel, type ReporterId, type Tunnel } from './tunnel.ts';

/** The latest reported state of one reporter. */
export interface ReporterState {
  readonly reporter: ReporterId;
  /** Tunnels that the reporter holds, by name. */
  tunnels: Map<string, Tunnel>;
  /**
   * Names that were removed before the first full push; undefined after it, because every name that is not in `tunnels` is
   * then known to be absent.
   */
  removed: Set<string> | undefined;
  /** Names in `tunnels` that the grant does not permit, for which no objects are written. Undefined: none. */
  denied: Set<string> | undefined;
  /** Names that the last full push lacks and whose objects are kept for now. None of them is in `tunnels`. */
  readonly held: HeldRemovals;
  /**
   * Defined after a full push that could not be compared with the objects, because they had not been listed: the names
   * that were removed by name, before that full push or since. See `holdUncompared`.
   */
  uncompared: Set<string> | undefined;
  /** What the reporter may report now. */
  grant: Grant;
}

/** The effect of a report. */
export interface ReportChange {
  /** Names whose objects may have to change, without duplicates. */
  readonly changed: readonly string[];
  /** True for the first full push of a reporter: stale objects can be deleted from now on. */
  readonly becameComplete: boolean;
  /** How often tunnels have gone down, by name; undefined if none has. */
  readonly drops?: ReadonlyMap<string, number> | undefined;
  /** The hold that a full push has started; undefined: all of its removals are immediate. */
  readonly hold?: StartedHold | undefined;
}

/** The start of a hold. */
export interface StartedHold {
  /** Objects of the reporter that are held, earlier ones included. */
  readonly held: number;
  /** Objects of the reporter. */
  readonly objects: number;
}

/** A limit that a report would exceed. The report was rejected as a whole: nothing has changed. */
export interface LimitExceeded {
  /**
   * - `tunnelsPerReporter`: tunnels of the reporter.
   * - `tunnels`: tunnels of all reporters together.
   * - `reportersPerPeer`: reporters that one peer reports as.
   */
  readonly limit: 'tunnelsPerReporter' | 'tunnels' | 'reportersPerPeer';
  /** The count that accepting the report would lead to. */
  readonly count: number;
  /** The highest count allowed. */
  readonly max: number;
}

/** The tunnels of existing objects, from which a ledger continues that has just been created. */
export interface PriorState {
  readonly size: number;
  tunnel(name: string): Tunnel | undefined;
  tunnels(): Iterable<Tunnel>;
}

/** What is known about the objects of a reporter when a full push is applied. */
export interface ObjectsContext {
  /** Monotonic ms. */
  readonly nowMs: number;
  /** False before the first complete list of objects. */
  readonly isListed: boolean;
  /** True if this replica writes the objects of the reporter, so that an object without a tunnel was removed by name. */
  readonly isOwned: boolean;
  /** True while an object is being written, which may create it after the full push. */
  isBeingWritten(name: string): boolean;
}

/** The limits that apply to a report. */
export interface Limits {
  /** Tunnels of one reporter; the grant may set a lower limit. */
  readonly perReporter: number;
  /** Tunnels and removed names of all reporters. */
  readonly globalLimit: number;
  /** The part of `globalLimit` that other reporters use. */
  readonly usedByOthers: number;
  /** Held names of other reporters, which never prevent a tunnel from being reported. */
  readonly heldByOthers: number;
}

/** Returns what a reporter contributes to the limit of all reporters: its tunnels and its removed names. */
export function sizeOf({ tunnels, removed, uncompared }: ReporterState): number {
  return tunnels.size + (removed?.size ?? 0) + (uncompared?.size ?? 0);
}

/** Checks the limit of all reporters together. It never rejects a reporter that does not grow. */
function checkGlobalLimit(
  before: number,
  after: number,
  { globalLimit, usedByOthers }: Limits,
): LimitExceeded | undefined {
  if (after <= before || usedByOthers + after <= globalLimit) return undefined;
  return { limit: 'tunnels', count: usedByOthers + after, max: globalLimit };
}

/** Returns the names of tunnels that the grant does not permit; undefined if there are none, as without policies. */
export function deniedTunnels(
  tunnels: ReadonlyMap<string, Tunnel>,
  { permits }: Grant,
): Set<string> | undefined {
  if (permits === undefined) return undefined;
  let denied: Set<string> | undefined;
  for (const [name, tunnel] of tunnels) if (!permits(tunnel)) (denied ??= new Set()).add(name);
  return denied;
}

/**
 * Returns true if a list contains exactly the known tunnels, in the order in which they became known. An Envoy that
 * reconnects reports its unchanged tunnels in the order of the time before. Comparing them takes a tenth of the time that
 * looking up each of them takes.
 */
function listsInOrder(listed: readonly Tunnel[], known: ReadonlyMap<string, Tunnel>): boolean {
  if (listed.length !== known.size) return false;
  let index = 0;
  for (const tunnel of known.values()) {
    const other = listed[index];
    if (other?.name !== tunnel.name || !sameTunnel(tunnel, other)) return false;
    index += 1;
  }
  return true;
}

/** Returns the tunnels of a full push by name. The last entry of a name counts. */
function collectTunnels(
  listed: readonly Tunnel[],
  before: ReadonlyMap<string, Tunnel>,
  prior: PriorState,
): Map<string, Tunnel> {
  const after = new Map<string, Tunnel>();
  for (const reported of listed) {
    const known = before.get(reported.name) ?? prior.tunnel(reported.name);
    // Keeps the existing object of an unchanged tunnel, so that a repeated full push does not increase memory use.
    after.set(reported.name, known !== undefined && sameTunnel(known, reported) ? known : reported);
  }
  return after;
}

/** The differences between the tunnels before and after a full push. */
interface Comparison {
  /** Names that were added or changed, then those that were removed. */
  readonly changed: string[];
  /** The index of the first removed name. */
  readonly firstRemoved: number;
  /** How often tunnels have gone down, by name. */
  readonly drops: Map<string, number>;
}

function compareTunnels(before: ReadonlyMap<string, Tunnel>, after: ReadonlyMap<string, Tunnel>): Comparison {
  const changed: string[] = [];
  const drops = new Map<string, number>();
  if (before === after) return { changed, firstRemoved: 0, drops };
  if (before.size === 0) return { changed: [...after.keys()], firstRemoved: after.size, drops };
  for (const [name, tunnel] of after) {
    const known = before.get(name);
    if (known === tunnel) continue;
    changed.push(name);
    if (known !== undefined) drops.set(name, 1);
  }
  const firstRemoved = changed.length;
  for (const name of before.keys()) {
    if (after.has(name)) continue;
    changed.push(name);
    drops.set(name, 1);
  }
  return { changed, firstRemoved, drops };
}

/**
 * Applies a full push. It is authoritative: the reporter holds exactly the tunnels that it lists.
 *
 * @param state changed in place, or left unchanged if a limit is exceeded
 * @param context undefined: nothing is held
 */
export function applyFullPush(
  state: ReporterState,
  report: Report,
  prior: PriorState,
  limits: Limits,
  rule: RemovalHoldRule = NO_REMOVAL_HOLD,
  context?: ObjectsContext,
): ReportChange | LimitExceeded {
  const { grant } = state;
  const limit = Math.min(limits.perReporter, grant.tunnels);
  const before = state.tunnels;
  const after = listsInOrder(report.added, before) ? before : collectTunnels(report.added, before, prior);
  if (after.size > limit) return { limit: 'tunnelsPerReporter', count: after.size, max: limit };
  const exceeded = checkGlobalLimit(before.size, after.size, limits);
  if (exceeded !== undefined) return exceeded;
  const { changed, firstRemoved, drops } = compareTunnels(before, after);
  const becameComplete = state.removed !== undefined;
  const removedByName = state.removed ?? state.uncompared;
  state.tunnels = after;
  state.removed = undefined;
  state.uncompared = undefined;
  state.denied = deniedTunnels(after, grant);
  for (const name of state.held.names()) if (after.has(name)) state.held.remove(name);
  let isHeld = false;
  if (rule.holdMs > 0 && context !== undefined) {
    const { nowMs, isListed, isOwned } = context;
    if (isListed) {
      const lacked =
        isOwned && removedByName === undefined
          ? changed
              .slice(firstRemoved)
              .filter((name) => prior.tunnel(name) !== undefined || context.isBeingWritten(name))
          : lackedObjects(state, prior, removedByName);
      isHeld = holdLacked(state, lacked, prior, rule, nowMs);
    } else {
      state.uncompared = new Set(removedByName);
      for (const name of after.keys()) state.uncompared.delete(name);
    }
  }
  for (const name of fitHeld(state, limits)) changed.push(name);
  return {
    changed,
    becameComplete,
    ...(drops.size > 0 ? { drops } : {}),
    ...(isHeld && state.held.size > 0 ? { hold: { held: state.held.size, objects: prior.size } } : {}),
  };
}

/**
 * Compares the last full push with the objects, which had not been listed when it was applied, and holds what it lacks.
 * Does nothing if it was compared already.
 */
export function holdUncompared(
  state: ReporterState,
  prior: PriorState,
  limits: Limits,
  rule: RemovalHoldRule,
  nowMs: number,
): StartedHold | undefined {
  const removedByName = state.uncompared;
  if (removedByName === undefined) return undefined;
  state.uncompared = undefined;
  if (!holdLacked(state, lackedObjects(state, prior, removedByName), prior, rule, nowMs)) return undefined;
  // All objects are compared once this replica owns the reporter, so the names that do not fit need not be returned.
  fitHeld(state, limits);
  return state.held.size === 0 ? undefined : { held: state.held.size, objects: prior.size };
}

/** Returns the names that have an object, are not reported, and were not removed by name. */
function lackedObjects(
  { tunnels, held }: ReporterState,
  prior: PriorState,
  removedByName: ReadonlySet<string> | undefined,
): string[] {
  const lacked: string[] = [];
  for (const { name } of prior.tunnels()) {
    if (!tunnels.has(name) && !held.has(name) && removedByName?.has(name) !== true) lacked.push(name);
  }
  return lacked;
}

/**
 * Holds the names that a full push lacks, if they and the names that are held already are so many that the rule applies.
 * A name that is held already stays held in any case, until the same time as before.
 *
 * @returns true if a hold has started
 */
function holdLacked(
  { held }: ReporterState,
  lacked: readonly string[],
  prior: PriorState,
  rule: RemovalHoldRule,
  nowMs: number,
): boolean {
  if (lacked.length === 0 || !holdsRemovals(rule, held.size + lacked.length, prior.size)) return false;
  for (const name of lacked) held.add(name, nowMs + rule.holdMs);
  return true;
}

/**
 * Ends the oldest holds if the held objects and those of the reported tunnels together exceed a limit: a peer that reports
 * other tunnels each time would otherwise have more objects than it may.
 *
 * @returns the names that are no longer held
 */
function fitHeld({ tunnels, held, grant }: ReporterState, limits: Limits): string[] {
  if (held.size === 0) return [];
  const max = Math.min(limits.perReporter, grant.tunnels);
  const globalMax = limits.globalLimit - limits.usedByOthers - limits.heldByOthers;
  return held.shrink(Math.min(max, globalMax) - tunnels.size);
}

/**
 * Applies a delta by counting per name: a tunnel is held afterwards if (1 if held before) + adds - removals is at least 1.
 * Envoy's adds and removals of a name alternate, but a report contains them as two lists, so applying all adds and then
 * all removals would lose a tunnel that dropped and reconnected within one interval. The last entry of a name counts.
 *
 * @param state changed in place, or left unchanged if a limit is exceeded
 */
export function applyDelta(
  state: ReporterState,
  report: Report,
  prior: PriorState,
  limits: Limits,
): ReportChange | LimitExceeded {
  if (report.added.length === 0 && report.removedNames.length === 0)
    return { changed: fitLimits(state, limits), becameComplete: false };
  const { permits, tunnels } = state.grant;
  const limit = Math.min(limits.perReporter, tunnels);
  const balance = new Map<string, number>();
  const lastEntry = new Map<string, Tunnel>();
  for (const tunnel of report.added) {
    balance.set(tunnel.name, (balance.get(tunnel.name) ?? 0) + 1);
    lastEntry.set(tunnel.name, tunnel);
  }
  const removals = new Map<string, number>();
  for (const name of report.removedNames) {
    balance.set(name, (balance.get(name) ?? 0) - 1);
    removals.set(name, (removals.get(name) ?? 0) + 1);
  }

  // Computed first and applied last, so that a report over a limit changes nothing. Undefined: no longer held.
  const after = new Map<string, Tunnel | undefined>();
  const changed: string[] = [];
  const drops = new Map<string, number>();
  let size = state.tunnels.size;
  for (const [name, net] of balance) {
    const current = state.tunnels.get(name);
    // Objects may have been listed only after the reporter's first delta: a name not mentioned so far is as its object.
    const known = current ?? (state.removed?.has(name) === false ? prior.tunnel(name) : undefined);
    const tunnel = lastEntry.get(name) ?? known;
    const isHeld = state.held.has(name);
    const heldBefore = known === undefined ? 0 : 1;
    const removed = removals.get(name) ?? 0;
    let dropped = 0;
    if (tunnel !== undefined && heldBefore + net >= 1) {
      const isSame = known !== undefined && sameTunnel(known, tunnel);
      // It is up again after all of its removals but one, or was replaced without a removal.
      dropped = Math.max(
        Math.min(removed, heldBefore + net + removed - 1),
        known === undefined || isSame ? 0 : 1,
      );
      const stored = isHeld ? prior.tunnel(name) : known;
      after.set(name, stored !== undefined && sameTunnel(stored, tunnel) ? stored : tunnel);
      if (current === undefined) size += 1;
      if (!isSame) changed.push(name);
    } else if (isHeld) {
      dropped = Math.min(removed, net + removed);
      // Removed by name, possibly after it had returned within the interval of the report.
      after.set(name, undefined);
      changed.push(name);
    } else if (
      known !== undefined ||
      (net !== 0 && state.removed?.has(name) === false) ||
      // Removed by name, which matters as long as its object is not known: it must not be held.
      state.uncompared?.has(name) === false
    ) {
      dropped = Math.min(removed, heldBefore + net + removed);
      after.set(name, undefined);
      if (current !== undefined) size -= 1;
      changed.push(name);
    } else dropped = Math.min(removed, net + removed);
    if (dropped > 0) drops.set(name, dropped);
    // Otherwise the tunnel is known to be absent, or it is unknown and equal numbers of adds and removals decide nothing.
  }
  if (size > limit && size > state.tunnels.size)
    return { limit: 'tunnelsPerReporter', count: size, max: limit };
  const exceeded = checkGlobalLimit(state.tunnels.size, size, limits);
  if (exceeded !== undefined) return exceeded;
  for (const [name, tunnel] of after) {
    state.held.remove(name);
    if (tunnel === undefined) {
      state.tunnels.delete(name);
      state.removed?.add(name);
      state.uncompared?.add(name);
    } else {
      state.tunnels.set(name, tunnel);
      state.removed?.delete(name);
      state.uncompared?.delete(name);
    }
    if (tunnel !== undefined && permits?.(tunnel) === false) (state.denied ??= new Set()).add(name);
    else state.denied?.delete(name);
  }
  for (const name of fitLimits(state, limits)) changed.push(name);
  return { changed, becameComplete: false, ...(drops.size > 0 ? { drops } : {}) };
}

/** Forgets removed names and ends holds that exceed the limits. Returns the names that are no longer held. */
function fitLimits(state: ReporterState, limits: Limits): string[] {
  const remaining = Math.max(0, limits.globalLimit - limits.usedByOthers - state.tunnels.size);
  const maxRemoved = Math.min(limits.perReporter, remaining);
  evictOldest(maxRemoved, state.removed);
  evictOldest(maxRemoved, state.uncompared);
  return fitHeld(state, limits);
}

/** Forgets the names that were removed first: their objects have been deleted, so they are no longer needed. */
function evictOldest(limit: number, names: Set<string> | undefined): void {
  if (names === undefined) return;
  for (const name of names) {
    if (names.size <= limit) return;
    names.delete(name);
  }
}
