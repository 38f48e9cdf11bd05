/**
 * `npm run test:faults`: what the operator does when things go wrong. `--seeds N` courses of faults in fake time against an
 * API server in memory, from seed `--seed S` on; a course that comes out wrong is cut down and can be shown again. `--real`
 * plays the table of faults over real processes instead, with flags of its own.
 */
import { parseArgs } from 'node:util';
import { runFaultsCommand } from './real/command.ts';
import { runSimulation } from './sim/command.ts';

const HELP = `npm run test:faults -- [flags]: seeded courses of faults in fake time (docs/simulation-testing.md)

  --seeds N        courses to play; default 10000
  --seed S         the first of them; default 1
  --api memory     their API server is simulated (default)
  --api real       it is a real kube-apiserver, started for this; faults of the store itself are left out
  --steps 3,7      with --seeds 1: only these steps of the course
  --trace          with --seeds 1: everything that happens
  --real           real processes instead, with flags of its own (docs/fault-injection.md)
`;

const args = process.argv.slice(2);
const isReal = args.includes('--real');
process.exitCode = isReal
  ? await runFaultsCommand(args.filter((arg) => arg !== '--real'))
  : await runSimulationCommand(args);

async function runSimulationCommand(args: readonly string[]): Promise<number> {
  const options = {
    /** Courses in fake time. */
    seeds: { type: 'string', default: '10000' },
    /** The first of them. */
    seed: { type: 'string', default: '1' },
    /** With one seed: only these steps of its course, by number. */
    steps: { type: 'string' },
    /** With one seed: everything that happens. */
    trace: { type: 'boolean', default: false },
    /** Their API server: in memory, or a real one. */
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
