/** Builds `dist`: the programs, and the code that V8 has compiled when they start. */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { endWithUsage, parseFlags, type CommandDescription } from '../src/flags.ts';
import { bundle, PROGRAMS } from './bundle.ts';
import { readShebang } from './shebang.ts';

const OUTPUT = join(import.meta.dirname, '..', 'dist');

const COMMAND = {
  usage: ['npm run build [-- FLAG ...]'],
  description: 'Builds dist.',
  flags: { 'without-cache': { description: 'omit the code that V8 has compiled, for another machine' } },
  footer: 'Exit code: 0, 1 on a failure, 2 for a usage error.\n',
} as const satisfies CommandDescription;

const parsed = parseFlags(COMMAND, process.argv.slice(2));
process.exitCode =
  'values' in parsed ? await build(!parsed.values['without-cache']) : endWithUsage('build', parsed);

async function build(withCache: boolean): Promise<number> {
  await bundle(PROGRAMS, OUTPUT);
  if (!withCache) return 0;
  // V8 accepts compiled code only under the flags that it was compiled with.
  const { nodeFlags } = readShebang(join(OUTPUT, 'main.js'));
  const { status } = spawnSync(process.execPath, [...nodeFlags, join(OUTPUT, 'warm-up.js')], {
    stdio: 'inherit',
  });
  // It is not a part of the package.
  for (const name of ['warm-up.js', 'warm-up.js.map']) rmSync(join(OUTPUT, name));
  return status ?? 1;
}
