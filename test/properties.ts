/**
 * `npm run properties`: checks the properties that compare the operator with the model, with many more sequences
 * than an ordinary test run and from one seed that is printed. Runs in several processes.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { parseArgs } from 'node:util';

const UNIT_FILES = ['test/unit/model-objects.test.ts', 'test/unit/policy-enforcement.test.ts'];
const SERVER_FILE = 'test/integration/model-server.test.ts';
/** The sequences over sockets take by far the longest. The number is fixed, so that a seed means the same everywhere. */
const SERVER_PROCESSES = 4;
const SEEDS = 2 ** 31;

const { values } = parseArgs({
  options: {
    /** Number of sequences per property. */
    runs: { type: 'string', default: '10000' },
    /** An integer. The same seed gives the same sequences. */
    seed: { type: 'string', default: String(Math.floor(Math.random() * SEEDS)) },
  },
});
const errors = Object.entries(values).filter(([, value]) => !/^-?\d{1,10}$/.test(value));
for (const [flag, value] of errors) {
  process.stderr.write(`properties: --${flag} ${value}: must be a whole number\n`);
}
process.exitCode = errors.length > 0 ? 2 : await run(Number(values.runs), Number(values.seed));

async function run(runs: number, seed: number): Promise<number> {
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
