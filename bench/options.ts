import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { DRIVER_SCENARIOS } from './counterpart.ts';
import { MEASUREMENT_NAMES, SCENARIOS } from './measurements.ts';
import { SLICE_TUNNELS } from './slices.ts';

/** The options of the benchmark. */
export interface Options {
  /** Names of measurements or, to compare with the counterpart, of the driver's scenarios. Default: all. */
  readonly selected: ReadonlySet<string>;
  readonly quick: boolean;
  /** 1 to 99. */
  readonly runs: number;
  readonly profile: boolean;
  /** The minutes of the curve of the memory that is measured instead, 1 to 1440. Default: none. */
  readonly memoryCurve: number | undefined;
  /** The number of tunnels in slices that are measured instead, a multiple of 1,000 up to 1,000,000. Default: none. */
  readonly sliceTunnels: number | undefined;
  /** The folder of the counterpart that the operator is compared to, instead of the measurements. Default: none. */
  readonly counterpart: string | undefined;
  /** Whether the minimal program is compared as well. */
  readonly minimal: boolean;
  /** The JSON of comparisons, whose table is written into docs/benchmark.md instead of measuring. Default: none. */
  readonly publish: readonly string[];
  /** The file for the JSON. Default: a file in bench/results if the run is complete. */
  readonly json: string | undefined;
}

/** Next to this repository. */
const COUNTERPART_FOLDER = new URL('../../shared/peer', import.meta.url).pathname;

/** The options, a request for help, or an error in one line. */
export type ParsedOptions =
  { readonly options: Options } | { readonly help: true } | { readonly error: string };

/** Parses the arguments of `npm run bench -- …`. */
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
        'memory-curve': { type: 'string' },
        slices: { type: 'boolean', default: false },
        tunnels: { type: 'string' },
        peer: { type: 'boolean', default: false },
        'peer-folder': { type: 'string' },
        minimal: { type: 'boolean', default: false },
        json: { type: 'string' },
        publish: { type: 'string', multiple: true, default: [] },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }));
  } catch (error) {
    return { error: (error as Error).message.split('. ')[0] ?? '' };
  }
  if (values.help) return { help: true };
  const names = values.peer ? DRIVER_SCENARIOS : MEASUREMENT_NAMES;
  const unknown = values.only?.find((name) => !names.includes(name));
  if (unknown !== undefined) return { error: `--only ${unknown}: must be one of ${names.join(', ')}` };
  const runs = values.runs ?? (values.quick ? '1' : '3');
  if (!/^[1-9]\d?$/.test(runs)) return { error: `--runs ${runs}: must be a whole number from 1 to 99` };
  if (
    values.profile &&
    (values.only !== undefined || values.runs !== undefined || values.json !== undefined)
  ) {
    return { error: '--profile: can be combined only with --quick' };
  }
  const minutes = values['memory-curve'];
  if (minutes !== undefined) {
    if (!/^[1-9]\d{0,3}$/.test(minutes) || Number(minutes) > 1440)
      return { error: `--memory-curve ${minutes}: must be a whole number of minutes from 1 to 1440` };
    if (values.only !== undefined || values.runs !== undefined || values.profile || values.peer)
      return { error: '--memory-curve: can be combined only with --quick and --json' };
  }
  const { slices, tunnels = String(SLICE_TUNNELS) } = values;
  if (slices && [values.only, values.runs, minutes].some((value) => value !== undefined))
    return { error: '--slices: can be combined only with --tunnels and --json' };
  if (slices && (values.peer || values.profile || values.quick))
    return { error: '--slices: can be combined only with --tunnels and --json' };
  if (values.tunnels !== undefined && !slices) return { error: '--tunnels: requires --slices' };
  if (!/^[1-9]\d{0,3}000$/.test(tunnels) || Number(tunnels) > SLICE_TUNNELS)
    return { error: `--tunnels ${tunnels}: must be a multiple of 1000 from 1000 to ${SLICE_TUNNELS}` };
  if (values.peer && values.profile) {
    return {
      error: '--peer: can be combined only with --peer-folder, --minimal, --only, --quick, --runs and --json',
    };
  }
  const others = [values.only, values.runs, minutes, values.tunnels, values['peer-folder'], values.json];
  const isCombined =
    values.quick ||
    values.profile ||
    slices ||
    values.peer ||
    values.minimal ||
    others.some((value) => value !== undefined);
  if (values.publish.length > 0 && isCombined)
    return { error: '--publish: cannot be combined with other flags' };
  if (values['peer-folder'] !== undefined && !values.peer) return { error: '--peer-folder: requires --peer' };
  if (values.minimal && !values.peer) return { error: '--minimal: requires --peer' };
  return {
    options: {
      selected: new Set(values.only ?? names),
      quick: values.quick,
      runs: Number(runs),
      profile: values.profile,
      memoryCurve: minutes === undefined ? undefined : Number(minutes),
      sliceTunnels: slices ? Number(tunnels) : undefined,
      counterpart: values.peer ? resolve(values['peer-folder'] ?? COUNTERPART_FOLDER) : undefined,
      minimal: values.minimal,
      publish: values.publish.map((file) => resolve(file)),
      json: values.json,
    },
  };
}

/** Returns the text of `--help`. */
export function helpText(): string {
  const measurements = SCENARIOS.flatMap((scenario) => scenario.measurements);
  return `Usage: npm run bench [-- FLAG ...]

Measures the compiled operator on this machine, with etcd, kube-apiserver and reporters as separate processes, and
compares it to a baseline loop that sends the same requests directly. A run takes about 10 minutes on 2 cores.
docs/benchmark.md describes each metric. Requires Linux.

  --only NAME  run only this measurement or, with --peer, this scenario (cold, resident, big); can be repeated
  --quick      run at a tenth of the size, to try the benchmark itself; the targets do not apply
  --runs N     number of runs (default: 3, or 1 with --quick)
  --json FILE  write the metrics to FILE (default: bench/results/DATE-COMMIT.json for a complete run in full size)
  --profile    instead of measuring, write a CPU profile of the operator during the first full push to
               bench/results, and print where the time is spent
  --memory-curve MINUTES  instead of measuring, sample the memory of the operator while 10,000 objects change, print its
               growth and draw docs/memory-curve.svg (with --quick: bench/results/memory-curve.svg)
  --slices     instead of measuring objects, measure a fleet that is mirrored as ReverseTunnelSlices, and a tenth of it
               in both forms; about 20 minutes on 2 cores
  --tunnels N  with --slices: the size of the fleet, a multiple of 1000 (default: 1000000; the target of the memory
               applies only to that)
  --peer       instead of measuring against the baseline, compare the operator with a counterpart in Go, using the
               counterpart's driver; 20 to 60 minutes per run on 2 cores; requires Go
  --peer-folder DIR  the sources of the counterpart (default: ../shared/peer)
  --minimal    with --peer: also measure a program that only ACKs reports and sends the writes, which shows what Node
               itself needs
  --publish FILE  instead of measuring, write the table of FILE, which --peer has written, into docs/benchmark.md; can be
               repeated to combine the runs of several files, for example of several nights
  --help       print this text

Measurements:
${measurements.map(({ name, description }) => `  ${name.padEnd(18)}${description}`).join('\n')}

Exit codes: 0 if all measurements completed, even if targets are missed; 1 if one failed; 2 on a usage error.
`;
}
