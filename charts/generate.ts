/** `npm run chart`: writes the files of the chart that are generated from other files. */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CHART_CRDS, generatedFiles } from './generated.ts';

mkdirSync(CHART_CRDS, { recursive: true });
const files = generatedFiles();
for (const [path, text] of files) writeFileSync(path, text);
for (const name of readdirSync(CHART_CRDS)) {
  const path = join(CHART_CRDS, name);
  if (!files.has(path)) rmSync(path);
}
