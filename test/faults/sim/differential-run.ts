import { STORE_FAULTS } from './api-faults.ts';
import type { Schedule } from './schedule.ts';
import { simulate, type Outcome } from './simulate.ts';
import type { OpenApi } from './harness.ts';

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
