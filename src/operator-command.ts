import { useCompileCache } from './compile-cache.ts';
import { handleOutputErrors } from './output-errors.ts';
import { findSubcommand } from './subcommands.ts';

/**
 * Runs `reverse-tunnel-operator`: a subcommand or the server. Resolves with the exit code.
 *
 * @param argv the arguments after the name of the program
 */
export async function runOperatorCommand(argv: readonly string[]): Promise<number> {
  useCompileCache();
  handleOutputErrors('reverse-tunnel-operator');
  const subcommand = findSubcommand(argv[0]);
  if (subcommand !== undefined) return await subcommand(argv.slice(1));
  // Loaded only when it is used: an agent next to each Envoy must not hold the operator in memory.
  const { runServer } = await import('./server-command.ts');
  return await runServer(argv);
}
