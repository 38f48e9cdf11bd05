#!/usr/bin/env node
// kubectl runs a program with the name kubectl_complete-rt to complete `kubectl rt ...` in a shell.
// Everything else is imported after the check: an older Node cannot load it, and fails with a stack trace.
import { checkNodeVersion } from './node-version.ts';

async function main(): Promise<void> {
  if (!checkNodeVersion('kubectl rt')) return;
  const { runCompletion } = await import('./completion.ts');
  await runCompletion(process.argv.slice(2));
}

void main();
