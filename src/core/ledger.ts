import {
  applyDelta,
  applyFullPush,
  deniedTunnels,
  sizeOf,
  type PriorState,
  type ReportChange,
  type ReporterState,
} from './apply-report.ts';
import { ALLOW_ALL, type Grant } from './grant.ts';
import type { Report } from './report.ts';
import { reporterKey, type ReporterId, type Tunnel } from './tunnel.ts';

/** What is known of one tunnel. */
export type TunnelState =
  | { readonly state: 'present'; readonly tunnel: Tunnel }
  /** The reporter does not hold it: a row for it is to go. */
  | { readonly state: 'absent' }
  /** The reporter has not said: a row for it stays as it is. */
  | { readonly state: 'unknown' };

const ABSENT: TunnelState = { state: 'absent' };
const UNKNOWN: TunnelState = { state: 'unknown' };

/**
 * The latest state of every reporter, held in memory: what the rows are to be.
 *
 * Reports are folded in as they are read, each whole or not at all, so its size depends on what tunnels there are and
 * never on how many reports came.
 */
export class Ledger {
  readonly #reporters = new Map<string, ReporterState>();
  readonly #limitPerReporter: number;
  readonly #globalLimit: number;
  /** Tunnels and names removed, of all reporters. */
  #size = 0;
  readonly #grantOf: (key: string) => Grant;

  /**
   * @param limitPerReporter tunnels that one reporter may hold, and names it may have removed before it says what it holds
   * @param grantOf what a reporter may report now; where it changes, `review` is to be called. Default: everything
   * @param globalLimit tunnels that all reporters together may come to hold, for one peer can be many reporters
   */
  constructor(
    limitPerReporter = Number.POSITIVE_INFINITY,
    grantOf: (key: string) => Grant = () => ALLOW_ALL,
    globalLimit = Number.POSITIVE_INFINITY,
  ) {
    this.#limitPerReporter = limitPerReporter;
    this.#grantOf = grantOf;
    this.#globalLimit = globalLimit;
  }

  /**
   * Folds one report in: `core/fold` says how each kind counts.
   *
   * @param prior rows known from before; a delta from a reporter that the ledger does not know counts from them, and
   *   a tunnel that equals its row shares the row's memory
   * @throws OverLimitError
   */
  apply(reporter: ReporterId, report: Report, prior: PriorState): ReportChange {
    const grant = this.#grantOf(reporterKey(reporter));
    const isNew = !this.#reporters.has(reporterKey(reporter));
    const state = this.#stateFor(reporter, report.fullPush ? undefined : prior, grant);
    // Rows from before that it is not permitted to have are to go, though the report need not name them.
    const denied = isNew ? [...(state.denied ?? [])] : [];
    const applyReport = report.fullPush ? applyFullPush : applyDelta;
    const before = sizeOf(state);
    const limits = {
      perReporter: this.#limitPerReporter,
      globalLimit: this.#globalLimit,
      usedByOthers: this.#size - before,
    };
    const change = applyReport(state, report, prior, grant, limits);
    this.#size += sizeOf(state) - before;
    return denied.length === 0
      ? change
      : { ...change, changed: [...new Set([...change.changed, ...denied])] };
  }

  /**
   * What is known of one tunnel of one reporter. What it holds and is not permitted to is as if it were not there.
   *
   * @param observed what a row says of the tunnel, for a reporter that has not said
   */
  tunnelState(key: string, name: string, observed?: Tunnel): TunnelState {
    const state = this.#reporters.get(key);
    if (state === undefined) return UNKNOWN;
    const tunnel = state.tunnels.get(name);
    if (tunnel !== undefined) return state.denied?.has(name) === true ? ABSENT : { state: 'present', tunnel };
    if (state.removed === undefined || state.removed.has(name)) return ABSENT;
    // It need not say that it does not hold what it is not permitted to.
    return observed !== undefined && this.#grantOf(key).permits?.(observed) === false ? ABSENT : UNKNOWN;
  }

  /**
   * Looks at all that a reporter holds again, for it may report something else than before.
   *
   * @returns names that are known now and were not, or the other way about
   */
  reevaluate(key: string): string[] {
    const state = this.#reporters.get(key);
    if (state === undefined) return [];
    const before = state.denied;
    state.denied = deniedTunnels(state.tunnels, this.#grantOf(key));
    const changed: string[] = [];
    for (const name of state.denied ?? []) if (before?.has(name) !== true) changed.push(name);
    for (const name of before ?? []) if (state.denied?.has(name) !== true) changed.push(name);
    return changed;
  }

  /**
   * Forgets what a reporter holds and is not permitted to, as `review` saw it last: another peer speaks for it from now
   * on, whose grant is not to let be known what this one said.
   */
  dropDenied(key: string): void {
    const state = this.#reporters.get(key);
    if (state?.denied === undefined) return;
    this.#size -= sizeOf(state);
    for (const name of state.denied) {
      state.tunnels.delete(name);
      // As absent as it was.
      state.removed?.add(name);
    }
    state.denied = undefined;
    this.#size += sizeOf(state);
  }

  /** Names of what a reporter holds, and of what it removed before it said what it holds. */
  *tunnelNames(key: string): Iterable<string> {
    const state = this.#reporters.get(key);
    if (state === undefined) return;
    yield* state.tunnels.keys();
    if (state.removed !== undefined) yield* state.removed;
  }

  /** How many tunnels a reporter holds. */
  tunnelCount(key: string): number {
    return this.#reporters.get(key)?.tunnels.size ?? 0;
  }

  /** How many of those it is not permitted to report. */
  deniedCount(key: string): number {
    return this.#reporters.get(key)?.denied?.size ?? 0;
  }

  /** One of those, for a message; undefined when there are none. */
  firstDenied(key: string): Tunnel | undefined {
    const state = this.#reporters.get(key);
    const [name] = state?.denied ?? [];
    return name === undefined ? undefined : state?.tunnels.get(name);
  }

  /** True once a full push has said what the reporter holds in all. */
  isComplete(key: string): boolean {
    const state = this.#reporters.get(key);
    return state !== undefined && state.removed === undefined;
  }

  /** Forgets a reporter: it is another replica's now, or gone. */
  forget(key: string): void {
    const state = this.#reporters.get(key);
    if (state === undefined) return;
    this.#size -= sizeOf(state);
    this.#reporters.delete(key);
  }

  /** The tunnel that a reporter holds under a name; undefined when it does not, or is not known to. */
  tunnel(key: string, name: string): Tunnel | undefined {
    return this.#reporters.get(key)?.tunnels.get(name);
  }

  /** The reporter of a key that a report was folded under. */
  reporter(key: string): ReporterId | undefined {
    return this.#reporters.get(key)?.reporter;
  }

  /** Tunnels held by all reporters together. */
  totalTunnelCount(): number {
    let total = 0;
    for (const state of this.#reporters.values()) total += state.tunnels.size;
    return total;
  }

  #stateFor(reporter: ReporterId, prior: PriorState | undefined, grant: Grant): ReporterState {
    const key = reporterKey(reporter);
    let state = this.#reporters.get(key);
    if (state === undefined) {
      state = { reporter, tunnels: new Map(), removed: new Set(), denied: undefined };
      for (const tunnel of prior?.tunnels() ?? []) state.tunnels.set(tunnel.name, tunnel);
      state.denied = deniedTunnels(state.tunnels, grant);
      this.#size += sizeOf(state);
      this.#reporters.set(key, state);
    }
    return state;
  }
}
