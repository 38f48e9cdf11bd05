import { parseArgs } from 'node:util';
import { openLiveLine } from './live-line.ts';
import { playRealFaults, scenarioNames } from './table.ts';

const WRONG_USE = 2;

/**
 * Plays the faults over real processes, as `--only NAME`, `--percent N` and `--seed N` say; gives the exit code: 0 all were held,
 * 1 some were not, 2 wrong use.
 */
export async function playTable(args: readonly string[]): Promise<number> {
  const options = {
    /** May be given again. */
    only: { type: 'string', multiple: true, default: [] as string[] },
    /** Whole, 10 to 100: a smaller world, for a machine that does other things. */
    percent: { type: 'string', default: '100' },
    /** Whole, 0 to 999999999. Chooses what changes, and the moments of kills. */
    seed: { type: 'string', default: '1' },
  } as const;
  let values;
  try {
    ({ values } = parseArgs({ args: [...args], options }));
  } catch (error) {
    process.stderr.write(`faults: ${(error as Error).message.split('. ')[0]}\n`);
    return WRONG_USE;
  }
  const unknown = values.only.filter((name) => !scenarioNames().includes(name));
  const mistakes = [
    ...unknown.map((name) => `--only ${name}: must be one of ${scenarioNames().join(', ')}`),
    ...(/^\d{1,9}$/.test(values.seed) ? [] : [`--seed ${values.seed}: must be a whole number`]),
    ...(/^([1-9]\d|100)$/.test(values.percent) ? [] : [`--percent ${values.percent}: must be 10 to 100`]),
  ];
  if (mistakes.length > 0) {
    for (const mistake of mistakes) process.stderr.write(`faults: ${mistake}\n`);
    return WRONG_USE;
  }
  const { doing, say, end } = openLiveLine('faults');
  try {
    const differences = await playRealFaults({
      only: values.only,
      seed: Number(values.seed),
      percent: Number(values.percent),
      doing,
      say,
    });
    say(differences === 0 ? 'every fault was held' : `${differences} not held`);
    return differences === 0 ? 0 : 1;
  } finally {
    end();
  }
}
