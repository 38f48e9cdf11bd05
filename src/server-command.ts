import { readFileSync } from 'node:fs';
import { systemClock } from './clock.ts';
import { parseCommandLine, readConfig, type CommandLine, type Config } from './config.ts';
import { watchFiles } from './file-watcher.ts';
import { endWithUsage, EXIT_FAILURE, EXIT_OK } from './flags.ts';
import { createLog } from './log.ts';
import { StartError, startOperator, type RunningOperator } from './operator.ts';
import { packageVersion } from './package-files.ts';
import { waitForSignal } from './wait-for-signal.ts';

const COMMAND = 'reverse-tunnel-operator';

/**
 * Runs the operator until SIGTERM or SIGINT. Resolves with the exit code.
 *
 * @param argv the arguments, which do not begin with a subcommand
 */
export async function runServer(argv: readonly string[]): Promise<number> {
  const parsed = parseCommandLine(argv);
  if (!('commandLine' in parsed)) return endWithUsage(COMMAND, parsed);
  const { version, configFile, flags } = parsed.commandLine;
  if (version) {
    process.stdout.write(`${packageVersion()}\n`);
    return EXIT_OK;
  }
  let fileText: string | undefined;
  try {
    fileText = configFile === undefined ? undefined : readFileSync(configFile, 'utf8');
  } catch (error) {
    return endWithUsage(COMMAND, { errors: [`--config: cannot read file: ${(error as Error).message}`] });
  }
  const result = readConfig(flags, fileText);
  if ('errors' in result) return endWithUsage(COMMAND, result);
  const file =
    configFile === undefined || fileText === undefined ? undefined : { path: configFile, text: fileText };
  return await serve(result.config, flags, file);
}

/** Serves until a signal requests a stop; resolves with the exit code. */
async function serve(
  config: Config,
  flags: CommandLine['flags'],
  file: { readonly path: string; readonly text: string } | undefined,
): Promise<number> {
  const stopRequested = waitForSignal();
  const log = createLog(config.logLevel, COMMAND);
  let operator: RunningOperator;
  try {
    operator = await startOperator(config, {
      version: packageVersion(),
      env: process.env,
      clock: systemClock,
      random: Math.random,
      log,
    });
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    process.stderr.write(`${COMMAND}: ${error.message}\n`);
    return EXIT_FAILURE;
  }
  const stopWatching =
    file === undefined
      ? undefined
      : watchFiles(
          { config: file.path },
          { config: file.text },
          {
            clock: systemClock,
            log,
            onChange(contents) {
              const result = readConfig(flags, contents.config);
              if ('config' in result) operator.reconfigure(result.config);
              // An error in an edited file must not stop a running server.
              else
                log.error(
                  { file: file.path, errors: result.errors },
                  'failed to reload configuration; keeping the previous one',
                );
            },
          },
        );
  await stopRequested;
  stopWatching?.();
  // Something that could not be closed would keep the process running.
  if (!(await operator.stop())) process.exit(EXIT_OK);
  return EXIT_OK;
}
