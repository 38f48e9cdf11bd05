/** One reporter at 100 times the rate of the others, which are not to notice: report → row of the others, p99. */
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
import { API, openBenchCluster, type Access, type BenchCluster } from './cluster.ts';

/** Each sends one report a second: one tunnel more, one less. */
const NEIGHBOURS = 20;
const REPORT_INTERVAL_MS = 1000;
const RATE_FACTOR = 100;
/** What is gone before it was written has no row, and is none to wait for. */
const TUNNEL_LIFETIME_REPORTS = 10;
/** Each other's report of that kind is a row, and soon none; as many are not allowed. */
const NOISY_TENANT = 'hostile';
const LIMITED_RATE = 10;
/**
 * What the others are looked at beside; also the ids of the two that are hostile. `bare`: as many writes as the hostile one
 * brings about, past the operator, so that what the API server itself costs the others is known. In turns, so that a
 * machine that gets slower or faster meanwhile does so for all.
 */
const PHASES = ['calm', 'hostile', 'hostile-held', 'bare'] as const;
const ROUNDS = 6;
const WARM_UP_MS = 3000;
const TIMEOUT_MS = 120_000;
/** Rows of the hostile ones stay as they are between two phases. */
const FLAGS = ['--unknown-after', '10m', '--expire-after', '20m'];
/** Serials far apart, so that no two tunnels meet. */
const NOISY_SERIAL = 30_000_000;
const NEIGHBOURS_SERIAL = 40_000_000;
const BASELINE_SERIAL = 50_000_000;

type Phase = (typeof PHASES)[number];

interface Fixture {
  readonly operator: Operator;
  readonly watch: ObjectWatch;
  readonly neighbours: readonly RawReporter[];
  /** Writes into another namespace. */
  readonly baselineLoop: BaselineLoop;
  /** One that was never made before. */
  readonly nextBaselineObject: () => BaselineObject;
}

