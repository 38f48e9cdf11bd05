/**
 * `npm run test:faults`: fault injection. By default it runs `--seeds N` seeded schedules of faults in fake time
 * against an in-memory API server, starting with seed `--seed S`, and shrinks failing schedules. With `--real` it
 * runs the fault table over real processes instead, with flags of its own.
 */
import { parseArgs } from 'node:util';
import { runFaultsCommand } from './real/command.ts';
import { runSimulation } from './sim/command.ts';

const HELP = `Usage: npm run test:faults -- [flags]: seeded fault schedules in fake time (docs/simulation-testing.md)

  --seeds N        number of schedules; default 10000
  --seed S         the first seed; default 1
  --api memory     run against an in-memory API server (default)
  --api real       run against a real kube-apiserver, started for this, without faults of its store
  --steps 3,7      with --seeds 1: only these faults of the schedule
  --trace          with --seeds 1: print every event
  --real           run the fault table over real processes, with flags of its own (docs/fault-injection.md)
`;

const args = process.argv.slice(2);
const isReal = args.includes('--real');
process.exitCode = isReal
  ? await runFaultsCommand(args.filter((arg) => arg !== '--real'))
  : await runSimulationCommand(args);

async function runSimulationCommand(args: readonly string[]): Promise<number> {
  const options = {
    /** Number of schedules. */
    seeds: { type: 'string', default: '10000' },
    /** The first seed. */
    seed: { type: 'string', default: '1' },
    /** With one seed: only the faults of its schedule with these indexes. */
    steps: { type: 'string' },
    /** With one seed: prints every event. */
    trace: { type: 'boolean', default: false },
    /** The API server: in memory, or a real one. */
    api: { type: 'string', default: 'memory' },
    help: { type: 'boolean', default: false },
  } as const;
  let values;
  try {
    ({ values } = parseArgs({ args: [...args], options }));
  } catch (error) {
    process.stderr.write(`test:faults: ${(error as Error).message.split('. ')[0]}\n`);
    return 2;
  }

  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  if (values.api !== 'memory' && values.api !== 'real') {
    process.stderr.write(`test:faults: --api ${values.api}: must be memory or real\n`);
    return 2;
  }
  const invalidFlag = (['seeds', 'seed'] as const).find((flag) => !/^\d{1,9}$/.test(values[flag]));
  if (invalidFlag !== undefined) {
    process.stderr.write(`test:faults: --${invalidFlag} ${values[invalidFlag]}: must be a whole number\n`);
    return 2;
  }
  const steps =
    values.steps === undefined
      ? undefined
      : values.steps
          .split(',')
          .filter((step) => step !== 'none')
          .map(Number);
  const succeeded = await runSimulation({
    seeds: Number(values.seeds),
    seed: Number(values.seed),
    steps,
    trace: values.trace,
    api: values.api === 'real' ? 'real' : 'memory',
  });
  return succeeded ? 0 : 1;
}
