import {
  foldDelta,
  foldFullPush,
  outsideOf,
  sizeOf,
  type Earlier,
  type Folded,
  type Holding,
} from './fold.ts';
import { EVERYTHING, type Grant } from './grant.ts';
import type { Report } from './report.ts';
import { reporterKey, type ReporterId, type Tunnel } from './tunnel.ts';

/** What is known of one tunnel. */
export type Known =
  | { readonly is: 'present'; readonly tunnel: Tunnel }
  /** The reporter does not hold it: a row for it is to go. */
  | { readonly is: 'absent' }
  /** The reporter has not said: a row for it stays as it is. */
  | { readonly is: 'unknown' };

const ABSENT: Known = { is: 'absent' };
const UNKNOWN: Known = { is: 'unknown' };

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
   * Folds one report in: `core/fold` says how each kind counts.
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
