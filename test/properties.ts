/**
 * `npm run properties`: checks the properties that compare the operator with the model, with many more sequences
 * than an ordinary test run and from one seed that is printed.
 */
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';

const FILES = [
  'test/unit/model-objects.test.ts',
  'test/unit/policy-enforcement.test.ts',
  'test/integration/model-server.test.ts',
];
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
process.exitCode = errors.length > 0 ? 2 : run(values);

function run({ runs, seed }: { readonly runs: string; readonly seed: string }): number {
  process.stdout.write(`${runs} sequences per property, seed ${seed}\n`);
  const { status } = spawnSync('mocha', FILES, {
    stdio: 'inherit',
    env: { ...process.env, FC_RUNS: runs, FC_SEED: seed },
  });
  return status ?? 1;
}
