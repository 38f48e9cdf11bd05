#!/usr/bin/env -S MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=131072 node --max-semi-space-size=8 --no-flush-bytecode --liftoff-only --heap-growing-percent=40
// Without the first flag, V8 lets the young generation grow to 128 MiB while much is alive, as in a full push, and keeps
// it; without the second one, it compiles code again that was not used for a while (docs/decisions/0017-v8-flags.md).
// Without the third one, it optimizes the HTTP parser of undici, through which requests to a proxy are sent, and the
// memory that this needs is never returned.
// Without the fourth one, V8 collects everything several times per minute while few tunnels change, and lets the heap grow
// to four times what is alive in a burst (docs/decisions/0008-heap-at-rest.md).
// Without the variables, glibc keeps more of what was freed (docs/decisions/0019-native-memory.md).
// Everything else is imported after the check: an older Node cannot load it, and fails with a stack trace.
import { checkNodeVersion } from './node-version.ts';

async function main(): Promise<void> {
  if (!checkNodeVersion('reverse-tunnel-operator')) return;
  const { runOperatorCommand } = await import('./operator-command.ts');
  process.exitCode = await runOperatorCommand(process.argv.slice(2));
}

void main();
