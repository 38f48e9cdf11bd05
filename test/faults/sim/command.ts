import type { Representation } from '../../../src/core/representation.ts';
import { startWithCrds } from '../../support/start-with-crds.ts';
import { openRealApi } from './real-api.ts';
import { createRealServer } from './real-server.ts';
import { formatFailure, selectFaults, runOnce, runSeeds } from './run-seeds.ts';
import type { RunOptions } from './simulate.ts';

/** Options of the simulation. */
export interface SimulationOptions {
  readonly seeds: number;
  readonly seed: number;
  /** With one seed: runs only these faults of its schedule. */
  readonly steps: readonly number[] | undefined;
  /** With one seed: prints every event. */
  readonly trace: boolean;
  /** The API server of the runs; a real one is started and stopped by the command. */
  readonly api: 'memory' | 'real';
  /** `slices`: the tunnels are in slices, at least for a part of each run. */
  readonly representation: Representation;
}

/** Runs seeds in fake time and prints the results. @returns true when no run had a difference */
export async function runSimulation(options: SimulationOptions): Promise<boolean> {
  if (options.api === 'memory') return await runWithApi(options, undefined);
  const controlPlane = await startWithCrds();
  const server = createRealServer(controlPlane);
  try {
    return await runWithApi(options, (changed, failed) => openRealApi(server, changed, failed));
  } finally {
    await server.close();
    await controlPlane.stop();
  }
}

async function runWithApi(options: SimulationOptions, openApi: RunOptions['openApi']): Promise<boolean> {
  const { seed, seeds, steps, trace, representation } = options;
  const print = (line: string): void => void process.stdout.write(`${line}\n`);
  const startedMs = performance.now();
  if (seeds === 1) {
    const schedule = selectFaults(seed, steps, representation);
    const outcome = await runOnce(schedule, { trace: trace ? print : undefined, openApi });
    if (outcome.violations.length > 0)
      print(
        formatFailure(
          { schedule, keptFaults: steps ?? schedule.faults.keys().toArray(), outcome },
          options.api,
        ),
      );
    print(
      `seed ${seed}: ${outcome.violations.length} differences, ${Math.round(outcome.passedMs / 1000)} s of fake time`,
    );
    return outcome.violations.length === 0;
  }
  const summary = await runSeeds(seed, seeds, {
    ...(openApi === undefined ? {} : { openApi }),
    representation,
    onFailure: (at, [first]) => print(`seed ${at}: ${first ?? ''}`),
    onSeed(at) {
      if ((at - seed + 1) % (options.api === 'real' ? 50 : 1000) === 0)
        print(`${at - seed + 1} seeds, ${seconds(startedMs)} s`);
    },
  });
  for (const failure of summary.failures) print(formatFailure(failure, options.api));
  const hours = (summary.passedMs / 3_600_000).toFixed(1);
  print(
    `${summary.seeds} seeds from ${seed}: ${summary.failures.length} with differences; ${hours} hours of fake time, ` +
      `${summary.requests} requests, ${seconds(startedMs)} s; slowest convergence ${Math.round(summary.slowestConvergedMs / 1000)} s after the faults`,
  );
  return summary.failures.length === 0;
}

function seconds(sinceMs: number): string {
  return ((performance.now() - sinceMs) / 1000).toFixed(1);
}
