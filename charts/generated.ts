/** What of the chart is made from other files: its CRDs from `crds/`, the list of values in its README from values.yaml. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { chartValues } from './chart-values.ts';

const CHART = join(import.meta.dirname, 'reverse-tunnel-operator');
const CRDS = join(import.meta.dirname, '..', 'crds');
const BEGIN = '<!-- values: made by `npm run chart` -->';
const END = '<!-- values: end -->';

/** Folder of the chart's CRDs; what is there and not in `generatedFiles` does not belong there. */
export const CHART_CRDS = join(CHART, 'files', 'crds');

/** Path and text of every file that is made. @throws Error when a value has no explanation, or the README no place for the list */
export function generatedFiles(): Map<string, string> {
  const files = new Map<string, string>();
  for (const name of readdirSync(CRDS))
    files.set(join(CHART_CRDS, name), readFileSync(join(CRDS, name), 'utf8'));
  const readme = join(CHART, 'README.md');
  files.set(
    readme,
    withValues(readFileSync(readme, 'utf8'), readFileSync(join(CHART, 'values.yaml'), 'utf8')),
  );
  return files;
}

function withValues(readme: string, values: string): string {
  const [begin, end] = [readme.indexOf(BEGIN), readme.indexOf(END)];
  if (begin < 0 || end < begin)
    throw new Error(`the chart's README.md has no place for the values: ${BEGIN}`);
  const rows = chartValues(values, parse(values)).map(
    ({ path, defaultValue, description }) => `| \`${path}\` | ${inlineCode(defaultValue)} | ${description} |`,
  );
  const table = ['| value | default | what |', '| --- | --- | --- |', ...rows].join('\n');
  return `${readme.slice(0, begin + BEGIN.length)}\n\n${table}\n\n${readme.slice(end)}`;
}

function inlineCode(value: unknown): string {
  return value === '' ? '' : `\`${JSON.stringify(value)}\``;
}
