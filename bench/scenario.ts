/** How measurements are written down and run. */
import type { Figure } from './figure.ts';
import type { Sizes } from './sizes.ts';

/** What every measurement is given. */
export interface Bench {
  readonly sizes: Sizes;
  /** Says what is being done; the runner adds run and measurement. */
  readonly progress: (doing: string) => void;
}

/** One measurement: what it is called on the command line, and what it says of itself in `--help`. */
export interface Measurement<S> {
  readonly name: string;
  readonly about: string;
  readonly measure: (stage: S, bench: Bench) => Promise<readonly Figure[]>;
}

/** Measurements that share a stage: building 50,000 rows for each anew would take a minute each time. */
export interface Scenario {
  readonly measurements: readonly Pick<Measurement<never>, 'name' | 'about'>[];
  /**
   * Opens the stage, runs those measurements of `wanted` that are its own, in their order, and takes the stage down.
   * What one of them throws ends the scenario, for the stage cannot be relied on any more.
   */
  run(wanted: ReadonlySet<string>, bench: Bench, take: (figures: readonly Figure[]) => void): Promise<void>;
}

/** @param open builds the stage; whatever it leaves in `undo` goes when the scenario ends, last first */
export function scenario<S>(
  open: (bench: Bench, undo: AsyncDisposableStack) => Promise<S>,
  measurements: readonly Measurement<S>[],
): Scenario {
  return {
    measurements,
    async run(wanted, bench, take) {
      const chosen = measurements.filter(({ name }) => wanted.has(name));
      if (chosen.length === 0) return;
      await using undo = new AsyncDisposableStack();
      const [first] = chosen;
      const named = (name: string): Bench => ({
        ...bench,
        progress: (doing) => bench.progress(`${name}: ${doing}`),
      });
      const stage = await open(named(first?.name ?? ''), undo);
      for (const { name, measure } of chosen) take(await measure(stage, named(name)));
    },
  };
}
