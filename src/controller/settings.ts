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
  /** `--write-concurrency`: concurrent writes of ReverseTunnel objects. */
  readonly writeConcurrency: number;
}
