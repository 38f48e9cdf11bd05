/** `npm run embedded-api-server`: runs the embedded API server until Ctrl-C. */
import { EMBEDDED_DESCRIPTION, startEmbeddedApiServer } from './start.ts';

process.stderr.write(`${EMBEDDED_DESCRIPTION}; a real one: npm run control-plane\n`);
const server = await startEmbeddedApiServer();
// The only line on stdout, so that it can be captured.
process.stdout.write(`export KUBECONFIG=${server.kubeconfigPath}\n`);
process.stderr.write(`${server.url} is ready; Ctrl-C stops it, and nothing is kept\n`);
await new Promise<void>((resolve) => {
  process.once('SIGINT', () => resolve()).once('SIGTERM', () => resolve());
});
await server.stop();
