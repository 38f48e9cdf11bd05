/** Writes the table of a comparison into the documentation. */
import { readFile, writeFile } from 'node:fs/promises';
import { format, resolveConfig } from 'prettier';
import { markdownTable, type Comparison } from './counterpart-table.ts';
import type { machine } from './machine.ts';

/** The file that `npm run bench -- --peer` writes. */
export interface ComparisonFile {
  /** ISO 8601. */
  readonly date: string;
  readonly commit: string;
  readonly machine: ReturnType<typeof machine>;
  readonly quick: boolean;
  readonly runs: number;
  /** At most, during one measurement. */
  readonly foreignCpuSeconds: number;
  readonly comparisons: readonly Comparison[];
}

const BEGIN = '<!-- comparison: written by `npm run bench -- --publish FILE` -->';
const END = '<!-- end of the comparison -->';

/** Formats the comparison for a page, with how it was measured. */
export function comparisonSection(file: ComparisonFile): string {
  const { date, commit, machine: host, quick, runs, foreignCpuSeconds, comparisons } = file;
  const size = quick ? ', **a tenth of the size**' : '';
  return `Commit ${commit}, ${date.slice(0, 10)}, ${runs} run(s)${size}: median, and minimum … maximum.
${host.cores} cores (${host.processor}), ${host.memoryGiB} GiB, Node ${host.node}; other processes used at most
${foreignCpuSeconds.toFixed(1)} s of CPU during one measurement.

${markdownTable(comparisons)}`;
}

/**
 * Returns the page with the section between the two marks replaced.
 *
 * @throws Error if the page does not contain the marks
 */
export function replaceSection(page: string, section: string): string {
  const begin = page.indexOf(BEGIN);
  const end = page.indexOf(END);
  if (begin === -1 || end < begin) throw new Error(`the page does not contain ${BEGIN} and ${END}`);
  return `${page.slice(0, begin)}${BEGIN}\n\n${section}\n\n${page.slice(end)}`;
}

/** Writes the comparison in `resultFile` into the page. */
export async function publishComparison(resultFile: string, pageFile: string): Promise<void> {
  const file = JSON.parse(await readFile(resultFile, 'utf8')) as ComparisonFile;
  const page = await readFile(pageFile, 'utf8');
  const replaced = replaceSection(page, comparisonSection(file));
  const config = await resolveConfig(pageFile);
  await writeFile(pageFile, await format(replaced, { ...config, filepath: pageFile }));
}
