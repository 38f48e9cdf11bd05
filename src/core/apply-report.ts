import type { Grant } from './grant.ts';
import type { Report } from './report.ts';
import { sameTunnel, type ReporterId, type Tunnel } from './tunnel.ts';

/** What is known of one reporter. */
export interface ReporterState {
  readonly reporter: ReporterId;
  /** What the reporter holds, by tunnel name. */
  tunnels: Map<string, Tunnel>;
  /**
   * Names that it removed before any full push said what it holds; undefined once one has, for then whatever is not
   * held is absent.
   */
  removed: Set<string> | undefined;
  /** Names of those held that its grant does not permit: reported, and kept from everybody. Undefined: none. */
  denied: Set<string> | undefined;
  /** What the reporter may report now. */
  grant: Grant;
}

/** What a report changed. */
export interface ReportChange {
  /** Names whose row may have to change, each once. */
  readonly changed: readonly string[];
  /** True for the first full push of a reporter: rows found from earlier may be collected now. */
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

/** How a ledger learns of rows that were there before it: what the tunnel was by then, by name. */
export interface PriorState {
  tunnel(name: string): Tunnel | undefined;
  tunnels(): Iterable<Tunnel>;
}

/** What a report is held to. */
export interface Limits {
  /** Tunnels of one reporter, beside what its grant says. */
  readonly perReporter: number;
  /** Of all reporters. */
  readonly globalLimit: number;
  /** What the others have of that. */
  readonly usedByOthers: number;
}

/** What a reporter counts for in the bound of all together: what it holds, and what it is remembered to have removed. */
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

/** Names of those that are not permitted; undefined when there are none, as where there is no policy. */
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
 * Folds a full push in. It is authoritative: what it lists is held, whatever else it says, and nothing besides.
 *
 * @param state changed in place, or not at all
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
    // Holding on to the object there is already keeps an unchanged full push from growing memory.
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
  const nowComplete = state.removed !== undefined;
  state.tunnels = after;
  state.removed = undefined;
  state.denied = deniedTunnels(after, grant);
  return { changed, becameComplete: nowComplete };
}

/**
 * Folds a delta in: each name is counted. Held after = held before + adds - removals, at least 1. Envoy's adds and
 * removals of a name alternate, but a report carries them as two lists, so "adds, then removals" would lose a tunnel
 * that dropped and came back within one interval. A name's last entry tells the tunnel.
 *
 * @param state changed in place, or not at all
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

  // Decided first and done then, so that a report over the limit changes nothing. Undefined: not held after it.
  const after = new Map<string, Tunnel | undefined>();
  const changed: string[] = [];
  let size = state.tunnels.size;
  for (const [name, net] of balance) {
    const current = state.tunnels.get(name);
    // Rows may have been listed only after the reporter's first delta: what it has not spoken of is as its row says.
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
    // Else it is known to be absent already; or not known, and as many adds as removals do not tell.
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

/** The names removed longest ago: their rows have been deleted by now, and there is nothing left to remember. */
function evictOldest(limit: number, names: Set<string> | undefined): void {
  if (names === undefined) return;
  for (const name of names) {
    if (names.size <= limit) return;
    names.delete(name);
  }
}
