/** How much of everything. The full sizes are those that the targets are set for. */
export interface Scale {
  /** Tunnels that come and go at once. */
  readonly initialSyncTunnels: number;
  /** Of the measurement that counts writes. */
  readonly countedTunnels: number;
  readonly countedChanges: number;
  readonly heartbeats: number;
  /** Reporters that stay connected, and how many tunnels each holds in the end. */
  readonly residentReporters: number;
  readonly residentTunnels: number;
  /** Of those, before the first look at memory. */
  readonly initialTunnels: number;
  /** One full push. */
  readonly largePushTunnels: number;
  /** What `large` is compared with in the cost of a delta. */
  readonly smallPushTunnels: number;
  /** Deltas of a block, of which there are several. */
  readonly deltasPerBlock: number;
  /** Single tunnels added, and removed again. */
  readonly singleChanges: number;
  /** How long others report beside a hostile one. */
  readonly noisyNeighbourMs: number;
  /** How long idle reporters are looked at. */
  readonly idleMs: number;
  /** From the last row to a look at memory: time for what is garbage to be found. */
  readonly settleMs: number;
}

export const FULL: Scale = {
  initialSyncTunnels: 10_000,
  countedTunnels: 10_000,
  countedChanges: 1000,
  heartbeats: 1000,
  residentReporters: 500,
  residentTunnels: 100,
  initialTunnels: 20,
  largePushTunnels: 100_000,
  smallPushTunnels: 1000,
  deltasPerBlock: 500,
  singleChanges: 600,
  noisyNeighbourMs: 30_000,
  idleMs: 40_000,
  settleMs: 10_000,
};

/** A tenth, to try the benchmark itself: too small for the targets to mean anything. */
export const QUICK: Scale = {
  initialSyncTunnels: 1000,
  countedTunnels: 1000,
  countedChanges: 100,
  heartbeats: 100,
  residentReporters: 50,
  residentTunnels: 100,
  initialTunnels: 20,
  largePushTunnels: 10_000,
  smallPushTunnels: 100,
  deltasPerBlock: 50,
  singleChanges: 60,
  noisyNeighbourMs: 6000,
  idleMs: 6000,
  settleMs: 2000,
};
