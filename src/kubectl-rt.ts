#!/usr/bin/env node
// kubectl runs a program of this name for `kubectl rt ...`. It offers the subcommands that inspect a cluster.
import { EXIT_USAGE } from './flags.ts';
import { findSubcommand, KUBECTL_SUBCOMMANDS } from './subcommands.ts';

const [name, ...argv] = process.argv.slice(2);
const subcommand =
  name !== undefined && KUBECTL_SUBCOMMANDS.includes(name) ? findSubcommand(name) : undefined;
if (subcommand === undefined) {
  process.stderr.write(
    `kubectl rt: ${name === undefined ? 'missing subcommand' : `unknown subcommand "${name}"`}; must be one of ${KUBECTL_SUBCOMMANDS.join(', ')}\n`,
  );
  process.exitCode = EXIT_USAGE;
} else process.exitCode = await subcommand(argv);
