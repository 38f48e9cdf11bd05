/** How much of everything. The full sizes are those that the targets are set for. */
export interface Sizes {
  /** Tunnels that come and go at once. */
  readonly cold: number;
  /** Of the measurement that counts writes. */
  readonly counted: number;
  readonly countedChanges: number;
  readonly heartbeats: number;
  /** Reporters that stay connected, and how many tunnels each holds in the end. */
  readonly residentReporters: number;
  readonly residentTunnels: number;
  /** Of those, before the first look at memory. */
  readonly firstTunnels: number;
  /** One full push. */
  readonly large: number;
  /** What `large` is compared with in the cost of a delta. */
  readonly small: number;
  /** Deltas of a block, of which there are several. */
  readonly deltas: number;
  /** Single tunnels added, and removed again. */
  readonly singles: number;
  /** How long others report beside a hostile one. */
  readonly hostileMs: number;
  /** How long idle reporters are looked at. */
  readonly idleMs: number;
  /** From the last row to a look at memory: time for what is garbage to be found. */
  readonly settleMs: number;
}

export const FULL: Sizes = {
  cold: 10_000,
  counted: 10_000,
  countedChanges: 1000,
  heartbeats: 1000,
  residentReporters: 500,
  residentTunnels: 100,
  firstTunnels: 20,
  large: 100_000,
  small: 1000,
  deltas: 500,
  singles: 600,
  hostileMs: 30_000,
  idleMs: 40_000,
  settleMs: 10_000,
};

/** A tenth, to try the benchmark itself: too small for the targets to mean anything. */
export const QUICK: Sizes = {
  cold: 1000,
  counted: 1000,
  countedChanges: 100,
  heartbeats: 100,
  residentReporters: 50,
  residentTunnels: 100,
  firstTunnels: 20,
  large: 10_000,
  small: 100,
  deltas: 50,
  singles: 60,
  hostileMs: 6000,
  idleMs: 6000,
  settleMs: 2000,
};
