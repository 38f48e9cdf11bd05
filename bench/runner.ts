import type { Figure } from './figure.ts';
import { load } from './machine.ts';
import { SCENARIOS } from './measurements.ts';
import type { Progress } from './progress.ts';
import type { Sizes } from './sizes.ts';

/** Everything that was seen in all runs. */
export interface Seen {
  readonly figures: readonly Figure[];
  /** Measurements that did not come to an end: which, in which run, and why. */
  readonly failures: readonly string[];
  /** Before the first run, which says what else the machine does, and after each, which is mostly the benchmark's own. */
  readonly load: readonly number[];
}

/** Measures everything that is wanted, again and again: whole runs, so that what drifts shows in the spread. */
export async function runAll(
  { wanted, runs }: { readonly wanted: ReadonlySet<string>; readonly runs: number },
  sizes: Sizes,
  progress: Progress,
): Promise<Seen> {
  const figures: Figure[] = [];
  const failures: string[] = [];
  const loads = [load()];
  for (let run = 1; run <= runs; run += 1) {
    const bench = {
      sizes,
      progress: (doing: string) => progress.update(`run ${run} of ${runs}, ${doing}`),
    };
    for (const scenario of SCENARIOS) {
      try {
        await scenario.run(wanted, bench, (taken) => figures.push(...taken));
      } catch (error) {
        const names = scenario.measurements.map(({ name }) => name).join(', ');
        const failure = `run ${run}, ${names}: ${(error as Error).message}`;
        progress.say(failure);
        failures.push(failure);
      }
    }
    loads.push(load());
  }
  return { figures, failures, load: loads };
}
