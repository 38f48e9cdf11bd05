/** `npm run control-plane`: runs a control plane until Ctrl-C. */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ALL_BINARIES } from './binaries.ts';
import { ControlPlaneError, errorMessage } from './errors.ts';
import { resolveBinaries } from './resolve.ts';
import { startControlPlane } from './start.ts';

const HELP = `Usage: npm run control-plane [-- OPTION...]
Starts etcd and kube-apiserver in a temporary folder, prints an export command for the shell, and runs until Ctrl-C.

  --controller-manager  also start kube-controller-manager
  --fetch               only download or build all binaries, and print their folder
  --help                print this text

Binaries are taken from the folder KUBEBUILDER_ASSETS if it is set. Otherwise they come from the cache folder, from the
published envtest archive (ENVTEST_INDEX_URL sets the URL of its index), or from a build with Go 1.26 or later.
`;

/** Exit code for a usage error, as in shells and in the operator's command line. */
const EXIT_USAGE = 2;

/** Returns the flags, or undefined after reporting a usage error on stderr. */
function parseFlags(): { fetch: boolean; help: boolean; 'controller-manager': boolean } | undefined {
  try {
    const off = { type: 'boolean', default: false } as const;
    return parseArgs({ options: { fetch: off, help: off, 'controller-manager': off } }).values;
  } catch (error) {
    process.stderr.write(`control-plane: ${errorMessage(error)}\n`);
    return undefined;
  }
}

/** Runs a control plane until a signal arrives or one of its programs exits. Returns the exit code. */
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
  // Before this line, a signal ends this process and with it all of its children. A second signal does so too.
  process.once('SIGINT', () => stop()).once('SIGTERM', () => stop());
  // The only line on stdout, so that it can be captured.
  process.stdout.write(`export KUBECONFIG=${controlPlane.kubeconfigPath}\n`);
  process.stderr.write(
    `control-plane: ${controlPlane.url} is ready; kubectl is ${join(controlPlane.binaries, 'kubectl')}; ` +
      `Ctrl-C stops and removes everything\n`,
  );
  await stopped;
  await controlPlane.stop();
  return exitCode;
}

/** Returns the exit code. A ControlPlaneError is reported in one line, any other error with its stack. */
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
