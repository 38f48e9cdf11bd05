import { loadBundle } from './code-cache.ts';
import { compileCacheFolder, useCompileCache } from './compile-cache.ts';
import { handleOutputErrors } from './output-errors.ts';
import { packageFile } from './package-files.ts';
import type * as Server from './server-command.ts';
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
  const { runServer } = await importServer();
  return await runServer(argv);
}

/** Loads the server only when it is used: an agent next to each Envoy must not hold the operator in memory. */
async function importServer(): Promise<typeof Server> {
  // Source maps apply only to modules that Node itself has loaded.
  const isBundle = import.meta.url.endsWith('.js') && !process.sourceMapsEnabled;
  if (!isBundle) return await import('./server-command.ts');
  return loadBundle(packageFile('dist/server-command.js'), compileCacheFolder()).exports as typeof Server;
}
