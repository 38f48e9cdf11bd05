import { EVERYTHING, type Grant } from './grant.ts';
import type { Report } from './report.ts';
import { reporterKey, sameTunnel, type ReporterId, type Tunnel } from './tunnel.ts';

/** What is known of one tunnel. */
export type Known =
  | { readonly is: 'present'; readonly tunnel: Tunnel }
  /** The reporter does not hold it: a row for it is to go. */
  | { readonly is: 'absent' }
  /** The reporter has not said: a row for it stays as it is. */
  | { readonly is: 'unknown' };

const ABSENT: Known = { is: 'absent' };
const UNKNOWN: Known = { is: 'unknown' };

interface Holding {
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
    super(`${together ? 'all together ' : ''}would hold ${tunnels} tunnels, at most ${limit} are allowed`);
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

/**
 * The latest state of every reporter, held in memory: what the rows are to be.
 *
 * Reports are folded in as they are read, each whole or not at all, so its size depends on what tunnels there are and
 * never on how many reports came.
 */
export class Ledger {
  readonly #holdings = new Map<string, Holding>();
  readonly #limit: number;
  readonly #limitTogether: number;
  /** Tunnels and names removed, of all reporters. */
  #size = 0;
  readonly #grantOf: (key: string) => Grant;

  /**
   * @param limit tunnels that one reporter may hold, and names it may have removed before it says what it holds
   * @param grantOf what a reporter may report now; where it changes, `review` is to be called. Default: everything
   * @param limitTogether tunnels that all reporters together may come to hold, for one peer can be many reporters
   */
  constructor(
    limit = Number.POSITIVE_INFINITY,
    grantOf: (key: string) => Grant = () => EVERYTHING,
    limitTogether = Number.POSITIVE_INFINITY,
  ) {
    this.#limit = limit;
    this.#grantOf = grantOf;
    this.#limitTogether = limitTogether;
  }

  /**
   * Folds one report in.
   *
   * A full push is authoritative: what it lists is held, whatever else it says, and nothing besides. In a delta each
   * name is counted: held after = held before + adds - removals, at least 1. Envoy's adds and removals of a name
   * alternate, but a report carries them as two lists, so "adds, then removals" would lose a tunnel that dropped and
   * came back within one interval. A name's last entry tells the tunnel.
   *
   * @param earlier rows known from before; a delta from a reporter that the ledger does not know counts from them, and
   *   a tunnel that equals its row shares the row's memory
   * @throws OverLimitError
   */
  fold(reporter: ReporterId, report: Report, earlier: Earlier): Folded {
    const grant = this.#grantOf(reporterKey(reporter));
    const isNew = !this.#holdings.has(reporterKey(reporter));
    const holding = this.#holdingOf(reporter, report.fullPush ? undefined : earlier, grant);
    // Rows from before that it is not permitted to have are to go, though the report need not name them.
    const outside = isNew ? [...(holding.outside ?? [])] : [];
    const fold = report.fullPush ? foldFullPush : foldDelta;
    const before = sizeOf(holding);
    const limits = {
      own: this.#limit,
      together: this.#limitTogether,
      others: this.#size - before,
    };
    const folded = fold(holding, report, earlier, grant, limits);
    this.#size += sizeOf(holding) - before;
    return outside.length === 0
      ? folded
      : { ...folded, changed: [...new Set([...folded.changed, ...outside])] };
  }

  /**
   * What is known of one tunnel of one reporter. What it holds and is not permitted to is as if it were not there.
   *
   * @param shown what a row says of the tunnel, for a reporter that has not said
   */
  known(key: string, name: string, shown?: Tunnel): Known {
    const holding = this.#holdings.get(key);
    if (holding === undefined) return UNKNOWN;
    const tunnel = holding.tunnels.get(name);
    if (tunnel !== undefined) return holding.outside?.has(name) === true ? ABSENT : { is: 'present', tunnel };
    if (holding.removed === undefined || holding.removed.has(name)) return ABSENT;
    // It need not say that it does not hold what it is not permitted to.
    return shown !== undefined && this.#grantOf(key).permits?.(shown) === false ? ABSENT : UNKNOWN;
  }

