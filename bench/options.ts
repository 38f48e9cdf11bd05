import { parseArgs } from 'node:util';
import { MEASUREMENT_NAMES, SCENARIOS } from './measurements.ts';

/** What the benchmark was asked to do. */
export interface Options {
  /** Names of measurements; all of them unless `--only` chose. */
  readonly selected: ReadonlySet<string>;
  readonly quick: boolean;
  /** 1 to 99. */
  readonly runs: number;
  readonly profile: boolean;
  /** Where the JSON goes; undefined: to bench/results, if the run is a whole one. */
  readonly json: string | undefined;
}

/** The options, a wish for help, or one line that says what is wrong. */
export type ParsedOptions =
  { readonly options: Options } | { readonly help: true } | { readonly problem: string };

/** Reads the arguments of `npm run bench -- …`. */
export function parseOptions(args: readonly string[]): ParsedOptions {
  let values;
  try {
    ({ values } = parseArgs({
      args: [...args],
      options: {
        only: { type: 'string', multiple: true },
        quick: { type: 'boolean', default: false },
        runs: { type: 'string' },
        profile: { type: 'boolean', default: false },
        json: { type: 'string' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }));
  } catch (error) {
    return { problem: (error as Error).message.split('. ')[0] ?? '' };
  }
  if (values.help) return { help: true };
  const unknown = values.only?.find((name) => !MEASUREMENT_NAMES.includes(name));
  if (unknown !== undefined) {
    return { problem: `--only ${unknown}: must be one of ${MEASUREMENT_NAMES.join(', ')}` };
  }
  const runs = values.runs ?? (values.quick ? '1' : '3');
  if (!/^[1-9]\d?$/.test(runs)) return { problem: `--runs ${runs}: must be a whole number from 1 to 99` };
  if (
    values.profile &&
    (values.only !== undefined || values.runs !== undefined || values.json !== undefined)
  ) {
    return { problem: '--profile: measures nothing, so it goes with --quick only' };
  }
  return {
    options: {
      selected: new Set(values.only ?? MEASUREMENT_NAMES),
      quick: values.quick,
      runs: Number(runs),
      profile: values.profile,
      json: values.json,
    },
  };
}

/** The text of `--help`. */
export function helpText(): string {
  const measurements = SCENARIOS.flatMap((scenario) => scenario.measurements);
  return `Usage: npm run bench [-- FLAG ...]

Measures the operator against what the API server takes, on this machine: etcd, kube-apiserver, the compiled operator
and its reporters, each a process of its own. Takes about 10 minutes a run on 2 cores. docs/benchmark.md says what
each figure means. Needs Linux.

  --only NAME  measure this alone; may be given several times
  --quick      a tenth of everything, to try the benchmark itself: its figures say nothing about the targets
  --runs N     how often to measure everything (default: 3; with --quick 1)
  --json FILE  write the figures there (default: bench/results/DATE-COMMIT.json, if everything is measured in full size)
  --profile    instead of measuring, write a CPU profile of the operator during a cold full push to
               bench/results, and show where the time goes
  --help

Measurements:
${measurements.map(({ name, description }) => `  ${name.padEnd(13)}${description}`).join('\n')}

Exit codes: 0 measured, whatever the figures; 1 a measurement failed; 2 wrong flag or value.
`;
}
