/** Resident memory of the operator, with every reporter still connected and reporting. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Figure, Target } from './figure.ts';
import type { Operator } from './operator.ts';
import { memoryMiB } from './process-usage.ts';
import type { ResidentStage } from './resident-stage.ts';
import type { Bench, Measurement } from './scenario.ts';

/** With no rows, then as 500 reporters grow. The operator wrote every row itself, which takes more than listing them. */
export const memory: Measurement<ResidentStage> = {
  name: 'memory',
  about: 'resident memory with 0, 10,000 and 50,000 rows of 500 reporters',
  async measure(stage, bench) {
    const figures = await memoryOf(stage.operator, 0, bench);
    const { firstTunnels, residentTunnels } = bench.sizes;
    let rows = await stage.growTo(firstTunnels, bench);
    figures.push(...(await memoryOf(stage.operator, rows, bench, { atMost: 110 })));
    rows = await stage.growTo(residentTunnels, bench);
    figures.push(...(await memoryOf(stage.operator, rows, bench, { atMost: 180 })));
    return figures;
  },
};

/** @param note for rows that came in another way */
export async function memoryOf(
  operator: Operator,
  rows: number,
  { sizes, progress }: Bench,
  target?: Target,
  note = '',
): Promise<Figure[]> {
  progress(`${rows} rows settle`);
  await delay(sizes.settleMs);
  const { resident, highest } = memoryMiB(operator.pid);
  const name = `memory with ${rows} rows${note}`;
  return [
    { name, unit: 'MiB', value: resident, ...(target && { target }) },
    { name: `${name}, highest so far`, unit: 'MiB', value: highest },
  ];
}
