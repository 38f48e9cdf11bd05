/** Writes the table of a comparison into the documentation. */
import { readFile, writeFile } from 'node:fs/promises';
import { format, resolveConfig } from 'prettier';
import {
  compareResults,
  foreignCpuSeconds,
  markdownTable,
  type Comparison,
  type DriverResult,
} from './counterpart-table.ts';
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
  /** What the driver reported. */
  readonly results: readonly DriverResult[];
}

const BEGIN = '<!-- comparison: written by `npm run bench -- --publish FILE` -->';
const END = '<!-- end of the comparison -->';

/**
 * Formats comparisons for a page as one table over all their runs, with how they were measured.
 *
 * @param files at least one
 * @throws Error in one line if they were not measured in the same size on the same kind of machine
 */
export function comparisonSection(files: readonly ComparisonFile[]): string {
  const [first, ...others] = files;
  if (first === undefined) throw new Error('there is no comparison');
  const { machine: host, quick } = first;
  for (const other of others) {
    if (other.quick !== quick)
      throw new Error(`${other.commit}: measured in another size than ${first.commit}`);
    if (JSON.stringify(other.machine) !== JSON.stringify(host))
      throw new Error(`${other.commit}: measured on another machine than ${first.commit}`);
  }
  const results = files.flatMap((file) => file.results);
  const comparisons = compareResults(results);
  // Not the planned numbers: a run may have been interrupted, and each file may contain other scenarios.
  const counts = comparisons.map(({ operator }) => operator.length);
  const [least, most] = counts.length === 0 ? [0, 0] : [Math.min(...counts), Math.max(...counts)];
  const runs = least === most ? `${most} run(s)` : `${least} to ${most} runs`;
  const origins = [...new Set(files.map(({ commit, date }) => `${commit} (${date.slice(0, 10)})`))];
  const size = quick ? ', **a tenth of the size**' : '';
  return `Commit ${origins.join(', ')}; ${runs}${size}: median, and minimum … maximum.
${host.cores} cores (${host.processor}), ${host.memoryGiB} GiB, Node ${host.node}; other processes used at most
${foreignCpuSeconds(results).toFixed(1)} s of CPU during one measurement.

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

/** Writes the table of the comparisons in `resultFiles` into the page. */
export async function publishComparison(resultFiles: readonly string[], pageFile: string): Promise<void> {
  const files = await Promise.all(
    resultFiles.map(async (name) => JSON.parse(await readFile(name, 'utf8')) as ComparisonFile),
  );
  const page = await readFile(pageFile, 'utf8');
  const replaced = replaceSection(page, comparisonSection(files));
  const config = await resolveConfig(pageFile);
  await writeFile(pageFile, await format(replaced, { ...config, filepath: pageFile }));
}
