/** `npm run embedded-api-server`: runs the embedded API server until Ctrl-C. */
import { parseArgs } from 'node:util';
import { EMBEDDED_DESCRIPTION, startEmbeddedApiServer } from './start.ts';

const HELP = `Usage: npm run embedded-api-server
Runs an API server in memory until Ctrl-C, and prints its KUBECONFIG.
`;
const EXIT_USAGE = 2;

process.exitCode = await main();

async function main(): Promise<number> {
  let help: boolean;
  try {
    ({ help } = parseArgs({ options: { help: { type: 'boolean', default: false } } }).values);
  } catch (error) {
    process.stderr.write(`embedded-api-server: ${(error as Error).message.split('. ')[0]}; see --help\n`);
    return EXIT_USAGE;
  }
  if (help) process.stdout.write(HELP);
  else await serve();
  return 0;
}

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
