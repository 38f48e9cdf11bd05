import { initialSync } from './initial-sync.ts';
import { deltaCost } from './delta-cost.ts';
import { noisyNeighbour } from './noisy-neighbour.ts';
import { idle } from './idle.ts';
import { largeMemory, largePush } from './large-push.ts';
import { openLargePushFixture } from './large-push-fixture.ts';
import { memory } from './memory.ts';
import { openResidentFixture } from './resident-fixture.ts';
import { restart } from './restart.ts';
import { defineScenario, type Scenario } from './scenario.ts';
import { singleChange } from './single-change.ts';
import { writeCounts } from './write-counts.ts';

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
