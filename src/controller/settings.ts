import type { RemovalHoldRule } from '../core/removal-hold.ts';
import type { Representation } from '../core/representation.ts';

/** Settings of the controllers. `reportIntervalMs` may change while they run. */
export interface ControllerSettings {
  /** `--report-interval`. */
  reportIntervalMs: number;
  /** `--unknown-after`. */
  readonly unknownAfterMs: number;
  /** `--expire-after`. */
  readonly expireAfterMs: number;
  /** `--removal-hold` and `--removal-hold-threshold`. */
  readonly removalHold: RemovalHoldRule;
  /** `--representation`, which policies override. Default: objects. */
  readonly representation?: Representation | undefined;
  /** The most tunnels in a slice: 1 to 100. Default: 100; tests use fewer. */
  readonly maxSliceTunnels?: number | undefined;
  /** `--write-concurrency`: concurrent writes of ReverseTunnel objects. */
  readonly writeConcurrency: number;
}
