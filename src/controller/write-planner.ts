import type { Ledger } from '../core/ledger.ts';
import { nextAction, nextDisconnectedAction, type TunnelAction } from '../core/plan.ts';
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

  /** Returns the next write that a tunnel needs; undefined if its objects are in the desired state. */
  nextWrite(key: string, tunnelName: string): TunnelAction | undefined {
    const objects = this.#objects.objects(key, tunnelName);
    const state = this.#ledger.tunnelState(key, tunnelName, objects[0]?.tunnel);
    const phase = this.#reporters.phase(key);
    return phase === undefined ? nextAction(state, objects) : nextDisconnectedAction(state, objects, phase);
  }

  needsWrite(key: string, tunnelName: string): boolean {
    return this.nextWrite(key, tunnelName) !== undefined;
  }
}
