/** Scenarios: measurements that share a fixture, and the sizes that they run with. */
import type { Metric } from './metric.ts';

/** The sizes of all measurements. The targets apply to the full sizes. */
export interface Scale {
  /** Tunnels that are added and removed at once. */
  readonly initialSyncTunnels: number;
  /** Tunnels, changes and heartbeats of the measurement that counts writes. */
  readonly countedTunnels: number;
  readonly countedChanges: number;
  readonly heartbeats: number;
  /** Reporters that stay connected, and the final number of tunnels of each. */
  readonly residentReporters: number;
  readonly residentTunnels: number;
  /** Tunnels of each at the first measurement of memory. */
  readonly initialTunnels: number;
  /** Tunnels in the large full push. */
  readonly largePushTunnels: number;
  /** Tunnels of the reporter that the cost of a delta is compared to. */
  readonly smallPushTunnels: number;
  /** Deltas per block; there are several blocks. */
  readonly deltasPerBlock: number;
  /** Single tunnels that are added, and removed again. */
  readonly singleChanges: number;
  /** The duration of each phase of the noisy neighbour measurement, over all rounds. */
  readonly noisyNeighbourMs: number;
  /** The duration of the idle measurement. */
  readonly idleMs: number;
  /** From the last object to a measurement of memory, so that garbage is collected. */
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

/** A tenth of the size, to try the benchmark itself; too small for the targets. */
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

/** The arguments of every measurement. */
export interface BenchContext {
  readonly scale: Scale;
  /** Reports the current activity; the caller adds the run and the measurement. */
  readonly progress: (activity: string) => void;
}

/** A measurement, with its name on the command line and its description in `--help`. */
export interface Measurement<S> {
  readonly name: string;
  readonly description: string;
  readonly measure: (fixture: S, context: BenchContext) => Promise<readonly Metric[]>;
}

/** Measurements that share a fixture, because creating 50,000 objects takes a minute. */
export interface Scenario {
  readonly measurements: readonly Pick<Measurement<never>, 'name' | 'description'>[];
  /**
   * Opens the fixture, runs the selected measurements in their order, and closes the fixture. An error of a measurement
   * ends the scenario, because the state of the fixture is unknown then.
   */
  run(
    selected: ReadonlySet<string>,
    context: BenchContext,
    collect: (metrics: readonly Metric[]) => void,
  ): Promise<void>;
}

/**
 * Defines a scenario.
 *
 * @param open creates the fixture; `cleanup` is disposed of when the scenario ends
 */
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
        progress: (activity) => context.progress(`${name}: ${activity}`),
      });
      const fixture = await open(withPrefix(first?.name ?? ''), cleanup);
      for (const { name, measure } of chosen) collect(await measure(fixture, withPrefix(name)));
    },
  };
}
