/**
 * Measures the operator next to a counterpart: the same operator, written in Go with controller-runtime, which comes with
 * a driver that plays Envoys and measures both by the same clock. The sources of the counterpart are not part of this
 * repository.
 */
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { bundle } from '../build/bundle.ts';
import { cacheRoot } from '../control-plane/cache.ts';
import { reservePorts } from '../control-plane/ports.ts';
import { COMMAND_NOT_FOUND, lastLines, run } from '../control-plane/run.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/start.ts';
import { applyCrds } from '../test/support/apply-crds.ts';
import { baselineObjects, openBaselineLoop } from './baseline.ts';
import type { DriverResult } from './counterpart-table.ts';
import { operatorCommand, operatorVariables } from './operator.ts';
import type { Progress } from './progress.ts';

/** The programs that are built from the counterpart's folder, and the folder of each package. */
const PACKAGES = { peer: '.', drive: './drive', rawwrite: '../rawwrite' } as const;
const ERROR_LINES = 6;
/** The gRPC, HTTP and metrics ports of one operator. */
const PORTS_PER_OPERATOR = 3;
/**
 * How long the driver waits at most for other processes to be quiet before each measurement. It counts time that a CPU
 * waits for a disk as theirs, so on some machines it always waits this long.
 */
const QUIET_WAIT = '10s';
const MINIMAL_PROGRAM = new URL('./minimal-program.ts', import.meta.url).pathname;
const SETTLE_SECONDS = 3;
const SETTLE_POLL_MS = 200;

/**
 * The operator's report interval in scenarios in which the driver's reporters send a full push and then nothing until the
 * objects are written. The operator ends a stream after three intervals without a report, which are 15 s by default: a
 * busy machine takes longer to write 10,000 objects or to delete 100,000.
 */
const SILENT_REPORT_SECONDS = 300;

/**
 * The driver removes all tunnels with empty full pushes. The operator would mark them and delete them 30 s later; the
 * counterpart deletes them immediately.
 */
const DELETE_IMMEDIATELY = '--removal-hold 0';

/**
 * How often one measurement is tried. A slow machine is the usual cause of a failure: the API server ends a watch whose
 * events it cannot pass on within about 100 ms, and the driver then fails with `EOF`.
 */
const MAX_ATTEMPTS = 3;

/**
 * So many objects are created and deleted before the driver watches a kind. The API server buffers 1/75 of its watch cache
 * for each new watch, at least 10 and at most 100 events, and the watch cache grows and shrinks with the events of the
 * last 75 s. These objects are enough for 100 (watch_cache_history.go of k8s.io/apiserver).
 */
const WATCH_CACHE_OBJECTS = 3_500;
const WATCH_CACHE_NAMESPACE = 'watch-cache';
const WATCH_CACHE_WRITES_IN_FLIGHT = 64;

/**
 * The result after which they are created and deleted again: single changes come before it, which shrink the watch cache,
 * and the driver is silent for 10 s after it. Its next watch is the one of all deletes.
 */
const RESULT_BEFORE_SILENCE = 'restart';
const RESULT_POLL_MS = 200;

/** The number of objects of the raw writer in a tenth of the size. */
const QUICK_RAW = ['-raw-n', '2000'];

/** What the driver measures: its flags, in full size and in a tenth of it. */
const SCENARIOS = [
  {
    name: 'cold',
    full: ['-reporters', '100', '-per', '100'],
    quick: ['-reporters', '100', '-per', '10', ...QUICK_RAW],
    reportIntervalSeconds: SILENT_REPORT_SECONDS,
  },
  {
    name: 'resident',
    full: ['-reporters', '500', '-per', '100'],
    quick: ['-reporters', '50', '-per', '100', '-idle', '15s', '-dur', '10s', ...QUICK_RAW],
    reportIntervalSeconds: 5,
  },
  {
    name: 'big',
    full: ['-per', '100000'],
    quick: ['-per', '10000', ...QUICK_RAW],
    reportIntervalSeconds: SILENT_REPORT_SECONDS,
  },
] as const;

type Scenario = (typeof SCENARIOS)[number];

/** The names of the driver's scenarios. */
export const DRIVER_SCENARIOS: readonly string[] = SCENARIOS.map(({ name }) => name);

/** One of the programs that are measured. */
interface Candidate {
  readonly label: DriverResult['label'];
  readonly namespace: string;
  /** The command that starts it, and the flags that tell the driver where it serves and how it stores a tunnel. */
  flags(port: number, controlPlane: ControlPlane, scenario: Scenario): readonly string[];
  /** Creates and deletes objects of its kind in another namespace, so that new watches have large buffers. */
  growWatchCache(controlPlane: ControlPlane): Promise<void>;
}

