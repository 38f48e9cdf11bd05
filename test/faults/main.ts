/**
 * `npm run test:faults`: what the operator does when things go wrong. `--seeds N` courses of faults in fake time against an
 * API server in memory, from seed `--seed S` on; a course that comes out wrong is cut down and can be shown again.
 */
import { parseArgs } from 'node:util';
import { runSimulation } from './sim/command.ts';

const { values } = parseArgs({
  options: {
    /** Courses in fake time. */
    seeds: { type: 'string', default: '10000' },
    /** The first of them. */
    seed: { type: 'string', default: '1' },
    /** With one seed: only these steps of its course, by number. */
    steps: { type: 'string' },
    /** With one seed: everything that happens. */
    trace: { type: 'boolean', default: false },
  },
});

const problem = (['seeds', 'seed'] as const).find((flag) => !/^\d{1,9}$/.test(values[flag]));
if (problem !== undefined) {
  process.stderr.write(`test:faults: --${problem} ${values[problem]}: must be a whole number\n`);
  process.exitCode = 2;
} else {
  const steps =
    values.steps === undefined
      ? undefined
      : values.steps
          .split(',')
          .filter((one) => one !== 'none')
          .map(Number);
  const right = await runSimulation({
    seeds: Number(values.seeds),
    seed: Number(values.seed),
    steps,
    trace: values.trace,
  });
  process.exitCode = right ? 0 : 1;
}
