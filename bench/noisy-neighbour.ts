/** A reporter at 100 times the rate of 20 others: its effect on the p99 of their time from report to object. */
import { setTimeout as delay } from 'node:timers/promises';
import type { ReportedTunnel } from '../src/grpc/report-message.ts';
import { FLEET_DEFAULTS } from '../src/simulate/fleet.ts';
import { poll } from '../test/support/operator-process.ts';
import {
  openBaselineLoop,
  type BaselineLoop,
  baselineObjects,
  NAMES,
  type BaselineObject,
} from './baseline.ts';
import { percentile, type Metric } from './metric.ts';
import { machineMs } from './machine.ts';
import { startOperator, type Operator } from './operator.ts';
import { openRawReporter, reportedTunnels, type RawReporter } from './raw-reporter.ts';
import { openObjectWatch, type ObjectWatch } from './object-watch.ts';
import { defineScenario, type BenchContext } from './scenario.ts';
import { createPolicy } from '../test/support/create-policy.ts';
import { openBenchCluster } from './cluster.ts';

/** Each sends one report per second, which adds a tunnel and removes one. */
const NEIGHBOURS = 20;
const REPORT_INTERVAL_MS = 1000;
const RATE_FACTOR = 100;
/** A tunnel that is removed before it was written has no object to wait for. */
const TUNNEL_LIFETIME_REPORTS = 10;
/** The only tenant that the policy allows the noisy reporter. Every report also contains a tunnel that is denied. */
const NOISY_TENANT = 'noisy';
const LIMITED_RATE = 10;
/**
 * The load during which the neighbours are measured; `noisy` and `noisy-limited` are also the IDs of the two noisy
 * reporters. `baseline` sends the writes that the noisy reporter causes directly to the API server, which shows the effect
 * of the API server alone. The phases alternate, so that a drift of the machine affects all of them.
 */
const PHASES = ['calm', 'noisy', 'noisy-limited', 'baseline'] as const;
const ROUNDS = 6;
const WARM_UP_MS = 3000;
const TIMEOUT_MS = 120_000;
/** Long enough that the objects of the noisy reporters do not change between two phases. */
const FLAGS = ['--unknown-after', '10m', '--expire-after', '20m'];
/** Ranges of serials that do not overlap. */
const NOISY_SERIAL = 30_000_000;
const NEIGHBOURS_SERIAL = 40_000_000;
const BASELINE_SERIAL = 50_000_000;

type Phase = (typeof PHASES)[number];

interface Fixture {
  readonly operator: Operator;
  readonly watch: ObjectWatch;
  readonly neighbours: readonly RawReporter[];
  /** Writes to another namespace. */
  readonly baselineLoop: BaselineLoop;
  /** Returns an object that has not been used before. */
  readonly nextBaselineObject: () => BaselineObject;
}

export const noisyNeighbour = defineScenario<Fixture>(
  async (context, cleanup) => {
    context.progress('starting');
    const cluster = cleanup.use(await openBenchCluster({ audit: false }));
    const access = await cluster.access('mirror');
    const peers = [{ any: true }];
    await createPolicy(cluster, access.namespace, 'neighbours', [
      { peers, reporters: { ids: ['neighbour-*'] }, tenants: ['*'] },
    ]);
    const rule = { peers, reporters: { ids: ['noisy'] }, tenants: [NOISY_TENANT] };
    await createPolicy(cluster, access.namespace, 'noisy', [rule]);
    await createPolicy(cluster, access.namespace, 'noisy-limited', [
      { ...rule, reporters: { ids: ['noisy-limited'] }, limits: { reportsPerSecond: LIMITED_RATE } },
    ]);
    const operator = cleanup.use(await startOperator({ access, flags: FLAGS }));
    await operator.ready();
    const watch = cleanup.use(await openObjectWatch(cluster, access.namespace));
    const neighbours: RawReporter[] = [];
    for (let i = 0; i < NEIGHBOURS; i += 1) {
      const reporter = await openRawReporter(operator.grpcAddress, `neighbour-${i}`);
      cleanup.defer(() => reporter.close());
      await reporter.send({ fullPush: true });
      neighbours.push(reporter);
    }
    const baselineLoop = cleanup.use(await openBaselineLoop(cluster, await cluster.access('baseline')));
    let created = 0;
    const nextBaselineObject = (): BaselineObject => {
      const [object] = baselineObjects(BASELINE_SERIAL + created, 1);
      created += 1;
      if (object === undefined) throw new Error('no object created');
      return object;
    };
    return { operator, watch, neighbours, baselineLoop, nextBaselineObject };
  },
  [
    {
      name: 'noisy-neighbour',
      description: `${NEIGHBOURS} reporters next to one at ${RATE_FACTOR} times their rate: p99 from their report to the object vs. a calm run`,
      measure,
    },
  ],
);