export interface CounterpartOptions {
  /** The folder of the counterpart: a Go module with the operator and its driver in `drive/`. */
  readonly folder: string;
  readonly quick: boolean;
  /** The names of the scenarios to run. */
  readonly scenarios: ReadonlySet<string>;
  /** In each, the scenarios run with the counterpart and with the operator. */
  readonly runs: number;
  /** Whether the minimal program is measured, too. */
  readonly minimal: boolean;
}

/** The results of all measurements that succeeded, and a line for each that failed. */
export interface CounterpartResults {
  readonly results: readonly DriverResult[];
  readonly failures: readonly string[];
}

/**
 * Runs each scenario of the driver with the counterpart and with the operator in alternation, each on a control plane of
 * its own, and returns what the driver reported. A measurement that fails is repeated; if it keeps failing, the others
 * continue.
 *
 * @param onMeasured called after each measurement with the results of all until then
 * @throws Error in one line if the folder or Go is missing, or a build fails
 */
export async function measureCounterpart(
  { folder, quick, scenarios, runs, minimal }: CounterpartOptions,
  progress: Progress,
  onMeasured: (results: CounterpartResults) => Promise<void>,
): Promise<CounterpartResults> {
  const binaries = await build(folder, progress);
  const measured = [counterpart(binaries), OPERATOR, ...(minimal ? [await buildMinimal(binaries)] : [])];
  const results: DriverResult[] = [];
  const failures: string[] = [];
  function fail(failure: string): void {
    progress.log(failure);
    failures.push(failure);
  }
  for (let round = 1; round <= runs; round += 1) {
    // The order changes from run to run, so that drift of the machine affects both.
    const ordered = round % 2 === 1 ? measured : measured.toReversed();
    for (const scenario of SCENARIOS.filter(({ name }) => scenarios.has(name))) {
      for (const candidate of ordered) {
        const title = `run ${round} of ${runs}, ${scenario.name}: ${candidate.label}`;
        progress.update(title);
        try {
          const measure = (): Promise<Measured> => drive({ binaries, candidate, scenario, quick, folder });
          const { lines, failure } = await withRetries(measure, MAX_ATTEMPTS, (message) =>
            progress.log(`${title}: ${message}; measuring it again`),
          );
          results.push(...lines);
          if (failure !== undefined) fail(`${title}: ${failure}`);
        } catch (error) {
          fail(`${title}: ${(error as Error).message}`);
        }
        await onMeasured({ results, failures });
      }
    }
  }
  return { results, failures };
}

/**
 * Returns the result of the first attempt that succeeds.
 *
 * @param onRetry called with the message of each error but the last
 * @throws Error the last error
 */
export async function withRetries<T>(
  attempt: () => Promise<T>,
  maxAttempts: number,
  onRetry: (message: string) => void,
): Promise<T> {
  for (let count = 1; ; count += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (count >= maxAttempts) throw error;
      onRetry((error as Error).message);
    }
  }
}

function counterpart(binaries: string): Candidate {
  return {
    label: 'counterpart',
    namespace: 'counterpart',
    flags(port, { kubeconfigPath }) {
      const command = [
        `${join(binaries, 'peer')} -kubeconfig ${kubeconfigPath} -namespace counterpart`,
        `-grpc-bind-address 127.0.0.1:${port} -health-probe-bind-address 127.0.0.1:${port + 1}`,
        `-metrics-bind-address 127.0.0.1:${port + 2}`,
      ];
      return ['-op-cmd', command.join(' '), '-metrics-url', `http://127.0.0.1:${port + 2}/metrics`];
    },
    async growWatchCache({ kubeconfigPath }) {
      const size = ['-n', String(WATCH_CACHE_OBJECTS), '-c', String(WATCH_CACHE_WRITES_IN_FLIGHT)];
      const args = ['-kubeconfig', kubeconfigPath, '-ns', WATCH_CACHE_NAMESPACE, ...size];
      for (const mode of ['create', 'delete']) {
        const writer = join(binaries, 'rawwrite');
        const { code, stderr } = await run(writer, [...args, '-mode', mode], {
          cwd: binaries,
          env: process.env,
        });
        if (code !== 0) throw new Error(`the raw writer failed: ${lastLines(stderr, ERROR_LINES)}`);
      }
    },
  };
}

