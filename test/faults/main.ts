/**
 * `npm run test:faults`: fault injection. By default it runs `--seeds N` seeded schedules of faults in fake time
 * against an in-memory API server, starting with seed `--seed S`, and shrinks failing schedules. With `--real` it
 * runs the fault table over real processes instead.
 */
import { REPRESENTATIONS } from '../../src/core/representation.ts';
import { enumOf, numberInRange, textMatching } from '../../src/flag-values.ts';
import { endWithUsage, parseFlags, type CommandDescription } from '../../src/flags.ts';
import { runFaultTable, scenarioNames } from './real/fault-table.ts';
import { openStatusLine } from './real/status-line.ts';
import { runSimulation } from './sim/command.ts';

const COMMAND = {
  usage: ['npm run test:faults -- [FLAG ...]'],
  description: 'Runs seeded schedules of faults in fake time (docs/simulation-testing.md).',
  flags: {
    seeds: {
      metavar: 'N',
      description: 'number of schedules',
      default: '10000',
      read: numberInRange(1, 1e9),
    },
    seed: {
      metavar: 'S',
      description: 'the first seed; with --real: determines the changes and the times of kills',
      default: '1',
      read: numberInRange(0, 999_999_999),
    },
    api: {
      metavar: 'API',
      description: 'memory: an in-memory API server; real: a kube-apiserver, without faults of its store',
      default: 'memory',
      read: enumOf(['memory', 'real']),
    },
    representation: {
      metavar: 'FORM',
      description: 'objects, or slices: in many runs with a migration from or to objects',
      default: 'objects',
      read: enumOf(REPRESENTATIONS),
    },
    steps: {
      metavar: 'I,J',
      description: 'with --seeds 1: only these faults of the schedule, or none',
      read: textMatching('^(none|[0-9]+(,[0-9]+)*)$', 'must be indexes with commas, or none'),
    },
    trace: { description: 'with --seeds 1: print every event' },
    real: { description: 'run the fault table over real processes (docs/fault-injection.md)' },
    only: {
      metavar: 'NAME',
      description: 'with --real: a scenario to run; can be repeated',
      repeatable: true,
      read: enumOf(scenarioNames()),
    },
    percent: {
      metavar: 'N',
      description: 'with --real: percentage of the tunnels, 10 to 100, for a busy machine',
      default: '100',
      read: numberInRange(10, 100),
    },
  },
  footer: 'Exit code: 0, 1 after a difference, 2 for a usage error.\n',
} as const satisfies CommandDescription;

const parsed = parseFlags(COMMAND, process.argv.slice(2));
if (!('values' in parsed)) process.exitCode = endWithUsage('test:faults', parsed);
else {
  const { real, seed, seeds, api, representation, steps, trace, only, percent } = parsed.values;
  const indexes = steps === 'none' ? [] : steps?.split(',').map(Number);
  const succeeded = real
    ? await runTable({ only, seed, percent })
    : await runSimulation({ seeds, seed, steps: indexes, trace, api, representation });
  process.exitCode = succeeded ? 0 : 1;
}

async function runTable(options: {
  readonly only: readonly string[];
  readonly seed: number;
  readonly percent: number;
}): Promise<boolean> {
  const { setStatus, print, end } = openStatusLine('faults');
  try {
    const failed = await runFaultTable({ ...options, setStatus, print });
    print(failed === 0 ? 'all scenarios passed' : `${failed} scenarios failed`);
    return failed === 0;
  } finally {
    end();
  }
}
