import {
  applyDelta,
  applyFullPush,
  deniedTunnels,
  holdUncompared,
  sizeOf,
  type LimitExceeded,
  type Limits,
  type ObjectsContext,
  type PriorState,
  type ReportChange,
  type ReporterState,
  type StartedHold,
} from './apply-report.ts';
import { ALLOW_ALL, type Grant } from './grant.ts';
import { HeldRemovals, NO_REMOVAL_HOLD, type RemovalHoldRule } from './removal-hold.ts';
import type { Report } from './report.ts';
import { reporterKey, type ReporterId, type Tunnel } from './tunnel.ts';

/** What the ledger knows about one tunnel. */
export type TunnelState =
  | { readonly state: 'present'; readonly tunnel: Tunnel }
  /** The reporter does not hold the tunnel: its object should be deleted. */
  | { readonly state: 'absent' }
  /** A full push lacks the tunnel, and its removal is held: its object stays unchanged for now. */
  | { readonly state: 'held' }
  /** The reporter has not reported about the tunnel: its object stays unchanged. */
  | { readonly state: 'unknown' };

const ABSENT: TunnelState = { state: 'absent' };
const HELD: TunnelState = { state: 'held' };
const UNKNOWN: TunnelState = { state: 'unknown' };

/** Limits of a ledger. */
export interface LedgerLimits {
  /** Tunnels of one reporter, and names that it may have removed before its first full push. Default: no limit. */
  readonly tunnelsPerReporter?: number;
  /** Tunnels and removed names of all reporters together, because one peer can report as many reporters. Default: no limit. */
  readonly tunnels?: number;
}

/**
 * The latest state of all reporters in memory: the desired state of the objects.
 *
 * Reports are applied as they are read, each as a whole or not at all. The size of a ledger therefore depends on the
 * number of tunnels and never on the number of reports.
 */
export class Ledger {
  readonly #reporters = new Map<string, ReporterState>();
  readonly #limits: LedgerLimits;
  readonly #rule: RemovalHoldRule;
  /** Tunnels and removed names of all reporters. */
  #size = 0;
  /** Held names of all reporters. */
  #heldCount = 0;

  /** @param rule when the removals of a full push are held. Default: never */
  constructor(limits: LedgerLimits = {}, rule: RemovalHoldRule = NO_REMOVAL_HOLD) {
    this.#limits = limits;
    this.#rule = rule;
  }