const LABEL = String.raw`.metadata.labels.reverse-tunnel\.io/`;
const IDENTITY_FIELDS = ['tenant', 'cluster', 'node'].flatMap((name) => [
  `${name}=.spec.${name}ID`,
  `${name}=${LABEL}${name}`,
]);
/** Where the driver finds a tunnel in a ReverseTunnel object. */
const OBJECT_FLAGS = [
  ...['-gvr', 'reverse-tunnel.io/v1alpha1/reversetunnels', '-name-path', '.spec.tunnelName'],
  ...['-reporter-path', '.spec.reporter.id', '-created-path', '.spec.createdAt'],
  ...['-fields', [...IDENTITY_FIELDS, `reporter=${LABEL}reporter`].join(',')],
];

/** The flags of the operator and of the minimal program that have the same names. */
function commonFlags(port: number, { kubeconfigPath }: ControlPlane): string {
  const addresses = `--grpc-address 127.0.0.1:${port} --http-address 127.0.0.1:${port + 1}`;
  return `--kubeconfig ${kubeconfigPath} --namespace operator ${addresses}`;
}

const OPERATOR: Candidate = {
  label: 'operator',
  namespace: 'operator',
  flags(port, controlPlane, { reportIntervalSeconds }) {
    const command = [
      ...['env', ...operatorVariables(), ...operatorCommand(), commonFlags(port, controlPlane)],
      ...['--auth insecure', `--report-interval ${reportIntervalSeconds}s`, DELETE_IMMEDIATELY],
    ];
    return [
      ...['-op-cmd', command.join(' '), '-metrics-url', `http://127.0.0.1:${port + 1}/metrics`],
      ...OBJECT_FLAGS,
    ];
  },
  growWatchCache: writeTunnelObjects,
};

/** Bundles the minimal program like the operator. */
async function buildMinimal(binaries: string): Promise<Candidate> {
  const folder = join(binaries, 'minimal');
  await bundle([MINIMAL_PROGRAM], folder);
  const [node = '', ...nodeFlags] = operatorCommand().slice(0, -1);
  const variables = [...operatorVariables(), `NODE_COMPILE_CACHE=${join(folder, 'compile-cache')}`];
  const program = ['env', ...variables, node, ...nodeFlags, join(folder, 'minimal-program.js')];
  // Without flags, it only writes the code that V8 has compiled.
  await run('env', program.slice(1), { cwd: folder, env: process.env });
  return {
    label: 'minimal',
    namespace: 'operator',
    flags(port, controlPlane, { reportIntervalSeconds }) {
      const interval = `--report-interval-s ${reportIntervalSeconds}`;
      const command = [...program, commonFlags(port, controlPlane), interval];
      return ['-op-cmd', command.join(' '), ...OBJECT_FLAGS];
    },
    growWatchCache: writeTunnelObjects,
  };
}

interface DriverRun {
  readonly binaries: string;
  readonly folder: string;
  readonly candidate: Candidate;
  readonly scenario: Scenario;
  readonly quick: boolean;
}

/** What a run of the driver has measured. */
interface Measured {
  readonly lines: readonly DriverResult[];
  /** Why it ended before its last measurement; undefined if it did not. */
  readonly failure?: string | undefined;
}

/**
 * Runs one scenario of the driver with one operator, on a fresh control plane.
 *
 * @throws Error if it failed before its first measurement
 */
async function drive(options: DriverRun): Promise<Measured> {
  const { binaries, folder, candidate, scenario, quick } = options;
  const controlPlane = await startControlPlane();
  const ports = await reservePorts(PORTS_PER_OPERATOR);
  try {
    await applyCrds(controlPlane);
    await controlPlane.kubectl(['apply', '-f', join(folder, 'crd.yaml')]);
    const { request } = controlPlane;
    for (const name of [candidate.namespace, WATCH_CACHE_NAMESPACE])
      await request('POST', '/api/v1/namespaces', { metadata: { name } });
    for (const group of ['reverse-tunnel.io', 'bench.test'])
      await watchesStayOpen(controlPlane, `/apis/${group}/v1alpha1/reversetunnels`);
    await candidate.growWatchCache(controlPlane);
    const out = join(controlPlane.folder, 'results.jsonl');
    // The driver reads the CPU time of both programs from these files.
    await writeFile(join(controlPlane.folder, 'api.pid'), String(controlPlane.apiserver.pid));
    await writeFile(join(controlPlane.folder, 'etcd.pid'), String(controlPlane.etcd.pid));
    const log = join(controlPlane.folder, 'operator.log');
    const driver = run(
      join(binaries, 'drive'),
      [
        ...['-label', candidate.label, '-out', out, '-rounds', '1', '-quiet-wait', QUIET_WAIT],
        ...['-addr', `127.0.0.1:${ports.first}`, '-ready-url', `http://127.0.0.1:${ports.first + 1}/readyz`],
        ...['-kubeconfig', controlPlane.kubeconfigPath, '-namespace', candidate.namespace],
        ...['-cp-dir', controlPlane.folder, '-op-log', log, '-raw', join(binaries, 'rawwrite')],
        ...candidate.flags(ports.first, controlPlane, scenario),
        ...['-scenario', scenario.name, ...(quick ? scenario.quick : scenario.full)],
      ],
      { cwd: folder, env: process.env },
    );
    if (await hasReported(out, RESULT_BEFORE_SILENCE, driver)) await candidate.growWatchCache(controlPlane);
    const { code, stdout, stderr } = await driver;
    const lines = await readResults(out);
    if (code === 0) return { lines };
    const failure = driverFailure(stdout + stderr);
    if (lines.length === 0) throw new Error(failure);
    return { lines, failure };
  } finally {
    await controlPlane.stop();
    await ports.release();
  }
}

