#!/usr/bin/env node
// kubectl runs a program of this name for `kubectl rt ...`: the hand tools, and nothing that serves.
import { SUBCOMMANDS, findSubcommand } from './subcommands.ts';

const EXIT_USAGE = 2;
const [name, ...rest] = process.argv.slice(2);
const subcommand = findSubcommand(name);
if (subcommand === undefined) {
  process.stderr.write(
    `kubectl rt: ${name === undefined ? 'missing subcommand' : `unknown subcommand "${name}"`}; must be one of ${SUBCOMMANDS.join(', ')}\n`,
  );
  process.exitCode = EXIT_USAGE;
} else process.exitCode = await subcommand(rest);
