import type { Grant } from './grant.ts';
import type { Report } from './report.ts';
import { sameTunnel, type ReporterId, type Tunnel } from './tunnel.ts';

/** What is known of one reporter. */
export interface Holding {
  readonly reporter: ReporterId;
  /** What the reporter holds, by tunnel name. */
  tunnels: Map<string, Tunnel>;
  /**
   * Names that it removed before any full push said what it holds; undefined once one has, for then whatever is not
   * held is absent.
   */
  removed: Set<string> | undefined;
  /** Names of those held that its grant does not permit: reported, and kept from everybody. Undefined: none. */
  outside: Set<string> | undefined;
}

/** What a report changed. */
export interface Folded {
  /** Names whose row may have to change, each once. */
  readonly changed: readonly string[];
  /** True for the first full push of a reporter: rows found from earlier may be collected now. */
  readonly nowComplete: boolean;
}

/** A report is not taken: its reporter, or all together, would hold more tunnels than may be. Nothing has changed. */
export class OverLimitError extends Error {
  override readonly name = 'OverLimitError';
  readonly tunnels: number;
  readonly limit: number;
  /** True: both are of all reporters together. */
  readonly together: boolean;

  constructor(tunnels: number, limit: number, together = false) {
    super(`${together ? 'all reporters ' : ''}would hold ${tunnels} tunnels, limit is ${limit}`);
    this.tunnels = tunnels;
    this.limit = limit;
    this.together = together;
  }
}

/** How a ledger learns of rows that were there before it: what the tunnel was by then, by name. */
export interface Earlier {
  tunnel(name: string): Tunnel | undefined;
  tunnels(): Iterable<Tunnel>;
}

/** What a report is held to. */
export interface Limits {
  /** Tunnels of one reporter, beside what its grant says. */
  readonly own: number;
  /** Of all reporters. */
  readonly together: number;
  /** What the others have of that. */
  readonly others: number;
}

/** What a reporter counts for in the bound of all together: what it holds, and what it is remembered to have removed. */
export function sizeOf({ tunnels, removed }: Holding): number {
  return tunnels.size + (removed?.size ?? 0);
}

/** One that comes to hold no more than before is not refused for what others hold. */
function checkTogether(before: number, after: number, { together, others }: Limits): void {
  if (after > before && others + after > together) throw new OverLimitError(others + after, together, true);
}

/** Names of those that are not permitted; undefined when there are none, as where there is no policy. */
export function outsideOf(tunnels: ReadonlyMap<string, Tunnel>, { permits }: Grant): Set<string> | undefined {
  if (permits === undefined) return undefined;
  let outside: Set<string> | undefined;
  for (const [name, tunnel] of tunnels) if (!permits(tunnel)) (outside ??= new Set()).add(name);
  return outside;
}

/**
 * Folds a full push in. It is authoritative: what it lists is held, whatever else it says, and nothing besides.
 *
 * @param holding changed in place, or not at all
 * @throws OverLimitError
 */
export function foldFullPush(
  holding: Holding,
  report: Report,
  earlier: Earlier,
  grant: Grant,
  limits: Limits,
): Folded {
  const limit = Math.min(limits.own, grant.tunnels);
  const before = holding.tunnels;
  const after = new Map<string, Tunnel>();
  for (const reported of report.added) {
    const had = before.get(reported.name) ?? earlier.tunnel(reported.name);
    // Holding on to the object there is already keeps an unchanged full push from growing memory.
    after.set(reported.name, had !== undefined && sameTunnel(had, reported) ? had : reported);
  }
  if (after.size > limit) throw new OverLimitError(after.size, limit);
  checkTogether(before.size, after.size, limits);
  const changed: string[] = [];
  for (const [name, tunnel] of after) {
    if (before.get(name) !== tunnel) changed.push(name);
  }
  for (const name of before.keys()) {
    if (!after.has(name)) changed.push(name);
  }
  const nowComplete = holding.removed !== undefined;
  holding.tunnels = after;
  holding.removed = undefined;
  holding.outside = outsideOf(after, grant);
  return { changed, nowComplete };
}

/**
 * Folds a delta in: each name is counted. Held after = held before + adds - removals, at least 1. Envoy's adds and
 * removals of a name alternate, but a report carries them as two lists, so "adds, then removals" would lose a tunnel
 * that dropped and came back within one interval. A name's last entry tells the tunnel.
 *
 * @param holding changed in place, or not at all
 * @throws OverLimitError
 */
export function foldDelta(
  holding: Holding,
  report: Report,
  earlier: Earlier,
  { permits, tunnels }: Grant,
  limits: Limits,
): Folded {
  const limit = Math.min(limits.own, tunnels);
  const balance = new Map<string, number>();
  const last = new Map<string, Tunnel>();
  for (const tunnel of report.added) {
    balance.set(tunnel.name, (balance.get(tunnel.name) ?? 0) + 1);
    last.set(tunnel.name, tunnel);
  }
  for (const name of report.removedNames) balance.set(name, (balance.get(name) ?? 0) - 1);

  // Decided first and done then, so that a report over the limit changes nothing. Undefined: not held after it.
  const after = new Map<string, Tunnel | undefined>();
  const changed: string[] = [];
  let size = holding.tunnels.size;
  for (const [name, net] of balance) {
    const own = holding.tunnels.get(name);
    // Rows may have been listed only after the reporter's first delta: what it has not spoken of is as its row says.
    const had = own ?? (holding.removed?.has(name) === false ? earlier.tunnel(name) : undefined);
    const tunnel = last.get(name) ?? had;
    if (tunnel !== undefined && (had === undefined ? 0 : 1) + net >= 1) {
      const same = had !== undefined && sameTunnel(had, tunnel);
      after.set(name, same ? had : tunnel);
      if (own === undefined) size += 1;
      if (!same) changed.push(name);
    } else if (had !== undefined || (net !== 0 && holding.removed?.has(name) === false)) {
      after.set(name, undefined);
      if (own !== undefined) size -= 1;
      changed.push(name);
    }
    // Else it is known to be absent already; or not known, and as many adds as removals do not tell.
  }
  if (size > limit && size > holding.tunnels.size) throw new OverLimitError(size, limit);
  checkTogether(holding.tunnels.size, size, limits);
  for (const [name, tunnel] of after) {
    if (tunnel === undefined) {
      holding.tunnels.delete(name);
      holding.removed?.add(name);
    } else {
      holding.tunnels.set(name, tunnel);
      holding.removed?.delete(name);
    }
    if (tunnel !== undefined && permits?.(tunnel) === false) (holding.outside ??= new Set()).add(name);
    else holding.outside?.delete(name);
  }
  const left = Math.max(0, limits.together - limits.others - holding.tunnels.size);
  forgetBeyond(Math.min(limits.own, left), holding.removed);
  return { changed, nowComplete: false };
}

/** The names removed longest ago: their rows have been deleted by now, and there is nothing left to remember. */
function forgetBeyond(limit: number, names: Set<string> | undefined): void {
  if (names === undefined) return;
  for (const name of names) {
    if (names.size <= limit) return;
    names.delete(name);
  }
}