/** Describes why the driver failed, from its output. */
export function driverFailure(output: string): string {
  const lines = lastLines(output, ERROR_LINES);
  return /FAILED:.*\bEOF$/m.test(output)
    ? `the API server ended the watch of the driver, because it was too busy to pass the events on: ${lines}`
    : `the driver failed: ${lines}`;
}

/**
 * Resolves when a watch of a new kind stays open. The API server ends the first ones when it learns that the kind has
 * been established, which takes seconds on a busy machine; the driver would fail with `EOF`.
 */
async function watchesStayOpen({ request }: ControlPlane, path: string): Promise<void> {
  for (let startMs = performance.now(); ; startMs = performance.now()) {
    await request('GET', `${path}?watch=1&timeoutSeconds=${SETTLE_SECONDS}`);
    if (performance.now() - startMs >= SETTLE_SECONDS * 1000) return;
    await delay(SETTLE_POLL_MS);
  }
}

/** Creates and deletes objects of the operator's kind in a namespace of their own. */
async function writeTunnelObjects({ url, caData, adminToken }: ControlPlane): Promise<void> {
  const access = { namespace: WATCH_CACHE_NAMESPACE, token: adminToken };
  await using loop = await openBaselineLoop({ url, ca: caData }, access);
  const objects = baselineObjects(0, WATCH_CACHE_OBJECTS);
  await loop.create(objects);
  await loop.delete(objects);
}

/** Resolves with true when the driver has reported a result of this name, or with false when it has ended without one. */
async function hasReported(out: string, name: string, driver: Promise<unknown>): Promise<boolean> {
  const ended = driver.then(() => true);
  for (;;) {
    if ((await readResults(out)).some(({ scenario }) => scenario === name)) return true;
    if (await Promise.race([ended, delay(RESULT_POLL_MS, false)])) return false;
  }
}

/** Returns what the driver has reported until now, in order. */
async function readResults(out: string): Promise<readonly DriverResult[]> {
  const text = existsSync(out) ? await readFile(out, 'utf8') : '';
  // The driver may be writing the last line.
  const lines = text.split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as DriverResult);
}

/** Builds the programs into the user's cache and returns their folder. Takes minutes with an empty build cache of Go. */
async function build(folder: string, progress: Progress): Promise<string> {
  if (!existsSync(join(folder, 'drive')) || !existsSync(join(folder, 'go.mod'))) {
    throw new Error(`--peer-folder ${folder}: there is no Go module with a driver in drive/`);
  }
  const binaries = join(cacheRoot(process.env), 'counterpart');
  // Binaries of an earlier build must not be measured if a build fails.
  await rm(binaries, { recursive: true, force: true });
  await mkdir(binaries, { recursive: true });
  for (const [name, path] of Object.entries(PACKAGES)) {
    progress.update(`go build ${name}`);
    const cwd = path.startsWith('../') ? join(folder, path) : folder;
    const target = path.startsWith('../') ? '.' : path;
    const args = ['build', '-mod=readonly', '-buildvcs=false', '-o', join(binaries, name), target];
    const { code, stderr } = await run('go', args, { cwd, env: { ...process.env, GOWORK: 'off' } });
    if (code === COMMAND_NOT_FOUND)
      throw new Error('--peer: Go 1.26 or later is required to build the counterpart');
    if (code !== 0) throw new Error(`go build ${name}: ${lastLines(stderr, ERROR_LINES)}`);
  }
  return binaries;
}
