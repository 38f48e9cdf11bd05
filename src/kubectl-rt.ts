#!/usr/bin/env node
// kubectl runs a program of this name for `kubectl rt ...`: the hand tools, and nothing that serves.
import { HAND_TOOLS, handTool } from './hand-tool.ts';

const WRONG_USE = 2;
const [name, ...rest] = process.argv.slice(2);
const tool = handTool(name);
if (tool === undefined) {
  process.stderr.write(
    `kubectl rt: ${name === undefined ? 'missing subcommand' : `unknown subcommand "${name}"`}; must be one of ${HAND_TOOLS.join(', ')}\n`,
  );
  process.exitCode = WRONG_USE;
} else process.exitCode = await tool(rest);
