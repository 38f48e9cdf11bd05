import type { Ledger, TunnelState } from '../core/ledger.ts';
import { nextAction, nextDisconnectedAction, type ToleratedParts, type TunnelAction } from '../core/plan.ts';
import type { ObjectParts } from '../core/rewrite.ts';
import { Drift, type ObservedTunnel } from '../core/tunnel-object.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { Representations } from './representations.ts';
import type { SlicePlanner } from './slice-planner.ts';
import type { TunnelCache } from './tunnel-cache.ts';

export interface WritePlannerOptions {
  readonly ledger: Ledger;
  readonly objects: TunnelCache;
  readonly registry: ReporterRegistry;
  readonly representations: Representations;
  readonly slices: SlicePlanner;
}

const ABSENT: TunnelState = { state: 'absent' };
const UNKNOWN: TunnelState = { state: 'unknown' };

/** Compares the desired state of tunnels (ledger) with their objects (cache). */
export class WritePlanner {
  readonly #options: WritePlannerOptions;

  constructor(options: WritePlannerOptions) {
    this.#options = options;
  }

  /**
   * Returns the next write that a tunnel needs now; undefined if there is none, or if all would repeat a write that
   * admission rewrote less than 5 min ago.
   *
   * @param ignored parts whose differences are not written now
   */
  nextWrite(
    key: string,
    tunnelName: string,
    nowMs: number,
    ignored: ObjectParts = 0,
  ): TunnelAction | undefined {
    const { ledger, registry } = this.#options;
    const rewritten = registry.entry(key)?.pendingWrites.rewritten;
    const isRewritten = rewritten?.has(tunnelName) === true;
    if (!isRewritten && ignored === 0) return this.#nextAction(key, tunnelName, undefined);
    const desired = ledger.tunnel(key, tunnelName);
    return this.#nextAction(
      key,
      tunnelName,
      (object) => ignored | (rewritten?.tolerated(tunnelName, object?.uid, desired, nowMs) ?? 0),
    );
  }

  /** Returns true if an object of a tunnel is not in the desired state, even if it is not written now. */
  needsWrite(key: string, tunnelName: string): boolean {
    return this.#nextAction(key, tunnelName, undefined) !== undefined;
  }

  #nextAction(
    key: string,
    tunnelName: string,
    tolerated: ToleratedParts | undefined,
  ): TunnelAction | undefined {
    const { objects: cache, registry } = this.#options;
    const objects = cache.objects(key, tunnelName);
    const state = this.#desiredState(key, tunnelName, objects);
    const phase = registry.phase(key);
    return phase === undefined
      ? nextAction(state, objects, tolerated)
      : nextDisconnectedAction(state, objects, phase, tolerated);
  }

  /**
   * Returns what objects should show about a tunnel. One that is represented in slices is absent once a slice shows it;
   * until then, nothing is created, and an existing object is kept up to date.
   */
  #desiredState(key: string, tunnelName: string, objects: readonly ObservedTunnel[]): TunnelState {
    const { representations, slices } = this.#options;
    const { state, usesSlice } = representations.desired(key, tunnelName, objects[0]?.tunnel);
    if (state.state !== 'present' || !usesSlice) return state;
    if (objects.every(({ drift }) => (drift & Drift.terminating) !== 0)) return UNKNOWN;
    return slices.covers(key, state.tunnel) ? ABSENT : state;
  }
}
