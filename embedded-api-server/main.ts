/** `npm run embedded-api-server`: runs the embedded API server until Ctrl-C. */
import { endWithUsage, parseFlags, type CommandDescription } from '../src/flags.ts';
import { EMBEDDED_DESCRIPTION, startEmbeddedApiServer } from './start.ts';

const COMMAND = {
  usage: ['npm run embedded-api-server'],
  description: 'Runs an API server in memory until Ctrl-C, and prints its KUBECONFIG.',
  flags: {},
  footer: 'Exit code: 0, 1 on a failure, 2 for a usage error.\n',
} as const satisfies CommandDescription;

const parsed = parseFlags(COMMAND, process.argv.slice(2));
if ('values' in parsed) await serve();
else process.exitCode = endWithUsage('embedded-api-server', parsed);

async function serve(): Promise<void> {
  process.stderr.write(`${EMBEDDED_DESCRIPTION}; a real one: npm run control-plane\n`);
  const server = await startEmbeddedApiServer();
  // The only line on stdout, so that it can be captured.
  process.stdout.write(`export KUBECONFIG=${server.kubeconfigPath}\n`);
  process.stderr.write(`${server.url} is ready; Ctrl-C stops it, and nothing is kept\n`);
  await new Promise<void>((resolve) => {
    process.once('SIGINT', () => resolve()).once('SIGTERM', () => resolve());
  });
  await server.stop();
}
