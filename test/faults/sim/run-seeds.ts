import { generateSchedule, type Schedule } from './schedule.ts';
import { runDifferential } from './differential-run.ts';
import { simulate, type Outcome, type RunOptions } from './simulate.ts';
import { formatFault } from './scheduled-fault.ts';

/** A seed that came out wrong, cut down to the steps that it takes. */
export interface SeedFailure {
  readonly schedule: Schedule;
  /** Which steps of the seed's course are left. */
  readonly keptFaults: readonly number[];
  readonly outcome: Outcome;
}

/** What many seeds came to. */
export interface RunSummary {
  readonly seeds: number;
  readonly failures: readonly SeedFailure[];
  readonly requests: number;
  /** Fake time, in all. */
  readonly passedMs: number;
  readonly slowestConvergedMs: number;
}

/** Runs of one failing course that shrinking may take. */
const MAX_SHRINK_RUNS = 80;

/** The seed's course with some of its steps. */
export function selectFaults(seed: number, keptFaults: readonly number[] | undefined): Schedule {
  const schedule = generateSchedule(seed);
  if (keptFaults === undefined) return schedule;
  return { ...schedule, faults: schedule.faults.filter((_, index) => keptFaults.includes(index)) };
}

/** Plays the courses of `count` seeds from `first` on. @param mostFailures after so many it ends, as it is slow to shrink them */
export async function runSeeds(
  first: number,
  count: number,
  {
    maxFailures = 5,
    openApi,
    onSeed,
    onFailure,
  }: {
    maxFailures?: number;
    openApi?: RunOptions['openApi'];
    onSeed?: (seed: number) => void;
    /** Told of a seed before it is cut down, which takes a while. */
    onFailure?: (seed: number, violations: readonly string[]) => void;
  } = {},
): Promise<RunSummary> {
  const failures: SeedFailure[] = [];
  let [seeds, requests, passedMs, slowestConvergedMs] = [0, 0, 0, 0];
  for (let seed = first; seed < first + count && failures.length < maxFailures; seed += 1) {
    const outcome = await runOnce(generateSchedule(seed), { openApi });
    seeds += 1;
    requests += outcome.requests;
    passedMs += outcome.passedMs;
    slowestConvergedMs = Math.max(slowestConvergedMs, outcome.convergedMs);
    if (outcome.violations.length > 0) {
      onFailure?.(seed, outcome.violations);
      failures.push(await shrink(seed, outcome, { openApi }));
    }
    onSeed?.(seed);
  }
  return { seeds, failures, requests, passedMs, slowestConvergedMs };
}

/** With a real API server, against both kinds. A fault of the simulator, or an error that nobody caught, is a wrong like any other: it has a seed. */
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

/** Leaves out steps, half of them at first, for as long as it still comes out wrong. */
async function shrink(seed: number, original: Outcome, options: RunOptions): Promise<SeedFailure> {
  let keptFaults = generateSchedule(seed).faults.map((_, index) => index);
  let outcome = original;
  let runs = 0;
  for (let size = Math.ceil(keptFaults.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < keptFaults.length && runs < MAX_SHRINK_RUNS;) {
      const fewer = [...keptFaults.slice(0, from), ...keptFaults.slice(from + size)];
      runs += 1;
      const retried = await runOnce(selectFaults(seed, fewer), options);
      if (retried.violations.length > 0) [keptFaults, outcome] = [fewer, retried];
      else from += size;
    }
  }
  return { schedule: selectFaults(seed, keptFaults), keptFaults, outcome };
}

/** A failure, for a person: what happens, what comes of it, and the command that shows it again. */
export function formatFailure(
  { schedule, keptFaults, outcome }: SeedFailure,
  api: 'memory' | 'real' = 'memory',
): string {
  const { seed, replicas, reporters, tunnels, faults } = schedule;
  return [
    `seed ${seed}: ${replicas} replicas, ${reporters} reporters of ${tunnels} tunnels`,
    ...faults.map((fault) => `  ${formatFault(fault)}`),
    ...outcome.violations.slice(0, 8).map((violation) => `  -> ${violation}`),
    `again: npm run test:faults -- --seeds 1 --seed ${seed} --steps ${keptFaults.length === 0 ? 'none' : keptFaults.join(',')}${api === 'real' ? ' --api real' : ''} --trace`,
  ].join('\n');
}
