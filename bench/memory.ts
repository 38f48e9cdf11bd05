/** Resident memory of the operator, with every reporter still connected and reporting. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Metric, Target } from './metric.ts';
import type { Operator } from './operator.ts';
import { memoryMiB } from './process-usage.ts';
import type { ResidentFixture } from './resident-fixture.ts';
import type { BenchContext, Measurement } from './scenario.ts';

/** With no rows, then as 500 reporters grow. The operator wrote every row itself, which takes more than listing them. */
export const memory: Measurement<ResidentFixture> = {
  name: 'memory',
  description: 'resident memory with 0, 10,000 and 50,000 rows of 500 reporters',
  async measure(fixture, context) {
    const metrics = await measureMemory(fixture.operator, 0, context);
    const { initialTunnels, residentTunnels } = context.scale;
    let objects = await fixture.growTo(initialTunnels, context);
    metrics.push(...(await measureMemory(fixture.operator, objects, context, { atMost: 110 })));
    objects = await fixture.growTo(residentTunnels, context);
    metrics.push(...(await measureMemory(fixture.operator, objects, context, { atMost: 180 })));
    return metrics;
  },
};

/** @param note for rows that came in another way */
export async function measureMemory(
  operator: Operator,
  objects: number,
  { scale, progress }: BenchContext,
  target?: Target,
  note = '',
): Promise<Metric[]> {
  progress(`${objects} rows settle`);
  await delay(scale.settleMs);
  const { resident, peak } = memoryMiB(operator.pid);
  const name = `memory with ${objects} rows${note}`;
  return [
    { name, unit: 'MiB', value: resident, ...(target && { target }) },
    { name: `${name}, highest so far`, unit: 'MiB', value: peak },
  ];
}
