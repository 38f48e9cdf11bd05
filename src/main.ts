#!/usr/bin/env -S node --max-semi-space-size=16
// The flag: V8 lets the young generation grow to 128 MiB where much is alive for a moment, as in a full push, and keeps it.
import { readFileSync } from 'node:fs';
import { systemClock } from './clock.ts';
import { watchFile } from './file-watcher.ts';
import { parseCommandLine, readConfig, type CommandLine, type Config } from './config.ts';
import { EXIT_FAILURE, EXIT_OK, EXIT_USAGE, formatUsageErrors } from './flags.ts';
import { findSubcommand } from './subcommands.ts';
import { createLog } from './log.ts';
import { StartError, startOperator, type RunningOperator } from './operator.ts';

process.exitCode = await main(process.argv.slice(2));

/** Hand tools and simulate are loaded only when they are asked for: the operator's memory holds none of them. */
async function main(argv: readonly string[]): Promise<number> {
  const subcommand = findSubcommand(argv[0]);
  if (subcommand !== undefined) return await subcommand(argv.slice(1));
  if (argv[0] === 'simulate') {
    const { runSimulate } = await import('./simulate/main.ts');
    return await runSimulate(argv.slice(1));
  }
  if (argv[0] === 'selftest') {
    const { runSelftest } = await import('./selftest/main.ts');
    return await runSelftest(argv.slice(1), packageVersion());
  }
  const parsed = parseCommandLine(argv);
  if ('errors' in parsed) return usageError(parsed.errors);
  if ('help' in parsed) {
    process.stdout.write(parsed.help);
    return EXIT_OK;
  }
  const { version, configFile, flags } = parsed.commandLine;
  if (version) {
    process.stdout.write(`${packageVersion()}\n`);
    return EXIT_OK;
  }
  let fileText: string | undefined;
  try {
    fileText = configFile === undefined ? undefined : readFileSync(configFile, 'utf8');
  } catch (error) {
    return usageError([`--config: cannot read file: ${(error as Error).message}`]);
  }
  const result = readConfig(flags, fileText);
  if ('errors' in result) return usageError(result.errors);
  const file =
    configFile === undefined || fileText === undefined ? undefined : { path: configFile, text: fileText };
  return await serve(result.config, flags, file);
}

/** Serves until it is asked to stop; the exit code then, or why it could not start. */
async function serve(
  config: Config,
  flags: CommandLine['flags'],
  file: { readonly path: string; readonly text: string } | undefined,
): Promise<number> {
  const stopRequested = waitForSignal();
  const log = createLog(config.logLevel);
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
    process.stderr.write(`reverse-tunnel-operator: ${error.message}\n`);
    return EXIT_FAILURE;
  }
  const stopWatching =
    file === undefined
      ? undefined
      : watchFile(file.path, file.text, systemClock, (text) => {
          const result = readConfig(flags, text);
          if ('config' in result) operator.reconfigure(result.config);
          // It goes on by what it has: a slip in an edit is not to end what serves.
          else
            log.error(
              { file: file.path, errors: result.errors },
              'failed to reload configuration; keeping the previous one',
            );
        });
  await stopRequested;
  stopWatching?.();
  await operator.stop();
  return EXIT_OK;
}

/** Resolves at the first SIGTERM or SIGINT; the second of either ends the process at once. */
function waitForSignal(): Promise<void> {
  return new Promise((resolve) => {
    let asked = false;
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        if (asked) process.exit(EXIT_FAILURE);
        asked = true;
        resolve();
      });
    }
  });
}

function usageError(errors: readonly string[]): number {
  process.stderr.write(formatUsageErrors('reverse-tunnel-operator', errors));
  return EXIT_USAGE;
}

/** `package.json` stands beside `src` and beside `dist` alike. */
function packageVersion(): string {
  const file = new URL('../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