  /**
   * Looks at all that a reporter holds again, for it may report something else than before.
   *
   * @returns names that are known now and were not, or the other way about
   */
  review(key: string): string[] {
    const holding = this.#holdings.get(key);
    if (holding === undefined) return [];
    const before = holding.outside;
    holding.outside = outsideOf(holding.tunnels, this.#grantOf(key));
    const changed: string[] = [];
    for (const name of holding.outside ?? []) if (before?.has(name) !== true) changed.push(name);
    for (const name of before ?? []) if (holding.outside?.has(name) !== true) changed.push(name);
    return changed;
  }

  /**
   * Forgets what a reporter holds and is not permitted to, as `review` saw it last: another peer speaks for it from now
   * on, whose grant is not to let be known what this one said.
   */
  dropOutside(key: string): void {
    const holding = this.#holdings.get(key);
    if (holding?.outside === undefined) return;
    this.#size -= sizeOf(holding);
    for (const name of holding.outside) {
      holding.tunnels.delete(name);
      // As absent as it was.
      holding.removed?.add(name);
    }
    holding.outside = undefined;
    this.#size += sizeOf(holding);
  }

  /** Names of what a reporter holds, and of what it removed before it said what it holds. */
  *tunnelNames(key: string): Iterable<string> {
    const holding = this.#holdings.get(key);
    if (holding === undefined) return;
    yield* holding.tunnels.keys();
    if (holding.removed !== undefined) yield* holding.removed;
  }

  /** How many tunnels a reporter holds. */
  tunnelCount(key: string): number {
    return this.#holdings.get(key)?.tunnels.size ?? 0;
  }

  /** How many of those it is not permitted to report. */
  outsideCount(key: string): number {
    return this.#holdings.get(key)?.outside?.size ?? 0;
  }

  /** One of those, for a message; undefined when there are none. */
  firstOutside(key: string): Tunnel | undefined {
    const holding = this.#holdings.get(key);
    const [name] = holding?.outside ?? [];
    return name === undefined ? undefined : holding?.tunnels.get(name);
  }

  /** True once a full push has said what the reporter holds in all. */
  isComplete(key: string): boolean {
    const holding = this.#holdings.get(key);
    return holding !== undefined && holding.removed === undefined;
  }

  /** Forgets a reporter: it is another replica's now, or gone. */
  forget(key: string): void {
    const holding = this.#holdings.get(key);
    if (holding === undefined) return;
    this.#size -= sizeOf(holding);
    this.#holdings.delete(key);
  }

  /** The tunnel that a reporter holds under a name; undefined when it does not, or is not known to. */
  tunnel(key: string, name: string): Tunnel | undefined {
    return this.#holdings.get(key)?.tunnels.get(name);
  }

  /** The reporter of a key that a report was folded under. */
  reporter(key: string): ReporterId | undefined {
    return this.#holdings.get(key)?.reporter;
  }

  /** Tunnels held by all reporters together. */
  totalTunnelCount(): number {
    let total = 0;
    for (const holding of this.#holdings.values()) total += holding.tunnels.size;
    return total;
  }

  #holdingOf(reporter: ReporterId, earlier: Earlier | undefined, grant: Grant): Holding {
    const key = reporterKey(reporter);
    let holding = this.#holdings.get(key);
    if (holding === undefined) {
      holding = { reporter, tunnels: new Map(), removed: new Set(), outside: undefined };
      for (const tunnel of earlier?.tunnels() ?? []) holding.tunnels.set(tunnel.name, tunnel);
      holding.outside = outsideOf(holding.tunnels, grant);
      this.#size += sizeOf(holding);
      this.#holdings.set(key, holding);
    }
    return holding;
  }
}

/** What a report is held to. */
interface Limits {
  /** Tunnels of one reporter, beside what its grant says. */
  readonly own: number;
  /** Of all reporters. */
  readonly together: number;
  /** What the others have of that. */
  readonly others: number;
}

function sizeOf({ tunnels, removed }: Holding): number {
  return tunnels.size + (removed?.size ?? 0);
}

/** One that comes to hold no more than before is not refused for what others hold. */
function checkTogether(before: number, after: number, { together, others }: Limits): void {
  if (after > before && others + after > together) throw new OverLimitError(others + after, together, true);
}

/** Names of those that are not permitted; undefined when there are none, as where there is no policy. */
function outsideOf(tunnels: ReadonlyMap<string, Tunnel>, { permits }: Grant): Set<string> | undefined {
  if (permits === undefined) return undefined;
  let outside: Set<string> | undefined;
  for (const [name, tunnel] of tunnels) if (!permits(tunnel)) (outside ??= new Set()).add(name);
  return outside;
}

function foldFullPush(
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

function foldDelta(
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
