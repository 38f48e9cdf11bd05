/**
 * `npm run properties`: checks the properties that compare the operator with the model, with many more sequences
 * than an ordinary test run and from one seed that is printed. Runs in several processes.
 */
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { numberInRange } from '../src/flag-values.ts';
import { endWithUsage, parseFlags, type CommandDescription } from '../src/flags.ts';

const UNIT_FILES = ['test/unit/model-objects.test.ts', 'test/unit/policy-enforcement.test.ts'];
const SERVER_FILE = 'test/integration/model-server.test.ts';
/** The sequences over sockets take by far the longest. The number is fixed, so that a seed means the same everywhere. */
const SERVER_PROCESSES = 4;
const MAX_SEED = 2 ** 31 - 1;

const COMMAND = {
  usage: ['npm run properties [-- FLAG ...]'],
  description:
    'Compares the operator with a reference model, for random sequences of reports and policies. Takes minutes.',
  flags: {
    runs: {
      metavar: 'N',
      description: 'sequences per property',
      default: '10000',
      read: numberInRange(1, 1_000_000_000),
    },
    seed: {
      metavar: 'N',
      description: 'the same seed gives the same sequences',
      defaultText: 'random',
      read: numberInRange(0, MAX_SEED),
    },
  },
  footer: 'Exit code: 0, 1 or more when a property does not hold, 2 for a usage error.\n',
} as const satisfies CommandDescription;

const parsed = parseFlags(COMMAND, process.argv.slice(2));
process.exitCode = 'values' in parsed ? await run(parsed.values) : endWithUsage('properties', parsed);

async function run({
  runs,
  seed = randomInt(MAX_SEED),
}: {
  readonly runs: number;
  readonly seed: number | undefined;
}): Promise<number> {
  process.stdout.write(`${runs} sequences per property, seed ${seed}\n`);
  const perProcess = Math.ceil(runs / SERVER_PROCESSES);
  const codes = await Promise.all([
    check(UNIT_FILES, runs, seed),
    ...Array.from({ length: SERVER_PROCESSES }, (_, index) => check([SERVER_FILE], perProcess, seed + index)),
  ]);
  return Math.max(...codes);
}

/** Runs test files with a seed, and prints their output at the end. Returns the exit code. */
async function check(files: readonly string[], runs: number, seed: number): Promise<number> {
  const child = spawn('mocha', files, {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, FC_RUNS: String(runs), FC_SEED: String(seed) },
  });
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')]);
  process.stdout.write(`${runs} sequences, seed ${seed}\n${output}`);
  return (code as number | null) ?? 1;
}
