/** `npm run chart`: writes the files of the chart that are generated from other files. */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { endWithUsage, parseFlags, type CommandDescription } from '../src/flags.ts';
import { CHART_CRDS, generatedFiles } from './generated.ts';

const COMMAND = {
  usage: ['npm run chart'],
  description: 'Writes the files of the chart that are generated from other files.',
  flags: {},
  footer: 'Exit code: 0, 1 on a failure, 2 for a usage error.\n',
} as const satisfies CommandDescription;

const parsed = parseFlags(COMMAND, process.argv.slice(2));
if ('values' in parsed) generate();
else process.exitCode = endWithUsage('chart', parsed);

function generate(): void {
  mkdirSync(CHART_CRDS, { recursive: true });
  const files = generatedFiles();
  for (const [path, text] of files) writeFileSync(path, text);
  for (const name of readdirSync(CHART_CRDS)) {
    const path = join(CHART_CRDS, name);
    if (!files.has(path)) rmSync(path);
  }
}
