/**
 * `npm run bench`: measures the operator, and compares it to a baseline loop that sends the same requests directly.
 * docs/benchmark.md describes each metric.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DRIVER_SCENARIOS, measureCounterpart, type CounterpartResults } from './counterpart.ts';
import {
  compareResults,
  foreignCpuSeconds,
  formatComparisons,
  type DriverResult,
} from './counterpart-table.ts';
import { summarizeRuns, formatTable } from './metric.ts';
import { commit, load, machine } from './machine.ts';
import { measureMemoryCurve } from './memory-curve.ts';
import { MEASUREMENT_NAMES, runAll } from './measurements.ts';
import { helpText, parseOptions, type Options } from './options.ts';
import { profileInitialSync } from './profile.ts';
import { createProgress } from './progress.ts';
import { publishComparison, type ComparisonFile } from './publish.ts';
import { FULL, QUICK } from './scenario.ts';
import { measureSlices, SLICE_TUNNELS } from './slices.ts';

/** Shown by docs/benchmark.md. */
const MEMORY_CURVE = new URL('../docs/memory-curve.svg', import.meta.url).pathname;
/** Contains the table of the comparison. */
const BENCHMARK_PAGE = new URL('../docs/benchmark.md', import.meta.url).pathname;
const RESULTS = new URL('./results/', import.meta.url).pathname;

process.exitCode = await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<number> {
  const parsed = parseOptions(args);
  if ('help' in parsed) {
    process.stdout.write(helpText());
    return 0;
  }
  if ('error' in parsed) {
    process.stderr.write(`bench: ${parsed.error}\nbench: see --help for all flags\n`);
    return 2;
  }
  if (process.platform !== 'linux') {
    process.stderr.write(
      `bench: unsupported platform ${process.platform}: CPU time and memory are read from /proc of Linux\n`,
    );
    return 1;
  }
  // No handler for Ctrl-C: the operator, etcd, kube-apiserver and their folders are removed when this process ends.
  try {
    const { options } = parsed;
    if (options.publish.length > 0) return await publish(options.publish);
    if (options.counterpart !== undefined) return await compare(options, options.counterpart);
    if (options.sliceTunnels !== undefined) return await compareForms(options, options.sliceTunnels);
    if (options.memoryCurve !== undefined) return await drawMemoryCurve(options, options.memoryCurve);
    return options.profile ? await profile(options) : await measure(options);
  } catch (error) {
    process.stderr.write(`bench: ${(error as Error).message}\n`);
    return 1;
  }
}

async function measure(options: Options): Promise<number> {
  const progress = createProgress(process.stderr);
  const metadata = { date: new Date().toISOString(), commit: commit(), machine: machine() };
  const file = options.json ?? defaultResultFile(options, metadata);
  // Created first, so that a failure is reported before ten minutes of measurements.
  if (file !== undefined) await mkdir(dirname(file), { recursive: true });
  const runResults = await runAll(options, options.quick ? QUICK : FULL, progress);
  progress.end();
  const results = summarizeRuns(runResults.metrics);
  const { cores, processor, memoryGiB, node } = metadata.machine;
  const [before, ...after] = runResults.load;
  process.stdout.write(`${formatTable(results, !options.quick)}

${options.runs} run(s) of commit ${metadata.commit}${options.quick ? ', a tenth of the size, so the targets do not apply' : ''}
${cores} cores (${processor}), ${memoryGiB} GiB, Node ${node}
load average before ${before}, after each run ${after.join(', ')}
${runResults.failures.map((failure) => `FAILED ${failure}\n`).join('')}`);
  if (file !== undefined) {
    const { quick, runs } = options;
    const { load, failures } = runResults;
    const json = { ...metadata, quick, runs, load, failures, metrics: results };
    await writeFile(file, `${JSON.stringify(json, undefined, 2)}\n`);
    process.stdout.write(`written to ${file}\n`);
  }
  return runResults.failures.length === 0 ? 0 : 1;
}

