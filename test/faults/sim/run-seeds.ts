import type { Representation } from '../../../src/core/representation.ts';
import { generateRepresentations, generateSchedule, type Schedule, formatFault } from './schedule.ts';
import { simulate, type Outcome, type RunOptions } from './simulate.ts';
import { STORE_FAULTS } from './api-faults.ts';
import type { OpenApi } from './harness.ts';

/** A failing seed, reduced to the faults that it needs. */
export interface SeedFailure {
  readonly schedule: Schedule;
  /** Indexes of the schedule's faults that are left. */
  readonly keptFaults: readonly number[];
  readonly outcome: Outcome;
}

/** The results of many seeds. */
export interface RunSummary {
  readonly seeds: number;
  readonly failures: readonly SeedFailure[];
  readonly requests: number;
  /** Total fake time. */
  readonly passedMs: number;
  readonly slowestConvergedMs: number;
}

/** Maximum number of runs for shrinking one failing schedule. */
const MAX_SHRINK_RUNS = 80;

/** Returns the schedule of a seed; with `slices`, the tunnels are in slices, at least for a part of the time. */
export function scheduleOf(seed: number, representation: Representation = 'objects'): Schedule {
  const schedule = generateSchedule(seed);
  return representation === 'objects'
    ? schedule
    : { ...schedule, representations: generateRepresentations(seed) };
}

/** Returns a seed's schedule with some of its faults. */
export function selectFaults(
  seed: number,
  keptFaults: readonly number[] | undefined,
  representation?: Representation,
): Schedule {
  const schedule = scheduleOf(seed, representation);
  if (keptFaults === undefined) return schedule;
  return { ...schedule, faults: schedule.faults.filter((_, index) => keptFaults.includes(index)) };
}

/**
 * Runs the schedules of `count` seeds, starting with `first`. @param maxFailures ends after this many, because
 * shrinking is slow
 */
export async function runSeeds(
  first: number,
  count: number,
  {
    maxFailures = 5,
    representation,
    openApi,
    onSeed,
    onFailure,
  }: {
    maxFailures?: number;
    representation?: Representation | undefined;
    openApi?: RunOptions['openApi'];
    onSeed?: (seed: number) => void;
    /** Called for a failing seed before it is shrunk, which takes a while. */
    onFailure?: (seed: number, violations: readonly string[]) => void;
  } = {},
): Promise<RunSummary> {
  const failures: SeedFailure[] = [];
  let [seeds, requests, passedMs, slowestConvergedMs] = [0, 0, 0, 0];
  for (let seed = first; seed < first + count && failures.length < maxFailures; seed += 1) {
    const outcome = await runOnce(scheduleOf(seed, representation), { openApi });
    seeds += 1;
    requests += outcome.requests;
    passedMs += outcome.passedMs;
    slowestConvergedMs = Math.max(slowestConvergedMs, outcome.convergedMs);
    if (outcome.violations.length > 0) {
      onFailure?.(seed, outcome.violations);
      failures.push(await shrink(seed, outcome, { openApi }, representation));
    }
    onSeed?.(seed);
  }
  return { seeds, failures, requests, passedMs, slowestConvergedMs };
}

/**
 * Runs one schedule; with a real API server, against both kinds. An error of the simulator or an uncaught error
 * counts as a violation, because it can be reproduced with the seed.
 */
export async function runOnce(schedule: Schedule, options: RunOptions = {}): Promise<Outcome> {
  const uncaught: string[] = [];
  const onUncaught = (error: unknown): void => {
    uncaught.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
  };
  process.on('unhandledRejection', onUncaught);
  process.on('uncaughtException', onUncaught);
  try {
    const { openApi, trace } = options;
    const outcome =
      openApi === undefined
        ? await simulate(schedule, options)
        : await runDifferential(schedule, openApi, trace);
    return uncaught.length === 0 ? outcome : { ...outcome, violations: [...uncaught, ...outcome.violations] };
  } finally {
    process.off('unhandledRejection', onUncaught);
    process.off('uncaughtException', onUncaught);
  }
}

