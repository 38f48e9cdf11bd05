/** `npm run control-plane`: a control plane to play with, until Ctrl-C. */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ALL_BINARIES } from './binaries.ts';
import { ControlPlaneError, errorMessage } from './errors.ts';
import { resolveBinaries } from './resolve.ts';
import { startControlPlane } from './start.ts';

const HELP = `Usage: npm run control-plane [-- OPTION...]
Starts etcd and kube-apiserver in a temporary folder, prints a line to put into a shell, and stays until Ctrl-C.

  --controller-manager  also start kube-controller-manager
  --fetch               only download or build all binaries into the cache folder, and print where they are
  --help                this text

KUBEBUILDER_ASSETS names a folder with the binaries; without it they come from the cache folder, from the published
envtest archive (ENVTEST_INDEX_URL names another index), or from a build with Go 1.26 or later.
`;

/** Exit code for a wrong command line, as shells and the operator's own command line have it. */
const EXIT_USAGE = 2;

/** The flags given, or undefined (and a line on stderr) when the command line is wrong. */
function parseFlags(): { fetch: boolean; help: boolean; 'controller-manager': boolean } | undefined {
  try {
    const off = { type: 'boolean', default: false } as const;
    return parseArgs({ options: { fetch: off, help: off, 'controller-manager': off } }).values;
  } catch (error) {
    process.stderr.write(`control-plane: ${errorMessage(error)}\n`);
    return undefined;
  }
}

/** Runs a control plane until a signal or the end of one of its programs; gives the exit code. */
async function serve(controllerManager: boolean): Promise<number> {
  let exitCode = 0;
  const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
  const controlPlane = await startControlPlane({
    controllerManager,
    onUnexpectedExit(error) {
      process.stderr.write(`control-plane: ${error.message}\n`);
      exitCode = 1;
      stop();
    },
  });
  // Until here a signal just ends this process, and all it started goes with it. A second one does so again.
  process.once('SIGINT', () => stop()).once('SIGTERM', () => stop());
  // stdout has this line alone, so that it can be captured.
  process.stdout.write(`export KUBECONFIG=${controlPlane.kubeconfigPath}\n`);
  process.stderr.write(
    `control-plane: ${controlPlane.url} is ready; kubectl is ${join(controlPlane.binaries, 'kubectl')}; ` +
      `Ctrl-C stops and removes everything\n`,
  );
  await stopped;
  await controlPlane.stop();
  return exitCode;
}

/** Gives the exit code; errors that are for the user end in one line, others with their stack. */
async function main(): Promise<number> {
  const flags = parseFlags();
  if (flags === undefined) return EXIT_USAGE;
  if (flags.help) {
    process.stdout.write(HELP);
    return 0;
  }
  try {
    if (!flags.fetch) return await serve(flags['controller-manager']);
    const { folder } = await resolveBinaries(ALL_BINARIES);
    process.stdout.write(`${folder}\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof ControlPlaneError)) throw error;
    process.stderr.write(`control-plane: ${error.message}\n`);
    return 1;
  }
}

process.exitCode = await main();
