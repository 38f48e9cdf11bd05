import { parseArgs } from 'node:util';
import { openStatusLine } from './status-line.ts';
import { runFaultTable, scenarioNames } from './fault-table.ts';

const EXIT_USAGE = 2;

/**
 * Runs the faults over real processes with the flags `--only NAME`, `--percent N` and `--seed N`. Returns the exit
 * code: 0 if every scenario passed, 1 if one failed, 2 for a usage error.
 */
export async function runFaultsCommand(args: readonly string[]): Promise<number> {
  const options = {
    /** Can be repeated. */
    only: { type: 'string', multiple: true, default: [] as string[] },
    /** An integer from 10 to 100: fewer tunnels, for a busy machine. */
    percent: { type: 'string', default: '100' },
    /** An integer from 0 to 999999999, which determines the changes and the times of kills. */
    seed: { type: 'string', default: '1' },
  } as const;
  let values;
  try {
    ({ values } = parseArgs({ args: [...args], options }));
  } catch (error) {
    process.stderr.write(`faults: ${(error as Error).message.split('. ')[0]}\n`);
    return EXIT_USAGE;
  }
  const unknown = values.only.filter((name) => !scenarioNames().includes(name));
  const errors = [
    ...unknown.map((name) => `--only ${name}: must be one of ${scenarioNames().join(', ')}`),
    ...(/^\d{1,9}$/.test(values.seed) ? [] : [`--seed ${values.seed}: must be a whole number`]),
    ...(/^([1-9]\d|100)$/.test(values.percent) ? [] : [`--percent ${values.percent}: must be 10 to 100`]),
  ];
  if (errors.length > 0) {
    for (const message of errors) process.stderr.write(`faults: ${message}\n`);
    return EXIT_USAGE;
  }
  const { setStatus, print, end } = openStatusLine('faults');
  try {
    const failed = await runFaultTable({
      only: values.only,
      seed: Number(values.seed),
      percent: Number(values.percent),
      setStatus,
      print,
    });
    print(failed === 0 ? 'all scenarios passed' : `${failed} scenarios failed`);
    return failed === 0 ? 0 : 1;
  } finally {
    end();
  }
}
