/** `npm run soak`: a random fault every half minute, for a given time. */
import { randomInt } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { nonEmpty, numberInRange } from '../../../src/flag-values.ts';
import { endWithUsage, parseFlags, type CommandDescription } from '../../../src/flags.ts';
import { isWithinBounds } from './scenario.ts';
import { formatReport, soak } from './soak.ts';
import { openStatusLine } from './status-line.ts';

const COMMAND = {
  usage: ['npm run soak -- [FLAG ...]'],
  description:
    'Runs three replicas with 1,500 objects and a real control plane on this machine, with a fault every 30 s.',
  flags: {
    minutes: {
      metavar: 'N',
      description: 'duration, 1 to 1440',
      default: '20',
      read: numberInRange(1, 1440),
    },
    seed: {
      metavar: 'N',
      description: 'determines the faults and the changes of tunnels',
      defaultText: 'random',
      read: numberInRange(0, 2 ** 32 - 1),
    },
    json: {
      metavar: 'FILE',
      description: 'also write the report with the metrics of every fault to this file',
      read: nonEmpty,
    },
  },
  footer: 'Exit code: 0, 1 when a metric was out of bounds, 2 for a usage error.\n',
} as const satisfies CommandDescription;

const parsed = parseFlags(COMMAND, process.argv.slice(2));
process.exitCode = 'values' in parsed ? await run(parsed.values) : endWithUsage('soak', parsed);

async function run({
  minutes,
  seed = randomInt(2 ** 32),
  json,
}: {
  readonly minutes: number;
  readonly seed: number | undefined;
  readonly json: string | undefined;
}): Promise<number> {
  const { setStatus, print, end } = openStatusLine('soak');
  try {
    print(`seed ${seed}`);
    const report = await soak({ minutes, seed, setStatus, print });
    print(formatReport(report));
    if (json !== undefined) writeFileSync(json, `${JSON.stringify(report, null, 2)}\n`);
    return report.metrics.every(isWithinBounds) ? 0 : 1;
  } finally {
    end();
  }
}
