/** How measurements are written down and run. */
import type { Metric } from './metric.ts';
import type { Scale } from './scale.ts';

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
