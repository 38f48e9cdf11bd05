/** Settings of the controllers. `reportIntervalMs` may change while they run. */
export interface ControllerSettings {
  /** `--report-interval`. */
  reportIntervalMs: number;
  /** `--unknown-after`. */
  readonly unknownAfterMs: number;
  /** `--expire-after`. */
  readonly expireAfterMs: number;
  /** `--write-concurrency`: concurrent writes of ReverseTunnel objects. */
  readonly writeConcurrency: number;
}
