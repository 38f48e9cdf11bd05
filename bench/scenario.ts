import type { Metric } from './metric.ts';

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

/** How measurements are written down and run. */

/** What every measurement is given. */
export interface BenchContext {
  readonly scale: Scale;
  /** Says what is being done; the runner adds run and measurement. */
  readonly progress: (doing: string) => void;
}

/** One measurement: what it is called on the command line, and what it says of itself in `--help`. */
export interface Measurement<S> {
  readonly name: string;
  readonly description: string;
  readonly measure: (stage: S, bench: BenchContext) => Promise<readonly Metric[]>;
}

/** Measurements that share a stage: building 50,000 rows for each anew would take a minute each time. */
export interface Scenario {
  readonly measurements: readonly Pick<Measurement<never>, 'name' | 'description'>[];
  /**
   * Opens the stage, runs those measurements of `wanted` that are its own, in their order, and takes the stage down.
   * What one of them throws ends the scenario, for the stage cannot be relied on any more.
   */
  run(
    wanted: ReadonlySet<string>,
    bench: BenchContext,
    take: (figures: readonly Metric[]) => void,
  ): Promise<void>;
}

/** @param open builds the stage; whatever it leaves in `undo` goes when the scenario ends, last first */
export function defineScenario<S>(
  open: (context: BenchContext, cleanup: AsyncDisposableStack) => Promise<S>,
  measurements: readonly Measurement<S>[],
): Scenario {
  return {
    measurements,
    async run(selected, context, collect) {
      const chosen = measurements.filter(({ name }) => selected.has(name));
      if (chosen.length === 0) return;
      await using cleanup = new AsyncDisposableStack();
      const [first] = chosen;
      const withPrefix = (name: string): BenchContext => ({
        ...context,
        progress: (doing) => context.progress(`${name}: ${doing}`),
      });
      const fixture = await open(withPrefix(first?.name ?? ''), cleanup);
      for (const { name, measure } of chosen) collect(await measure(fixture, withPrefix(name)));
    },
  };
}