export const noisyNeighbour = defineScenario<Fixture>(
  async (context, cleanup) => {
    context.progress('starting');
    const cluster = cleanup.use(await openBenchCluster({ audit: false }));
    const access = await cluster.access('mirror');
    await createPolicy(cluster, access, 'others', { reporters: { ids: ['other-*'] }, tenants: ['*'] });
    const rule = { reporters: { ids: ['hostile'] }, tenants: [NOISY_TENANT] };
    await createPolicy(cluster, access, 'hostile', rule);
    await createPolicy(cluster, access, 'hostile-held', {
      ...rule,
      reporters: { ids: ['hostile-held'] },
      limits: { reportsPerSecond: LIMITED_RATE },
    });
    const operator = cleanup.use(await startOperator({ access, flags: FLAGS }));
    await operator.ready();
    const watch = cleanup.use(await openObjectWatch(cluster, access.namespace));
    const neighbours: RawReporter[] = [];
    for (let i = 0; i < NEIGHBOURS; i += 1) {
      const reporter = await openRawReporter(operator.grpcAddress, `other-${i}`);
      cleanup.defer(() => reporter.close());
      await reporter.send({ fullPush: true });
      neighbours.push(reporter);
    }
    const bareLoop = cleanup.use(await openBaselineLoop(cluster, await cluster.access('bare')));
    let made = 0;
    const nextBaselineObject = (): BaselineObject => {
      const [object] = baselineObjects(BASELINE_SERIAL + made, 1);
      made += 1;
      if (object === undefined) throw new Error('no row was made');
      return object;
    };
    return { operator, watch, neighbours, baselineLoop: bareLoop, nextBaselineObject };
  },
  [
    {
      name: 'hostile',
      description: `${NEIGHBOURS} reporters beside one at ${RATE_FACTOR} times their rate: their report → row, p99, over a calm run`,
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
      // What is left of it is nothing that the next phase is to be judged by.
      await poll(TIMEOUT_MS, async () =>
        (await operator.metric('workqueue_depth')) < NEIGHBOURS ? true : undefined,
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
      name: `others beside ${what}, p99 over calm`,
      unit: '',
      value: p99(phase) / p99('calm'),
      target: { atMost: 2 },
    },
    { name: `others beside ${what}, p99`, unit: 'ms', value: p99(phase) },
  ];
  return [
    ...phaseMetrics('a hostile reporter', 'hostile'),
    ...phaseMetrics(`one held to ${LIMITED_RATE} reports/s`, 'hostile-held'),
    {
      name: 'others beside as many writes of a bare loop, p99 over calm',
      unit: '',
      value: p99('bare') / p99('calm'),
    },
    { name: 'others in a calm run, p99', unit: 'ms', value: p99('calm') },
  ];
}

/** Begins what the others are to be looked at beside; gives what ends it. */
async function startPhase(fixture: Fixture, phase: Phase): Promise<(() => void) | undefined> {
  if (phase === 'calm') return undefined;
  if (phase === 'bare') return startNoisyWrites(fixture);
  return await startNoisyReports(fixture.operator, phase);
}

/** Writes what a hostile reporter brings about: a row made, and the one before it deleted, at its rate. */
function startNoisyWrites({ baselineLoop, nextBaselineObject }: Fixture): () => void {
  let last: Promise<BaselineObject> | undefined;
  return runAtInterval(REPORT_INTERVAL_MS / RATE_FACTOR, () => {
    const object = nextBaselineObject();
    const before = last;
    last = baselineLoop.create([object]).then(() => object);
    // The one that fails is missing from the writes, and the next goes on: the others' rows are what counts here.
    last.catch(() => undefined);
    before?.then((old) => baselineLoop.delete([old])).catch(() => undefined);
  });
}

/** Has the others report, evenly, until it is ended; how long each new tunnel took to be a row on a watch. */
function startNeighbours({ watch, neighbours }: Fixture) {
  const latenciesMs: Record<Phase, number[]> = { calm: [], hostile: [], 'hostile-held': [], bare: [] };
  const waiting = new Map<string, { readonly sentMs: number; readonly phase: Phase | undefined }>();
  watch.onEvent = (type, line, seenMs) => {
    if (type !== 'ADDED') return;
    const { object } = JSON.parse(line) as { object: { metadata: { name: string } } };
    const sent = waiting.get(object.metadata.name);
    waiting.delete(object.metadata.name);
    if (sent?.phase !== undefined) latenciesMs[sent.phase].push(seenMs - sent.sentMs);
  };
  const held: ReportedTunnel[] = [];
  const acks: Promise<unknown>[] = [];
  const reporting = {
    latenciesMs,
    /** What the reports to come are sent beside; undefined: they do not count. */
    phase: undefined as Phase | undefined,
    async end(): Promise<void> {
      stop();
      await Promise.all(acks);
      await poll(TIMEOUT_MS, () => (waiting.size === 0 ? true : undefined));
    },
  };
  const stop = runAtInterval(REPORT_INTERVAL_MS / NEIGHBOURS, (index) => {
    const [tunnel] = reportedTunnels(NEIGHBOURS_SERIAL + index, 1);
    const neighbourIndex = index % NEIGHBOURS;
    const reporter = neighbours[neighbourIndex];
    if (tunnel === undefined || reporter === undefined) return;
    const id = { cluster: FLEET_DEFAULTS.reporterCluster, id: `other-${neighbourIndex}` };
    const objectName = NAMES.tunnelObjectName(id, { ...tunnel, createdAt: undefined });
    waiting.set(objectName, { sentMs: machineMs(), phase: reporting.phase });
    held.push(tunnel);
    const gone = held.length > TUNNEL_LIFETIME_REPORTS * NEIGHBOURS ? held.shift() : undefined;
    const ack = reporter.send({ added: [tunnel], removedNames: gone === undefined ? [] : [gone.name] });
    // Awaited only at the end; until then a failure is nobody's.
    ack.catch(() => undefined);
    acks.push(ack);
  });
  return reporting;
}

/** Has a reporter report at its rate until what this gives is called. */
async function startNoisyReports({ grpcAddress }: Operator, id: string): Promise<() => void> {
  const reporter = await openRawReporter(grpcAddress, id);
  await reporter.send({ fullPush: true });
  let last: ReportedTunnel[] = [];
  const stop = runAtInterval(REPORT_INTERVAL_MS / RATE_FACTOR, (index) => {
    const [mine, theirs] = reportedTunnels(NOISY_SERIAL + 2 * index, 2);
    if (mine === undefined || theirs === undefined) return;
    // One of its own, which goes again, and one that is not its own.
    const added = [{ ...mine, tenantID: NOISY_TENANT }, theirs];
    reporter.send({ added, removedNames: last.map(({ name }) => name) }).catch(() => undefined);
    last = added;
  });
  return () => {
    stop();
    reporter.close();
  };
}

/** Calls something every so often, as many times as the time that has passed asks for; gives what ends it. */
function runAtInterval(intervalMs: number, act: (index: number) => void): () => void {
  const startedMs = machineMs();
  let index = 0;
  const timer = setInterval(() => {
    for (; startedMs + index * intervalMs <= machineMs(); index += 1) act(index);
  }, intervalMs);
  return () => clearInterval(timer);
}

async function createPolicy(
  cluster: BenchCluster,
  { namespace }: Access,
  name: string,
  rule: object,
): Promise<void> {
  const { status, body } = await cluster.request('POST', policiesPath(namespace), {
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    kind: 'ReverseTunnelPolicy',
    metadata: { name },
    spec: { rules: [{ peers: [{ any: true }], ...rule }] },
  });
  if (status !== 201) throw new Error(`policy ${name}: ${status} ${JSON.stringify(body)}`);
}

function policiesPath(namespace: string): string {
  return `${API}/namespaces/${namespace}/reversetunnelpolicies`;
}
