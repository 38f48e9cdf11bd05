/** `npm run cluster`: a real Kubernetes with one node, for tests that need pods. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { ControlPlaneError } from '../control-plane/errors.ts';
import { createProgress } from '../control-plane/progress.ts';
import { ClusterError } from './errors.ts';
import { EXIT_FAILURE, EXIT_USAGE, exitOnSignals, signalExitCode } from './exit.ts';
import { createImageBuilder, OPERATOR_IMAGE } from './image-builder.ts';
import { commandIn, findNode, loadImage, nodeFolder, type RunningNode, startNode, stopNode } from './node.ts';
import type { ProgramOptions } from './programs.ts';

const HELP = `Usage: npm run cluster -- COMMAND
Runs a real Kubernetes with one node in Linux namespaces of its own. It needs Linux, root, apt and Go 1.26 or later.

  up                    start the node; returns once it is Ready. The first time, programs are built and downloaded
  load-image [FILE]     make an image available to pods: an OCI or Docker archive, or by default the operator of this
                        checkout, built with its Dockerfile on stand-ins for the base images, as
                        ${OPERATOR_IMAGE}:dev
  exec [--node] CMD...  run a command in the network of the node, with kubectl and helm on the PATH and KUBECONFIG set;
                        with --node, in all of its namespaces, with its files
  down                  end the node and remove everything that it has used
  --help                print this text

Debian's packages come from the archives that apt is configured with, or from DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR
(default: http://deb.debian.org/debian and http://deb.debian.org/debian-security).

The node has no access to other networks: load images, and use the pull policy Never or IfNotPresent. Programs are kept
in the cache folder; its logs are in the folder that \`up\` prints.
`;

async function main(args: readonly string[]): Promise<number> {
  const [command, ...rest] = args;
  if (command === '--help') {
    process.stdout.write(HELP);
    return 0;
  }
  const usage = (message: string): number => {
    process.stderr.write(`cluster: ${message}; see --help\n`);
    return EXIT_USAGE;
  };
  const env = process.env;
  const progress = createProgress(process.stderr, undefined, 'cluster');
  switch (command) {
    case undefined:
      return usage('no command');
    case 'up': {
      if (rest.length > 0) return usage(`unexpected argument ${rest[0]}`);
      await up({ env, progress });
      return 0;
    }
    case 'down': {
      if (rest.length > 0) return usage(`unexpected argument ${rest[0]}`);
      progress.log((await stopNode(env)) ? 'the node has ended' : 'no node is running');
      return 0;
    }
    case 'load-image': {
      const [file, ...more] = rest;
      if (more.length > 0) return usage(`unexpected argument ${more[0]}`);
      if (file !== undefined && !existsSync(file))
        throw new ClusterError(`cannot load ${file}: no such file`);
      const node = await requireNode();
      const archive = file ?? (await (await createImageBuilder({ env, progress })).buildOperator('dev'));
      await loadImage(node, archive);
      progress.log(`loaded ${file ?? `${OPERATOR_IMAGE}:dev`}`);
      return 0;
    }
    case 'exec': {
      const inside = rest[0] === '--node';
      const words = inside ? rest.slice(1) : rest;
      const commandWords = words[0] === '--' ? words.slice(1) : words;
      if (commandWords.length === 0) return usage('no command to execute');
      return await execute(await requireNode(), commandWords, inside);
    }
    default:
      return usage(`unknown command ${command}`);
  }
}

/** Starts the node; a signal meanwhile ends it, but never one that runs already. */
async function up(options: ProgramOptions): Promise<void> {
  const node = await startNode(options, () => exitOnSignals(() => stopNode(options.env)));
  process.stdout.write(`export KUBECONFIG=${node.kubeconfig}\n`);
  options.progress.log(
    `logs are in ${node.logs}; try \`npm run cluster -- exec kubectl get pods -A\`; \`npm run cluster -- down\` ends it`,
  );
}

async function requireNode(): Promise<RunningNode> {
  const node = await findNode(process.env);
  if (node !== undefined) return node;
  throw new ClusterError(
    `no node is running (${nodeFolder(process.env)}); start it with \`npm run cluster -- up\``,
  );
}

/** Runs a command with this terminal; resolves with its exit code. */
async function execute(node: RunningNode, words: readonly string[], inside: boolean): Promise<number> {
  const { command, args, env } = commandIn(node, words, inside);
  const child = spawn(command, args, { stdio: 'inherit', env });
  // The terminal sends Ctrl-C to both; the command decides what it means.
  process.on('SIGINT', () => {}).on('SIGTERM', () => child.kill('SIGTERM'));
  await once(child, 'close');
  return child.exitCode ?? signalExitCode(child.signalCode ?? 'SIGKILL');
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof ClusterError) && !(error instanceof ControlPlaneError)) throw error;
  process.stderr.write(`cluster: ${error.message}\n`);
  process.exitCode = EXIT_FAILURE;
}
