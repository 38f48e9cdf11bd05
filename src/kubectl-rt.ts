#!/usr/bin/env node
// kubectl runs a program of this name for `kubectl rt ...`.
// Everything else is imported after the check: an older Node cannot load it, and fails with a stack trace.
import { checkNodeVersion } from './node-version.ts';

async function main(): Promise<void> {
  if (!checkNodeVersion('kubectl rt')) return;
  const { runKubectlCommand } = await import('./kubectl-command.ts');
  process.exitCode = await runKubectlCommand(process.argv.slice(2));
}

void main();