  /**
   * Applies a report; see `applyFullPush` and `applyDelta`.
   *
   * @param prior the tunnels of existing objects; a delta of a reporter without a state is applied to them, and a tunnel
   *   that equals that of its object shares its memory
   * @param grant what the reporter may report from now on, until the next call or `setGrant`
   * @param context what is known about the objects; undefined: no removal is held
   */
  apply(
    reporter: ReporterId,
    report: Report,
    prior: PriorState,
    grant: Grant = ALLOW_ALL,
    context?: ObjectsContext,
  ): ReportChange | LimitExceeded {
    const known = this.#reporters.get(reporterKey(reporter));
    const state = known ?? this.#createState(reporter, report.fullPush ? undefined : prior, grant);
    state.grant = grant;
    // Existing objects that the grant does not permit must be deleted, although the report need not name them.
    const denied = known === undefined ? [...(state.denied ?? [])] : [];
    const limits = this.#limitsFor(state);
    this.#subtract(state);
    const change = report.fullPush
      ? applyFullPush(state, report, prior, limits, this.#rule, context)
      : applyDelta(state, report, prior, limits);
    this.#add(state);
    if ('limit' in change) return change;
    return denied.length === 0
      ? change
      : { ...change, changed: [...new Set([...change.changed, ...denied])] };
  }

  /**
   * Returns what is known about a tunnel of a reporter. A tunnel that the grant does not permit counts as absent.
   *
   * @param key see `reporterKey`
   * @param observed the tunnel of an existing object, which the grant is applied to if the reporter has not reported it
   */
  tunnelState(key: string, name: string, observed?: Tunnel): TunnelState {
    const state = this.#reporters.get(key);
    if (state === undefined) return UNKNOWN;
    const tunnel = state.tunnels.get(name);
    if (tunnel !== undefined) return state.denied?.has(name) === true ? ABSENT : { state: 'present', tunnel };
    const isHeld = state.held.has(name);
    if (!isHeld && (state.removed === undefined || state.removed.has(name))) return ABSENT;
    // A tunnel that is not permitted is absent whether or not the reporter holds it.
    if (observed !== undefined && state.grant.permits?.(observed) === false) return ABSENT;
    return isHeld ? HELD : UNKNOWN;
  }

  /**
   * Compares the last full push with the objects, which were not listed when it was applied, and holds what it lacks.
   * Must be called for each reporter when the first list is complete, before its objects are compared.
   *
   * @returns the hold that has started; undefined if none has
   */
  holdUncompared(key: string, prior: PriorState, nowMs: number): StartedHold | undefined {
    const state = this.#reporters.get(key);
    if (state?.uncompared === undefined) return undefined;
    const limits = this.#limitsFor(state);
    this.#subtract(state);
    const hold = holdUncompared(state, prior, limits, this.#rule, nowMs);
    this.#add(state);
    return hold;
  }

  /** Returns the removals of a reporter that are held, and until when; undefined if there are none. */
  heldRemovals(key: string): Pick<HeldRemovals, 'size' | 'nextUntilMs' | 'lastUntilMs'> | undefined {
    const held = this.#reporters.get(key)?.held;
    return held === undefined || held.size === 0 ? undefined : held;
  }

  /** Returns true while the removal of a tunnel is held. */
  isHeld(key: string, name: string): boolean {
    return this.#reporters.get(key)?.held.has(name) === true;
  }

  /** The number of held removals of all reporters. */
  get heldCount(): number {
    return this.#heldCount;
  }

  /** Ends the holds of a reporter whose time has passed. Returns their names, which are absent from now on. */
  releaseHeld(key: string, nowMs: number): string[] {
    const released = this.#reporters.get(key)?.held.takeEnded(nowMs) ?? [];
    this.#heldCount -= released.length;
    return released;
  }

  /**
   * Sets what a reporter may report and applies it to the tunnels that it holds. Does nothing before its first report.
   *
   * @returns names of tunnels that are permitted now and were not before, or the reverse
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
   * Forgets the tunnels of a reporter that its grant does not permit. Called when another peer takes over the reporter:
   * the grant of that peer must not reveal what the previous peer has reported.
   */
  dropDenied(key: string): void {
    const state = this.#reporters.get(key);
    if (state?.denied === undefined) return;
    this.#subtract(state);
    for (const name of state.denied) {
      state.tunnels.delete(name);
      // Keeps the tunnel absent, as it was while it was denied.
      state.removed?.add(name);
    }
    state.denied = undefined;
    this.#add(state);
  }

  /** Returns the names of the tunnels that a reporter holds, and of those removed before its first full push. */
  *tunnelNames(key: string): Iterable<string> {
    const state = this.#reporters.get(key);
    if (state === undefined) return;
    yield* state.tunnels.keys();
    if (state.removed !== undefined) yield* state.removed;
  }

  /**
   * Returns the tunnels that a reporter holds, in the order in which they became known; none if the grant does not permit
   * all of them, because another peer that takes over must not learn about those.
   */
  tunnels(key: string): Iterable<Tunnel> {
    const state = this.#reporters.get(key);
    return state === undefined || (state.denied?.size ?? 0) > 0 ? [] : state.tunnels.values();
  }

  /** Returns the number of tunnels that a reporter holds. */
  tunnelCount(key: string): number {
    return this.#reporters.get(key)?.tunnels.size ?? 0;
  }

  /**
   * Returns true if the grant does not permit a tunnel that a reporter holds, or whose removal is held.
   *
   * @param observed the tunnel of an existing object; without it, a held removal is not recognized as denied
   */
  isDenied(key: string, name: string, observed?: Tunnel): boolean {
    const state = this.#reporters.get(key);
    if (state === undefined) return false;
    if (state.denied?.has(name) === true) return true;
    return observed !== undefined && state.held.has(name) && state.grant.permits?.(observed) === false;
  }

  /** Returns the number of held tunnels that the grant does not permit. */
  deniedCount(key: string): number {
    return this.#reporters.get(key)?.denied?.size ?? 0;
  }

  /** Returns one of the held tunnels that the grant does not permit, for a message; undefined if there are none. */
  firstDenied(key: string): Tunnel | undefined {
    const state = this.#reporters.get(key);
    const [name] = state?.denied ?? [];
    return name === undefined ? undefined : state?.tunnels.get(name);
  }

  /** Returns true after the first full push of a reporter. */
  isComplete(key: string): boolean {
    const state = this.#reporters.get(key);
    return state !== undefined && state.removed === undefined;
  }

  /** Forgets a reporter that another replica owns or that no longer exists. */
  forget(key: string): void {
    const state = this.#reporters.get(key);
    if (state === undefined) return;
    this.#subtract(state);
    this.#reporters.delete(key);
  }

  /** Returns the tunnel that a reporter holds under a name, whether or not the grant permits it. */
  tunnel(key: string, name: string): Tunnel | undefined {
    return this.#reporters.get(key)?.tunnels.get(name);
  }

  /** Returns the reporter of a key; undefined before its first report. */
  reporter(key: string): ReporterId | undefined {
    return this.#reporters.get(key)?.reporter;
  }

  /** Returns the number of tunnels that all reporters hold. */
  totalTunnelCount(): number {
    let total = 0;
    for (const state of this.#reporters.values()) total += state.tunnels.size;
    return total;
  }

  #createState(reporter: ReporterId, prior: PriorState | undefined, grant: Grant): ReporterState {
    const state: ReporterState = {
      reporter,
      tunnels: new Map(),
      removed: new Set(),
      denied: undefined,
      held: new HeldRemovals(),
      uncompared: undefined,
      grant,
    };
    for (const tunnel of prior?.tunnels() ?? []) state.tunnels.set(tunnel.name, tunnel);
    state.denied = deniedTunnels(state.tunnels, grant);
    this.#add(state);
    this.#reporters.set(reporterKey(reporter), state);
    return state;
  }

  #limitsFor(state: ReporterState): Limits {
    return {
      perReporter: this.#limits.tunnelsPerReporter ?? Number.POSITIVE_INFINITY,
      globalLimit: this.#limits.tunnels ?? Number.POSITIVE_INFINITY,
      usedByOthers: this.#size - sizeOf(state),
      heldByOthers: this.#heldCount - state.held.size,
    };
  }

  /** Removes a reporter from the totals, before its state changes. */
  #subtract(state: ReporterState): void {
    this.#size -= sizeOf(state);
    this.#heldCount -= state.held.size;
  }

  /** Adds a reporter to the totals, after its state has changed. */
  #add(state: ReporterState): void {
    this.#size += sizeOf(state);
    this.#heldCount += state.held.size;
  }
}
