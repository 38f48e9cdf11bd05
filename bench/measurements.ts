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

/** Everything that is measured, in the order in which it is done. On a stage that is shared, later ones find more in it. */
export const SCENARIOS: readonly Scenario[] = [
  initialSync(1),
  initialSync(100),
  writeCounts,
  noisyNeighbour,
  defineScenario(openResidentFixture, [memory, idle, singleChange, restart]),
  defineScenario(openLargePushFixture, [largePush, largeMemory, deltaCost]),
];

/** Names as `--only` takes them. */
export const MEASUREMENT_NAMES = SCENARIOS.flatMap(({ measurements }) =>
  measurements.map(({ name }) => name),
);

/** Everything that was seen in all runs. */
export interface RunResults {
  readonly metrics: readonly Metric[];
  /** Measurements that did not come to an end: which, in which run, and why. */
  readonly failures: readonly string[];
  /** Before the first run, which says what else the machine does, and after each, which is mostly the benchmark's own. */
  readonly load: readonly number[];
}

/** Measures everything that is wanted, again and again: whole runs, so that what drifts shows in the spread. */
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
      progress: (doing: string) => progress.update(`run ${run} of ${runs}, ${doing}`),
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