/** Removes faults, half of them at first, as long as the run still fails. */
async function shrink(
  seed: number,
  original: Outcome,
  options: RunOptions,
  representation: Representation | undefined,
): Promise<SeedFailure> {
  let keptFaults = generateSchedule(seed).faults.map((_, index) => index);
  let outcome = original;
  let runs = 0;
  for (let size = Math.ceil(keptFaults.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < keptFaults.length && runs < MAX_SHRINK_RUNS;) {
      const fewer = [...keptFaults.slice(0, from), ...keptFaults.slice(from + size)];
      runs += 1;
      const retried = await runOnce(selectFaults(seed, fewer, representation), options);
      if (retried.violations.length > 0) [keptFaults, outcome] = [fewer, retried];
      else from += size;
    }
  }
  return { schedule: selectFaults(seed, keptFaults, representation), keptFaults, outcome };
}

/** Formats a failure: the faults, the violations, and the command that reproduces it. */
export function formatFailure(
  { schedule, keptFaults, outcome }: SeedFailure,
  api: 'memory' | 'real' = 'memory',
): string {
  const { seed, replicas, reporters, tunnels, faults, representations } = schedule;
  const flags = `${representations === undefined ? '' : ' --representation slices'}${api === 'real' ? ' --api real' : ''}`;
  return [
    `seed ${seed}: ${replicas} replicas, ${reporters} reporters of ${tunnels} tunnels`,
    ...faults.map((fault) => `  ${formatFault(fault)}`),
    ...(representations ?? []).map(({ atMs, representation }) => `  ${atMs / 1000} s ${representation}`),
    ...outcome.violations.slice(0, 8).map((violation) => `  -> ${violation}`),
    `reproduce: npm run test:faults -- --seeds 1 --seed ${seed} --steps ${keptFaults.length === 0 ? 'none' : keptFaults.join(',')}${flags} --trace`,
  ].join('\n');
}

/**
 * Runs a schedule against a real API server and against the in-memory one. A difference between the two traces is a
 * violation: a write, a log line, a time, or the number of requests. Faults that change the store itself are left
 * out of both runs.
 */
export async function runDifferential(
  schedule: Schedule,
  openApi: OpenApi,
  trace: ((line: string) => void) | undefined,
): Promise<Outcome> {
  const faults = schedule.faults.filter(({ kind: what }) => !STORE_FAULTS.has(what));
  const real: string[] = [];
  const outcome = await simulate(
    { ...schedule, faults },
    {
      openApi,
      trace: (line) => {
        trace?.(line);
        real.push(normalizeLine(line));
      },
    },
  );
  const memory: string[] = [];
  const { requests } = await simulate(
    { ...schedule, faults },
    { trace: (line) => memory.push(normalizeLine(line)) },
  );
  const violations = [...outcome.violations];
  const firstDifference = Array.from(
    { length: Math.max(real.length, memory.length) },
    (_, line) => line,
  ).find((line) => real[line] !== memory[line]);
  if (firstDifference !== undefined) {
    violations.push(
      `line ${firstDifference}, real: ${real[firstDifference] ?? 'none'}`,
      `line ${firstDifference}, in memory: ${memory[firstDifference] ?? 'none'}`,
    );
  }
  if (outcome.requests !== requests) violations.push(`${outcome.requests} requests, in memory ${requests}`);
  return { ...outcome, violations };
}

/** Removes what necessarily differs: versions and the name of the namespace. */
function normalizeLine(line: string): string {
  return line
    .replaceAll(/\bsim-[0-9a-f]{10}\b/g, 'sim')
    .replaceAll(/@\d+/g, '@')
    .replaceAll(/too old resource version: \d+ \(\d+\)/g, 'too old resource version');
}
