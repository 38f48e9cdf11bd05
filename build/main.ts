/** Builds `dist`: the programs, and the code that V8 has compiled when they start. */
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { bundle } from './bundle.ts';

const OUTPUT = join(import.meta.dirname, '..', 'dist');

await bundle(OUTPUT);
if (!process.argv.includes('--without-cache')) {
  // V8 accepts compiled code only under the flags that it was compiled with.
  const [shebang = ''] = readFileSync(join(OUTPUT, 'main.js'), 'utf8').split('\n', 1);
  const flags = shebang.split(' ').filter((word) => word.startsWith('--'));
  const { status } = spawnSync(process.execPath, [...flags, join(OUTPUT, 'warm-up.js')], {
    stdio: 'inherit',
  });
  process.exitCode = status ?? 1;
  // It is not a part of the package.
  for (const name of ['warm-up.js', 'warm-up.js.map']) rmSync(join(OUTPUT, name));
}
