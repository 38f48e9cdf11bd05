import { cold } from './cold.ts';
import { deltaCost } from './delta-cost.ts';
import { hostile } from './hostile.ts';
import { idle } from './idle.ts';
import { largeMemory, largePush } from './large-push.ts';
import { openLargeStage } from './large-stage.ts';
import { memory } from './memory.ts';
import { openResidentStage } from './resident-stage.ts';
import { restart } from './restart.ts';
import { scenario, type Scenario } from './scenario.ts';
import { singleChange } from './single-change.ts';
import { writeCounts } from './write-counts.ts';

/** Everything that is measured, in the order in which it is done. On a stage that is shared, later ones find more in it. */
export const SCENARIOS: readonly Scenario[] = [
  cold(1),
  cold(100),
  writeCounts,
  hostile,
  scenario(openResidentStage, [memory, idle, singleChange, restart]),
  scenario(openLargeStage, [largePush, largeMemory, deltaCost]),
];

/** Names as `--only` takes them. */
export const MEASUREMENT_NAMES = SCENARIOS.flatMap(({ measurements }) =>
  measurements.map(({ name }) => name),
);
