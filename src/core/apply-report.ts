import type { Grant } from './grant.ts';
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
  /** What the reporter may report now. */
  grant: Grant;
}

/** The effect of a report. */
export interface ReportChange {
  /** Names whose objects may have to change, without duplicates. */
  readonly changed: readonly string[];
  /** True for the first full push of a reporter: stale objects can be deleted from now on. */
  readonly becameComplete: boolean;
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
  tunnel(name: string): Tunnel | undefined;
  tunnels(): Iterable<Tunnel>;
}

/** The limits that apply to a report. */
export interface Limits {
  /** Tunnels of one reporter; the grant may set a lower limit. */
  readonly perReporter: number;
  /** Tunnels and removed names of all reporters. */
  readonly globalLimit: number;
  /** The part of `globalLimit` that other reporters use. */
  readonly usedByOthers: number;
}

/** Returns what a reporter contributes to the limit of all reporters: its tunnels and its removed names. */
export function sizeOf({ tunnels, removed }: ReporterState): number {
  return tunnels.size + (removed?.size ?? 0);
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
 * Applies a full push. It is authoritative: the reporter holds exactly the tunnels that it lists.
 *
 * @param state changed in place, or left unchanged if a limit is exceeded
 */
export function applyFullPush(
  state: ReporterState,
  report: Report,
  prior: PriorState,
  limits: Limits,
): ReportChange | LimitExceeded {
  const { grant } = state;
  const limit = Math.min(limits.perReporter, grant.tunnels);
  const before = state.tunnels;
  const after = new Map<string, Tunnel>();
  for (const reported of report.added) {
    const known = before.get(reported.name) ?? prior.tunnel(reported.name);
    // Keeps the existing object of an unchanged tunnel, so that a repeated full push does not increase memory use.
    after.set(reported.name, known !== undefined && sameTunnel(known, reported) ? known : reported);
  }
  if (after.size > limit) return { limit: 'tunnelsPerReporter', count: after.size, max: limit };
  const exceeded = checkGlobalLimit(before.size, after.size, limits);
  if (exceeded !== undefined) return exceeded;
  const changed: string[] = [];
  for (const [name, tunnel] of after) {
    if (before.get(name) !== tunnel) changed.push(name);
  }
  for (const name of before.keys()) {
    if (!after.has(name)) changed.push(name);
  }
  const becameComplete = state.removed !== undefined;
  state.tunnels = after;
  state.removed = undefined;
  state.denied = deniedTunnels(after, grant);
  return { changed, becameComplete };
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
  const { permits, tunnels } = state.grant;
  const limit = Math.min(limits.perReporter, tunnels);
  const balance = new Map<string, number>();
  const lastEntry = new Map<string, Tunnel>();
  for (const tunnel of report.added) {
    balance.set(tunnel.name, (balance.get(tunnel.name) ?? 0) + 1);
    lastEntry.set(tunnel.name, tunnel);
  }
  for (const name of report.removedNames) balance.set(name, (balance.get(name) ?? 0) - 1);

  // Computed first and applied last, so that a report over a limit changes nothing. Undefined: no longer held.
  const after = new Map<string, Tunnel | undefined>();
  const changed: string[] = [];
  let size = state.tunnels.size;
  for (const [name, net] of balance) {
    const current = state.tunnels.get(name);
    // Objects may have been listed only after the reporter's first delta: a name not mentioned so far is as its object.
    const known = current ?? (state.removed?.has(name) === false ? prior.tunnel(name) : undefined);
    const tunnel = lastEntry.get(name) ?? known;
    if (tunnel !== undefined && (known === undefined ? 0 : 1) + net >= 1) {
      const isSame = known !== undefined && sameTunnel(known, tunnel);
      after.set(name, isSame ? known : tunnel);
      if (current === undefined) size += 1;
      if (!isSame) changed.push(name);
    } else if (known !== undefined || (net !== 0 && state.removed?.has(name) === false)) {
      after.set(name, undefined);
      if (current !== undefined) size -= 1;
      changed.push(name);
    }
    // Otherwise the tunnel is known to be absent, or it is unknown and equal numbers of adds and removals decide nothing.
  }
  if (size > limit && size > state.tunnels.size)
    return { limit: 'tunnelsPerReporter', count: size, max: limit };
  const exceeded = checkGlobalLimit(state.tunnels.size, size, limits);
  if (exceeded !== undefined) return exceeded;
  for (const [name, tunnel] of after) {
    if (tunnel === undefined) {
      state.tunnels.delete(name);
      state.removed?.add(name);
    } else {
      state.tunnels.set(name, tunnel);
      state.removed?.delete(name);
    }
    if (tunnel !== undefined && permits?.(tunnel) === false) (state.denied ??= new Set()).add(name);
    else state.denied?.delete(name);
  }
  const remaining = Math.max(0, limits.globalLimit - limits.usedByOthers - state.tunnels.size);
  evictOldest(Math.min(limits.perReporter, remaining), state.removed);
  return { changed, becameComplete: false };
}

/** Forgets the names that were removed first: their objects have been deleted, so they are no longer needed. */
function evictOldest(limit: number, names: Set<string> | undefined): void {
  if (names === undefined) return;
  for (const name of names) {
    if (names.size <= limit) return;
    names.delete(name);
  }
}