async function measure(fixture: Fixture, context: BenchContext): Promise<Metric[]> {
  const { operator } = fixture;
  const reports = startNeighbours(fixture);
  context.progress('warming up');
  await delay(WARM_UP_MS);
  for (let round = 1; round <= ROUNDS; round += 1) {
    for (const phase of PHASES) {
      context.progress(`round ${round} of ${ROUNDS}: ${phase}`);
      const close = await startPhase(fixture, phase);
      reports.phase = phase;
      await delay(context.scale.noisyNeighbourMs / ROUNDS);
      reports.phase = undefined;
      close?.();
      // The backlog of this phase must not affect the next one.
      await poll(TIMEOUT_MS, async () =>
        (await operator.metric('workqueue_depth{name="tunnels"}')) < NEIGHBOURS ? true : undefined,
      );
    }
  }
  await reports.end();
  const p99 = (phase: Phase): number =>
    percentile(
      reports.latenciesMs[phase].toSorted((a, b) => a - b),
      99,
    );
  const phaseMetrics = (what: string, phase: Phase): Metric[] => [
    {
      name: `neighbours of ${what}, p99 vs. calm`,
      unit: '',
      value: p99(phase) / p99('calm'),
      target: { atMost: 2 },
    },
    { name: `neighbours of ${what}, p99`, unit: 'ms', value: p99(phase) },
  ];
  return [
    ...phaseMetrics('a noisy reporter', 'noisy'),
    ...phaseMetrics(`one limited to ${LIMITED_RATE} reports/s`, 'noisy-limited'),
    {
      name: 'neighbours of the same writes by the baseline loop, p99 vs. calm',
      unit: '',
      value: p99('baseline') / p99('calm'),
    },
    { name: 'neighbours in a calm run, p99', unit: 'ms', value: p99('calm') },
  ];
}

/** Starts the load of a phase. Returns a function that stops it. */
async function startPhase(fixture: Fixture, phase: Phase): Promise<(() => void) | undefined> {
  if (phase === 'calm') return undefined;
  if (phase === 'baseline') return startNoisyWrites(fixture);
  return await startNoisyReports(fixture.operator, phase);
}

/** Sends the writes that a noisy reporter causes: at its rate, creates an object and deletes the previous one. */
function startNoisyWrites({ baselineLoop, nextBaselineObject }: Fixture): () => void {
  let last: Promise<BaselineObject> | undefined;
  return runAtInterval(REPORT_INTERVAL_MS / RATE_FACTOR, () => {
    const object = nextBaselineObject();
    const previous = last;
    last = baselineLoop.create([object]).then(() => object);
    // A failure only reduces the load; the objects of the neighbours are measured.
    last.catch(() => undefined);
    previous?.then((old) => baselineLoop.delete([old])).catch(() => undefined);
  });
}

/** Sends reports of the neighbours at even intervals, and records the time from each report to the watch event. */
function startNeighbours({ watch, neighbours }: Fixture) {
  const latenciesMs: Record<Phase, number[]> = {
    calm: [],
    noisy: [],
    'noisy-limited': [],
    baseline: [],
  };
  const pending = new Map<string, { readonly sentMs: number; readonly phase: Phase | undefined }>();
  watch.onEvent = (type, line, seenMs) => {
    if (type !== 'ADDED') return;
    const { object } = JSON.parse(line) as { object: { metadata: { name: string } } };
    const sent = pending.get(object.metadata.name);
    pending.delete(object.metadata.name);
    if (sent?.phase !== undefined) latenciesMs[sent.phase].push(seenMs - sent.sentMs);
  };
  const current: ReportedTunnel[] = [];
  const acks: Promise<unknown>[] = [];
  const reporting = {
    latenciesMs,
    /** The phase of the next reports; undefined if they are not measured. */
    phase: undefined as Phase | undefined,
    async end(): Promise<void> {
      stop();
      await Promise.all(acks);
      await poll(TIMEOUT_MS, () => (pending.size === 0 ? true : undefined));
    },
  };
  const stop = runAtInterval(REPORT_INTERVAL_MS / NEIGHBOURS, (index) => {
    const [tunnel] = reportedTunnels(NEIGHBOURS_SERIAL + index, 1);
    const neighbourIndex = index % NEIGHBOURS;
    const reporter = neighbours[neighbourIndex];
    if (tunnel === undefined || reporter === undefined) return;
    const id = { cluster: FLEET_DEFAULTS.reporterCluster, id: `neighbour-${neighbourIndex}` };
    const objectName = NAMES.tunnelObjectName(id, { ...tunnel, createdAt: undefined });
    pending.set(objectName, { sentMs: machineMs(), phase: reporting.phase });
    current.push(tunnel);
    const removed = current.length > TUNNEL_LIFETIME_REPORTS * NEIGHBOURS ? current.shift() : undefined;
    const ack = reporter.send({ added: [tunnel], removedNames: removed === undefined ? [] : [removed.name] });
    // Awaited at the end; a failure until then must not be an unhandled rejection.
    ack.catch(() => undefined);
    acks.push(ack);
  });
  return reporting;
}

/** Sends reports of a noisy reporter. Returns a function that stops it. */
async function startNoisyReports({ grpcAddress }: Operator, id: string): Promise<() => void> {
  const reporter = await openRawReporter(grpcAddress, id);
  await reporter.send({ fullPush: true });
  let last: ReportedTunnel[] = [];
  const stop = runAtInterval(REPORT_INTERVAL_MS / RATE_FACTOR, (index) => {
    const [permitted, denied] = reportedTunnels(NOISY_SERIAL + 2 * index, 2);
    if (permitted === undefined || denied === undefined) return;
    // One tunnel of its tenant, which the next report removes, and one that the policy denies.
    const added = [{ ...permitted, tenantID: NOISY_TENANT }, denied];
    reporter.send({ added, removedNames: last.map(({ name }) => name) }).catch(() => undefined);
    last = added;
  });
  return () => {
    stop();
    reporter.close();
  };
}

/** Calls `act` once per interval, and catches up after a delay. Returns a function that stops it. */
function runAtInterval(intervalMs: number, act: (index: number) => void): () => void {
  const startedMs = machineMs();
  let index = 0;
  const timer = setInterval(() => {
    for (; startedMs + index * intervalMs <= machineMs(); index += 1) act(index);
  }, intervalMs);
  return () => clearInterval(timer);
}
