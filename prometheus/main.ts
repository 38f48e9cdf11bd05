/** `npm run prometheus`: shows where promtool and Prometheus come from, or obtains them. */
import { runFetchCommand } from '../control-plane/fetch-command.ts';
import { PrometheusError, resolvePrometheus } from './resolve.ts';

const HELP = `Usage: npm run prometheus -- --fetch
Provides promtool and Prometheus for the tests of the alerts and of the dashboard, and prints their paths.

  --fetch  unpack the package of the distribution into the cache folder, or build it with Go, if both are missing
  --help   print this text
`;

process.exitCode = await runFetchCommand({
  name: 'prometheus',
  help: HELP,
  expectedError: PrometheusError,
  async fetch() {
    const { promtool, prometheus, source } = await resolvePrometheus();
    return [promtool, prometheus].map((path) => `${path}  (${source})`);
  },
});
