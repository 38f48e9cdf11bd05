/** `npm run api`: writes the Go types, the TypeScript types and the JSON Schemas from `crds/`. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { endWithUsage, parseFlags, type CommandDescription } from '../src/flags.ts';
import { generatedApiFiles } from './generated.ts';

const COMMAND = {
  usage: ['npm run api'],
  description: 'Writes the Go types, the TypeScript types and the JSON Schemas from crds/.',
  flags: {},
  footer: 'Exit code: 0, 1 on a failure, 2 for a usage error.\n',
} as const satisfies CommandDescription;

const parsed = parseFlags(COMMAND, process.argv.slice(2));
if ('values' in parsed) generate();
else process.exitCode = endWithUsage('api', parsed);

function generate(): void {
  for (const [path, text] of generatedApiFiles()) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
}
