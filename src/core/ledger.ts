import {
  applyDelta,
  applyFullPush,
  deniedTunnels,
  sizeOf,
  type LimitExceeded,
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

/** Bounds of what a ledger holds. */
export interface LedgerLimits {
  /** Tunnels of one reporter, and names that it may have removed before its first full push. Default: no limit. */
  readonly tunnelsPerReporter?: number;
  /** Tunnels and removed names of all reporters together, because one peer can report as many reporters. Default: no limit. */
  readonly tunnels?: number;
}

/**
 * The latest state of every reporter, held in memory: what the rows are to be.
 *
 * Reports are folded in as they are read, each whole or not at all, so its size depends on what tunnels there are and
 * never on how many reports came.
 */
export class Ledger {
  readonly #reporters = new Map<string, ReporterState>();
  readonly #limits: LedgerLimits;
  /** Tunnels and removed names of all reporters. */
  #size = 0;

  constructor(limits: LedgerLimits = {}) {
    this.#limits = limits;
  }

  /**
   * Folds one report in: `core/fold` says how each kind counts.
   *
   * @param prior rows known from before; a delta from a reporter that the ledger does not know counts from them, and
   *   a tunnel that equals its row shares the row's memory
   * @param grant what the reporter may report now; it stays in force until the next call, or `setGrant`
   */
  apply(
    reporter: ReporterId,
    report: Report,
    prior: PriorState,
    grant: Grant = ALLOW_ALL,
  ): ReportChange | LimitExceeded {
    const isNew = !this.#reporters.has(reporterKey(reporter));
    const state = this.#stateFor(reporter, report.fullPush ? undefined : prior, grant);
    state.grant = grant;
    // Rows from before that it is not permitted to have are to go, though the report need not name them.
    const denied = isNew ? [...(state.denied ?? [])] : [];
    const applyReport = report.fullPush ? applyFullPush : applyDelta;
    const before = sizeOf(state);
    const change = applyReport(state, report, prior, {
      perReporter: this.#limits.tunnelsPerReporter ?? Number.POSITIVE_INFINITY,
      globalLimit: this.#limits.tunnels ?? Number.POSITIVE_INFINITY,
      usedByOthers: this.#size - before,
    });
    if ('limit' in change) return change;
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
    return observed !== undefined && state.grant.permits?.(observed) === false ? ABSENT : UNKNOWN;
  }

  /**
   * Replaces what a reporter may report, and compares its tunnels with it. A reporter without a report is ignored.
   *
   * @returns names of tunnels that are permitted now and were not, or the reverse
   */
  setGrant(key: string, grant: Grant): string[] {
    const state = this.#reporters.get(key);
    if (state === undefined) return [];
    state.grant = grant;
    const before = state.denied;
    state.denied = deniedTunnels(state.tunnels, grant);
    const changed: string[] = [];
    for (const name of state.denied ?? []) if (before?.has(name) !== true) changed.push(name);
    for (const name of before ?? []) if (state.denied?.has(name) !== true) changed.push(name);
    return changed;
  }

  /**
   * Forgets what a reporter holds and is not permitted to, as `setGrant` saw it last: another peer speaks for it from now
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
      state = { reporter, tunnels: new Map(), removed: new Set(), denied: undefined, grant };
      for (const tunnel of prior?.tunnels() ?? []) state.tunnels.set(tunnel.name, tunnel);
      state.denied = deniedTunnels(state.tunnels, grant);
      this.#size += sizeOf(state);
      this.#reporters.set(key, state);
    }
    return state;
  }
}
