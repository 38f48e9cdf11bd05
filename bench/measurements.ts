import { initialSync } from './initial-sync.ts';
import { deltaCost } from './delta-cost.ts';
import { noisyNeighbour } from './noisy-neighbour.ts';
import { idle, memory, openResidentFixture, restart } from './resident.ts';
import { largeMemory, largePush, openLargePushFixture } from './large-push.ts';
import { defineScenario, type Scenario, type Scale } from './scenario.ts';
import { singleChange } from './single-change.ts';
import { writeCounts } from './write-counts.ts';
import type { Metric } from './metric.ts';
import { load } from './machine.ts';
import type { Progress } from './progress.ts';

/** All scenarios in the order of their execution. Within a scenario, each measurement starts with the state that the previous one left. */
export const SCENARIOS: readonly Scenario[] = [
  initialSync(1),
  initialSync(100),
  writeCounts,
  noisyNeighbour,
  defineScenario(openResidentFixture, [memory, idle, singleChange, restart]),
  defineScenario(openLargePushFixture, [largePush, largeMemory, deltaCost]),
];

/** The values of `--only`. */
export const MEASUREMENT_NAMES = SCENARIOS.flatMap(({ measurements }) =>
  measurements.map(({ name }) => name),
);

/** The results of all runs. */
export interface RunResults {
  readonly metrics: readonly Metric[];
  /** The failed measurements, each with its run and its cause. */
  readonly failures: readonly string[];
  /** The load average before the first run, which other programs cause, and after each run, mostly caused by the benchmark. */
  readonly load: readonly number[];
}

/** Repeats all selected measurements in complete runs, so that a drift of the machine is visible in the spread. */
export async function runAll(
  { selected, runs }: { readonly selected: ReadonlySet<string>; readonly runs: number },
  scale: Scale,
  progress: Progress,
): Promise<RunResults> {
  const metrics: Metric[] = [];
  const failures: string[] = [];
  const loads = [load()];
  for (let run = 1; run <= runs; run += 1) {
    const context = {
      scale,
      progress: (activity: string) => progress.update(`run ${run} of ${runs}, ${activity}`),
    };
    for (const scenario of SCENARIOS) {
      try {
        await scenario.run(selected, context, (taken) => metrics.push(...taken));
      } catch (error) {
        const names = scenario.measurements.map(({ name }) => name).join(', ');
        const failure = `run ${run}, ${names}: ${(error as Error).message}`;
        progress.log(failure);
        failures.push(failure);
      }
    }
    loads.push(load());
  }
  return { metrics, failures, load: loads };
}
