import { useCompileCache } from './compile-cache.ts';
import { EXIT_OK, EXIT_USAGE } from './flags.ts';
import { handleOutputErrors } from './output-errors.ts';
import { findSubcommand, KUBECTL_SUBCOMMANDS } from './subcommands.ts';
import { packageVersion } from './package-files.ts';

const HELP = `Usage: kubectl rt ${KUBECTL_SUBCOMMANDS.join('|')} [FLAG ...]

Inspects an installation of the reverse tunnel operator. Run kubectl rt COMMAND --help for the flags of a command.
kubectl rt get NAME prints a tunnel by its name. The completion of kubectl completes commands, flags and names.
`;

/**
 * Runs `kubectl rt`, which offers the subcommands that inspect a cluster. Resolves with the exit code.
 *
 * @param argv the arguments after `kubectl rt`
 */
export async function runKubectlCommand([name, ...argv]: readonly string[]): Promise<number> {
  useCompileCache();
  handleOutputErrors('kubectl rt');
  if (name === 'help' || name === '--help' || name === '-h') {
    process.stdout.write(HELP);
    return EXIT_OK;
  }
  if (name === 'version' || name === '--version') {
    process.stdout.write(`${packageVersion()}\n`);
    return EXIT_OK;
  }
  const subcommand =
    name !== undefined && KUBECTL_SUBCOMMANDS.includes(name) ? findSubcommand(name) : undefined;
  if (subcommand !== undefined) return await subcommand(argv);
  const error = name === undefined ? 'missing subcommand' : `unknown subcommand "${name}"`;
  process.stderr.write(`kubectl rt: ${error}; must be one of ${KUBECTL_SUBCOMMANDS.join(', ')}\n`);
  return EXIT_USAGE;
}
