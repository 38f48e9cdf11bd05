/** `npm run prometheus`: shows where promtool and Prometheus come from, or obtains them. */
import { parseArgs } from 'node:util';
import { errorMessage } from '../control-plane/errors.ts';
import { PrometheusError, resolvePrometheus } from './resolve.ts';

const HELP = `Usage: npm run prometheus -- --fetch
Provides promtool and Prometheus for the tests of the alerts and of the dashboard, and prints their paths.

  --fetch  unpack the package of the distribution into the cache folder, or build it with Go, if both are missing
  --help   print this text
`;

const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;

async function main(): Promise<number> {
  let values: { fetch: boolean; help: boolean };
  try {
    const off = { type: 'boolean', default: false } as const;
    ({ values } = parseArgs({ options: { fetch: off, help: off } }));
  } catch (error) {
    process.stderr.write(`prometheus: ${errorMessage(error)}\n`);
    return EXIT_USAGE;
  }
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  if (!values.fetch) {
    process.stderr.write('prometheus: pass --fetch; see --help\n');
    return EXIT_USAGE;
  }
  try {
    const { promtool, prometheus, source } = await resolvePrometheus();
    process.stdout.write(`${promtool}  (${source})\n${prometheus}  (${source})\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof PrometheusError)) throw error;
    process.stderr.write(`prometheus: ${error.message}\n`);
    return EXIT_FAILURE;
  }
}

process.exitCode = await main();
