import type { Ledger } from '../core/ledger.ts';
import { nextAction, nextDisconnectedAction, type ToleratedParts, type TunnelAction } from '../core/plan.ts';
import type { ObjectParts } from '../core/rewrite.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { TunnelCache } from './tunnel-cache.ts';

/** Compares the desired state of tunnels (ledger) with their objects (cache). */
export class WritePlanner {
  readonly #ledger: Ledger;
  readonly #objects: TunnelCache;
  readonly #reporters: ReporterRegistry;

  constructor(ledger: Ledger, objects: TunnelCache, reporters: ReporterRegistry) {
    this.#ledger = ledger;
    this.#objects = objects;
    this.#reporters = reporters;
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
    const rewritten = this.#reporters.entry(key)?.pendingWrites.rewritten;
    const isRewritten = rewritten?.has(tunnelName) === true;
    if (!isRewritten && ignored === 0) return this.#nextAction(key, tunnelName, undefined);
    const desired = this.#ledger.tunnel(key, tunnelName);
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
    const objects = this.#objects.objects(key, tunnelName);
    const state = this.#ledger.tunnelState(key, tunnelName, objects[0]?.tunnel);
    const phase = this.#reporters.phase(key);
    return phase === undefined
      ? nextAction(state, objects, tolerated)
      : nextDisconnectedAction(state, objects, phase, tolerated);
  }
}
