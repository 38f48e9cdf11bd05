/** `npm run api`: writes the Go types, the TypeScript types and the JSON Schemas from `crds/`. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { generatedApiFiles } from './generated.ts';

for (const [path, text] of generatedApiFiles()) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}
