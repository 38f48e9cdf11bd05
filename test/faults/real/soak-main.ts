/** `npm run soak`: a random fault every half minute, for a given time. */
import { randomInt } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { isWithinBounds } from './scenario.ts';
import { openStatusLine } from './status-line.ts';
import { formatReport, soak } from './soak.ts';

const HELP = `Usage: npm run soak -- [flags]

  --minutes N   duration, 1 to 1440 (default 20)
  --seed N      determines the faults and the changes of tunnels (default: random)
  --json FILE   also write the report with the metrics of every fault to this file
  --help

Runs three replicas with 1,500 objects and a real control plane on this machine, with a fault every 30 s.
Exit code: 0, 1 when a metric was out of bounds, 2 for a usage error.
`;
const EXIT_USAGE = 2;

process.exitCode = await main();

async function main(): Promise<number> {
  const options = parseOptions();
  if (typeof options === 'number') return options;
  const { minutes, seed, json } = options;
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

interface Options {
  readonly minutes: number;
  readonly seed: number;
  readonly json: string | undefined;
}

/** Parses the flags; returns an exit code when there is nothing to run. */
function parseOptions(): Options | number {
  const text = { type: 'string' } as const;
  try {
    const { values } = parseArgs({
      options: { minutes: text, seed: text, json: text, help: { type: 'boolean' } },
    });
    if (values.help === true) {
      process.stdout.write(HELP);
      return 0;
    }
    return {
      minutes: parseWholeNumber('minutes', values.minutes ?? '20', 1, 1440),
      seed: parseWholeNumber('seed', values.seed ?? String(randomInt(2 ** 32)), 0, 2 ** 32 - 1),
      json: values.json,
    };
  } catch (error) {
    process.stderr.write(`soak: ${(error as Error).message}\n${HELP}`);
    return EXIT_USAGE;
  }
}

function parseWholeNumber(name: string, value: string, min: number, max: number): number {
  if (/^\d{1,10}$/.test(value) && Number(value) >= min && Number(value) <= max) return Number(value);
  throw new Error(`--${name} ${value}: must be a whole number from ${min} to ${max}`);
}
