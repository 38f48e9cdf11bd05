/**
 * `npm run bench`: the operator against the bare limit of the API server beside it. docs/benchmark.md has what each
 * figure means and how it is taken.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { summarizeRuns, formatTable } from './metric.ts';
import { commit, machine } from './machine.ts';
import { MEASUREMENT_NAMES, runAll } from './measurements.ts';
import { helpText, parseOptions, type Options } from './options.ts';
import { profileInitialSync } from './profile.ts';
import { createProgress } from './progress.ts';
import { FULL, QUICK } from './scenario.ts';

const RESULTS = new URL('./results/', import.meta.url).pathname;

process.exitCode = await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<number> {
  const parsed = parseOptions(args);
  if ('help' in parsed) {
    process.stdout.write(helpText());
    return 0;
  }
  if ('problem' in parsed) {
    process.stderr.write(`bench: ${parsed.problem}\nbench: see --help for all flags\n`);
    return 2;
  }
  if (process.platform !== 'linux') {
    process.stderr.write('bench: needs Linux: it reads CPU time and memory of processes from /proc\n');
    return 1;
  }
  // No handler for Ctrl-C: the operator, etcd and kube-apiserver go with this process however it ends, and so do their folders.
  try {
    return parsed.options.profile ? await profile(parsed.options) : await measure(parsed.options);
  } catch (error) {
    process.stderr.write(`bench: ${(error as Error).message}\n`);
    return 1;
  }
}

async function measure(options: Options): Promise<number> {
  const progress = createProgress(process.stderr);
  const metadata = { date: new Date().toISOString(), commit: commit(), machine: machine() };
  const file = options.json ?? defaultResultFile(options, metadata);
  // Now and not after ten minutes: where it cannot be made nothing needs to be measured.
  if (file !== undefined) await mkdir(dirname(file), { recursive: true });
  const runResults = await runAll(options, options.quick ? QUICK : FULL, progress);
  progress.end();
  const results = summarizeRuns(runResults.metrics);
  const { cores, processor, memoryGiB, node } = metadata.machine;
  const [before, ...after] = runResults.load;
  process.stdout.write(`${formatTable(results, !options.quick)}

${options.runs} run(s) of commit ${metadata.commit}${options.quick ? ', a tenth of the size: not to be held against the targets' : ''}
${cores} cores (${processor}), ${memoryGiB} GiB, Node ${node}
load before ${before}, after each run ${after.join(', ')}
${runResults.failures.map((failure) => `FAILED ${failure}\n`).join('')}`);
  if (file !== undefined) {
    const { quick, runs } = options;
    const { load, failures } = runResults;
    const json = { ...metadata, quick, runs, load, failures, figures: results };
    await writeFile(file, `${JSON.stringify(json, undefined, 2)}\n`);
    process.stdout.write(`written to ${file}\n`);
  }
  return runResults.failures.length === 0 ? 0 : 1;
}

/** Only a whole run in full size is a result to be kept. */
function defaultResultFile(
  { quick, selected }: Options,
  metadata: { readonly date: string; readonly commit: string },
): string | undefined {
  if (quick || selected.size < MEASUREMENT_NAMES.length) return undefined;
  return `${RESULTS}${metadata.date.slice(0, 10)}-${metadata.commit}.json`;
}

async function profile({ quick }: Options): Promise<number> {
  const progress = createProgress(process.stderr);
  const file = `${RESULTS}${new Date().toISOString().slice(0, 10)}-${commit()}.cpuprofile`;
  await mkdir(RESULTS, { recursive: true });
  const text = await profileInitialSync(file, {
    scale: quick ? QUICK : FULL,
    progress: (doing) => progress.update(doing),
  });
  progress.end();
  process.stdout.write(`${text}\nwritten to ${file}\n`);
  return 0;
}