async function compare(
  { selected: scenarios, quick, runs, minimal, json }: Options,
  folder: string,
): Promise<number> {
  const progress = createProgress(process.stderr);
  const metadata = { date: new Date().toISOString(), commit: commit(), machine: machine() };
  const defaultFile =
    quick || scenarios.size < DRIVER_SCENARIOS.length
      ? undefined
      : `${RESULTS}peer-${metadata.date.slice(0, 10)}-${metadata.commit}.json`;
  const file = json ?? defaultFile;
  if (file !== undefined) await mkdir(dirname(file), { recursive: true });
  const comparisonOf = (results: readonly DriverResult[]): ComparisonFile => ({
    ...metadata,
    quick,
    runs,
    foreignCpuSeconds: foreignCpuSeconds(results),
    comparisons: compareResults(results),
    results,
  });
  // After each measurement, because all of them take hours on a slow machine.
  async function save({ results, failures }: CounterpartResults): Promise<void> {
    if (file === undefined) return;
    const content = { ...comparisonOf(results), failures };
    await writeFile(file, `${JSON.stringify(content, undefined, 2)}\n`);
  }

  const { results, failures } = await measureCounterpart(
    { folder, quick, scenarios, runs, minimal },
    progress,
    save,
  );
  progress.end();
  const comparison = comparisonOf(results);
  const { cores, processor, memoryGiB, node } = metadata.machine;
  process.stdout.write(`${formatComparisons(comparison.comparisons)}

${runs} run(s) of commit ${metadata.commit}${quick ? ', a tenth of the size' : ''}
${cores} cores (${processor}), ${memoryGiB} GiB, Node ${node}
CPU of other processes during one measurement: at most ${comparison.foreignCpuSeconds.toFixed(1)} s
${failures.map((failure) => `FAILED ${failure}\n`).join('')}`);
  if (file !== undefined) {
    process.stdout.write(
      `written to ${file}\nnpm run bench -- --publish ${file} writes the table into docs/benchmark.md\n`,
    );
  }
  return failures.length === 0 ? 0 : 1;
}

async function publish(files: readonly string[]): Promise<number> {
  await publishComparison(files, BENCHMARK_PAGE);
  process.stdout.write(`written to ${BENCHMARK_PAGE}\n`);
  return 0;
}

async function compareForms({ json }: Options, tunnels: number): Promise<number> {
  const progress = createProgress(process.stderr);
  const metadata = { date: new Date().toISOString(), commit: commit(), machine: machine() };
  const isComplete = tunnels === SLICE_TUNNELS;
  const defaultFile = isComplete
    ? `${RESULTS}slices-${metadata.date.slice(0, 10)}-${metadata.commit}.json`
    : undefined;
  const file = json ?? defaultFile;
  if (file !== undefined) await mkdir(dirname(file), { recursive: true });
  const loadBefore = load();
  const metrics = await measureSlices({ tunnels, progress: (activity) => progress.update(activity) });
  progress.end();
  const results = summarizeRuns(metrics);
  const { cores, processor, memoryGiB, node } = metadata.machine;
  process.stdout.write(`${formatTable(results, true)}

commit ${metadata.commit}${isComplete ? '' : ', fewer tunnels than the targets apply to'}
${cores} cores (${processor}), ${memoryGiB} GiB, Node ${node}
load average before ${loadBefore}
`);
  if (file !== undefined) {
    const content = { ...metadata, tunnels, load: loadBefore, metrics: results };
    await writeFile(file, `${JSON.stringify(content, undefined, 2)}\n`);
    process.stdout.write(`written to ${file}\n`);
  }
  return 0;
}

async function drawMemoryCurve({ quick, json }: Options, minutes: number): Promise<number> {
  const progress = createProgress(process.stderr);
  const { samples, growth, svg } = await measureMemoryCurve(minutes, {
    scale: quick ? QUICK : FULL,
    progress: (activity) => progress.update(activity),
  });
  progress.end();
  const file = quick ? `${RESULTS}memory-curve.svg` : MEMORY_CURVE;
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, svg);
  if (json !== undefined)
    await writeFile(
      json,
      `${JSON.stringify({ commit: commit(), minutes, growth, samples }, undefined, 2)}\n`,
    );
  const line = (name: string, { perHour, error }: { perHour: number; error: number }): string =>
    `${name}: growth ${perHour.toFixed(1)} ± ${error.toFixed(1)} MiB per hour\n`;
  process.stdout.write(line('RSS', growth.residentMiB));
  process.stdout.write(line('anonymous memory', growth.anonymousMiB));
  process.stdout.write(line('of it, glibc', growth.glibcMiB));
  process.stdout.write(`written to ${file}\n`);
  return 0;
}

/** Returns the default file for a complete run in full size; the result of any other run is not kept. */
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
    progress: (activity) => progress.update(activity),
  });
  progress.end();
  process.stdout.write(`${text}\nwritten to ${file}\n`);
  return 0;
}
