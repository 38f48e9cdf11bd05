/**
 * `npm run bench -- --slices`: a fleet whose tunnels are mirrored as slices, by default 1,000,000, and a tenth of it in
 * both forms next to each other. docs/benchmark.md describes each metric.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { requestJson } from '../control-plane/https-json.ts';
import { countTunnelWrites, writesBetween, type TunnelWriteCounts } from '../test/support/audit-log.ts';
import { poll } from '../test/support/operator-process.ts';
import { startChild, type Child } from './child.ts';
import { openBenchCluster, type Access, type BenchCluster } from './cluster.ts';
import { machineMs } from './machine.ts';
import { percentile, type Metric } from './metric.ts';
import { openObjectWatch } from './object-watch.ts';
import { startOperator, type Operator } from './operator.ts';
import { cpuMs, memoryMiB } from './process-usage.ts';
import type { SliceFleetCalls } from './slice-fleet-process.ts';
import { openSliceWatch, type SliceWatch } from './slice-watch.ts';

const REPORTERS = 100;
/** The part of the tunnels that is measured in both forms. */
const COMPARED_PART = 10;
const MAX_COMPARED = 100_000;
const CHURN_CHANGES_PER_SECOND = 1000;
const CHURN_SECONDS = 60;
/** From the last event to a measurement of memory, so that garbage is collected. */
const SETTLE_MS = 10_000;
/** Wait for unexpected writes. */
const QUIET_MS = 10_000;
const TIMEOUT_MS = 30 * 60_000;
/** The default of 2 GiB is too small for the history of a churn, which is compacted every 5 minutes. */
const ETCD_FLAGS = ['--quota-backend-bytes=8589934592'];
const MIB = 2 ** 20;

/** The targets for 1,000,000 tunnels. */
export const SLICE_TUNNELS = 1_000_000;

interface SliceBenchOptions {
  /** A multiple of 1,000. */
  readonly tunnels: number;
  readonly progress: (activity: string) => void;
}

/** Measures a fleet of `tunnels` tunnels of 100 reporters. Takes about 20 minutes for 1,000,000 on 2 cores. */
export async function measureSlices({ tunnels, progress }: SliceBenchOptions): Promise<Metric[]> {
  const compared = Math.min(MAX_COMPARED, Math.ceil(tunnels / COMPARED_PART / REPORTERS) * REPORTERS);
  const asObjects = await syncOnce('objects', compared, progress);
  const asSlices = await syncOnce('slices', compared, progress);
  return [
    ...syncMetrics(compared, 'objects', asObjects),
    ...syncMetrics(compared, 'slices', asSlices),
    ratio(`${compared} tunnels, objects ÷ slices: seconds`, asObjects.seconds / asSlices.seconds, 20),
    ratio(
      `${compared} tunnels, objects ÷ slices: growth of the API server's memory`,
      asObjects.apiserverGrowthMiB / asSlices.apiserverGrowthMiB,
      20,
    ),
    ratio(`${compared} tunnels, objects ÷ slices: writes`, asObjects.writes / asSlices.writes),
    ratio(
      `${compared} tunnels, objects ÷ slices: size of etcd`,
      asObjects.etcdGrowthMiB / asSlices.etcdGrowthMiB,
    ),
    ...(await measureLargeFleet(tunnels, progress)),
  ];
}

function ratio(name: string, value: number, atLeast?: number): Metric {
  return { name, unit: '', value, ...(atLeast === undefined ? {} : { target: { atLeast } }) };
}

/** The initial sync of a fleet. */
interface Sync {
  /** From the first full push sent until the last tunnel was visible on a watch. */
  readonly seconds: number;
  readonly ackedSeconds: number;
  readonly writes: number;
  readonly etcdGrowthMiB: number;
  readonly apiserverMiB: number;
  readonly apiserverGrowthMiB: number;
  readonly operatorMiB: number;
  readonly operatorPeakMiB: number;
  readonly operatorCpuSeconds: number;
}

function syncMetrics(tunnels: number, form: string, sync: Sync): Metric[] {
  const name = `${tunnels} tunnels in ${form}`;
  const isTarget = form === 'slices' && tunnels === SLICE_TUNNELS;
  return [
    { name: `${name}: all visible`, unit: 's', value: sync.seconds },
    { name: `${name}: all full pushes ACKed`, unit: 's', value: sync.ackedSeconds },
    { name: `${name}: writes`, unit: '', value: sync.writes },
    { name: `${name}: growth of etcd`, unit: 'MiB', value: sync.etcdGrowthMiB },
    { name: `${name}: RSS of the API server`, unit: 'MiB', value: sync.apiserverMiB },
    { name: `${name}: growth of the API server's RSS`, unit: 'MiB', value: sync.apiserverGrowthMiB },
    {
      name: `${name}: RSS of the operator`,
      unit: 'MiB',
      value: sync.operatorMiB,
      ...(isTarget ? { target: { atMost: 1024 } } : {}),
    },
    { name: `${name}: RSS of the operator, maximum`, unit: 'MiB', value: sync.operatorPeakMiB },
    { name: `${name}: CPU of the operator`, unit: 's', value: sync.operatorCpuSeconds },
  ];
}

/** Starts a control plane and an operator, and measures the initial sync of a fleet in one form. */
async function syncOnce(
  form: 'objects' | 'slices',
  tunnels: number,
  progress: (activity: string) => void,
): Promise<Sync> {
  await using cleanup = new AsyncDisposableStack();
  progress(`${tunnels} tunnels in ${form}: starting`);
  const cluster = cleanup.use(await openBenchCluster({ etcdFlags: ETCD_FLAGS }));
  const access = await cluster.access('mirror');
  const operator = cleanup.use(await startOperator({ access, flags: ['--representation', form] }));
  await operator.ready();
  const fleet = cleanup.use(startFleet());
  if (form === 'slices') {
    const watch = cleanup.use(await openSliceWatch(cluster, access.namespace));
    return await syncSlices({ cluster, operator, fleet, watch }, tunnels, progress);
  }
  const watch = cleanup.use(await openObjectWatch(cluster, access.namespace));
  let events = 0;
  watch.onEvent = () => {
    events += 1;
    if (events % 1000 === 0) progress(`${events} of ${tunnels} objects`);
  };
  return await measureSync({ cluster, operator, fleet }, tunnels, async () => ({
    visibleMs: await watch.waitForNth('ADDED', tunnels, TIMEOUT_MS),
    writes: events,
  }));
}

function startFleet(): Child<SliceFleetCalls> {
  return startChild<SliceFleetCalls>(new URL('./slice-fleet-process.ts', import.meta.url));
}

interface Fixture {
  readonly cluster: BenchCluster;
  readonly operator: Operator;
  readonly fleet: Child<SliceFleetCalls>;
}

async function syncSlices(
  fixture: Fixture & { readonly watch: SliceWatch },
  tunnels: number,
  progress: (activity: string) => void,
): Promise<Sync> {
  return await measureSync(fixture, tunnels, async () => ({
    visibleMs: await fixture.watch.waitForTunnels(tunnels, TIMEOUT_MS, (visible) =>
      progress(`${visible} of ${tunnels} tunnels in ${fixture.watch.slices} slices`),
    ),
    writes: fixture.watch.events,
  }));
}

/** @param waitUntilVisible resolves when all tunnels are visible, with the machine time and the number of writes */
async function measureSync(
  { cluster, operator, fleet }: Fixture,
  tunnels: number,
  waitUntilVisible: () => Promise<{ readonly visibleMs: number; readonly writes: number }>,
): Promise<Sync> {
  const { apiserverPid } = cluster;
  const apiserverBeforeMiB = memoryMiB(apiserverPid).resident;
  const etcdBeforeMiB = await etcdMiB(cluster);
  const cpuBeforeMs = cpuMs(operator.pid);
  const [{ visibleMs, writes }, { firstSentMs, lastAckedMs }] = await Promise.all([
    waitUntilVisible(),
    fleet.ask('start', {
      address: operator.grpcAddress,
      reporters: REPORTERS,
      tunnels: tunnels / REPORTERS,
    }),
  ]);
  const usedMs = cpuMs(operator.pid) - cpuBeforeMs;
  await delay(SETTLE_MS);
  const { resident, peak } = memoryMiB(operator.pid);
  const apiserverMiB = memoryMiB(apiserverPid).resident;
  return {
    seconds: (visibleMs - firstSentMs) / 1000,
    ackedSeconds: (lastAckedMs - firstSentMs) / 1000,
    writes,
    etcdGrowthMiB: (await etcdMiB(cluster)) - etcdBeforeMiB,
    apiserverMiB,
    apiserverGrowthMiB: apiserverMiB - apiserverBeforeMiB,
    operatorMiB: resident,
    operatorPeakMiB: peak,
    operatorCpuSeconds: usedMs / 1000,
  };
}

/** Returns the size of etcd's database that is in use, including the history since the last compaction. */
async function etcdMiB({ etcdUrl }: BenchCluster): Promise<number> {
  const { status, body } = await requestJson({
    method: 'POST',
    url: `${etcdUrl}/v3/maintenance/status`,
    body: {},
    timeoutMs: 10_000,
  });
  if (status !== 200) throw new Error(`size of etcd: ${status} ${JSON.stringify(body)}`);
  return Number((body as { dbSizeInUse: string }).dbSizeInUse) / MIB;
}

/** Measures the large fleet: initial sync, churn, a restart, and a killed replica. */
async function measureLargeFleet(tunnels: number, progress: (activity: string) => void): Promise<Metric[]> {
  await using cleanup = new AsyncDisposableStack();
  progress(`${tunnels} tunnels in slices: starting`);
  const cluster = cleanup.use(await openBenchCluster({ audit: true, etcdFlags: ETCD_FLAGS }));
  const access = await cluster.access('mirror');
  const flags = ['--representation', 'slices'];
  const first = await startOperator({ access, flags });
  cleanup.use(first);
  await first.ready();
  const fleet = cleanup.use(startFleet());
  const metrics: Metric[] = [];
  {
    await using watch = await openSliceWatch(cluster, access.namespace);
    const fixture = { cluster, operator: first, fleet, watch };
    metrics.push(...syncMetrics(tunnels, 'slices', await syncSlices(fixture, tunnels, progress)));
    metrics.push(...(await measureChurn(fixture, tunnels, progress)));
  }
  progress('restarting');
  await first.stop();
  const second = cleanup.use(await startOperator({ access, flags }));
  metrics.push(...(await measureRestart({ cluster, operator: second, fleet }, access, tunnels, progress)));
  const third = cleanup.use(await startOperator({ access, flags }));
  metrics.push(
    ...(await measureKilledReplica({ cluster, operator: third, fleet }, second, access, tunnels, progress)),
  );
  return metrics;
}

/** Replaces tunnels at random, with a constant number of tunnels. */
async function measureChurn(
  { cluster, operator, fleet, watch }: Fixture & { readonly watch: SliceWatch },
  tunnels: number,
  progress: (activity: string) => void,
): Promise<Metric[]> {
  progress(`${CHURN_CHANGES_PER_SECOND} changes per second for ${CHURN_SECONDS} s`);
  const firstSeen = watch.trackNewTunnels();
  const [eventsBefore, operatorBeforeMs, apiserverBeforeMs] = [
    watch.events,
    cpuMs(operator.pid),
    cpuMs(cluster.apiserverPid),
  ];
  const startedMs = machineMs();
  const { added, changes } = await fleet.ask('churn', {
    changesPerSecond: CHURN_CHANGES_PER_SECOND,
    seconds: CHURN_SECONDS,
  });
  const elapsedMs = machineMs() - startedMs;
  const writes = watch.events - eventsBefore;
  const operatorMs = cpuMs(operator.pid) - operatorBeforeMs;
  const apiserverMs = cpuMs(cluster.apiserverPid) - apiserverBeforeMs;
  progress('waiting until the last change is visible');
  // A tunnel that was replaced before it was visible never is.
  await delay(SETTLE_MS);
  await watch.waitForTunnels(tunnels, TIMEOUT_MS, () => {});
  const lags = added
    .map(([name, sentMs]) => (firstSeen.get(name) ?? Number.NaN) - sentMs)
    .filter((lag) => !Number.isNaN(lag))
    .toSorted((a, b) => a - b);
  const name = `churn over ${tunnels} tunnels`;
  const { resident } = memoryMiB(operator.pid);
  return [
    { name: `${name}: changes`, unit: '/s', value: (changes / elapsedMs) * 1000 },
    { name: `${name}: writes`, unit: '/s', value: (writes / elapsedMs) * 1000 },
    { name: `${name}: report to watch, p50`, unit: 'ms', value: percentile(lags, 50) },
    { name: `${name}: report to watch, p99`, unit: 'ms', value: percentile(lags, 99) },
    { name: `${name}: CPU of the API server`, unit: '% of a core', value: (apiserverMs / elapsedMs) * 100 },
    { name: `${name}: CPU of the operator`, unit: '% of a core', value: (operatorMs / elapsedMs) * 100 },
    { name: `${name}: RSS of the operator`, unit: 'MiB', value: resident },
    { name: `${name}: RSS of the API server`, unit: 'MiB', value: memoryMiB(cluster.apiserverPid).resident },
  ];
}

/** Reconnects all reporters to an operator that has just started. */
async function measureRestart(
  { cluster, operator, fleet }: Fixture,
  access: Access,
  tunnels: number,
  progress: (activity: string) => void,
): Promise<Metric[]> {
  const before = await countWrites(cluster, access);
  const readyMs = await operator.ready();
  progress('reconnecting all reporters');
  const { lastAckedMs, firstSentMs } = await fleet.ask('reconnect', { address: operator.grpcAddress });
  await waitUntilSynced(operator, progress);
  await delay(QUIET_MS);
  const name = `restart with ${tunnels} tunnels`;
  const { resident, peak } = memoryMiB(operator.pid);
  return [
    { name: `${name}: ready`, unit: 's', value: (readyMs - operator.startedMs) / 1000 },
    { name: `${name}: all full pushes ACKed`, unit: 's', value: (lastAckedMs - firstSentMs) / 1000 },
    {
      name: `${name}: slice writes`,
      unit: '',
      value: await writesSince(before, cluster, access),
      target: { exactly: 0 },
    },
    { name: `${name}: RSS of the operator`, unit: 'MiB', value: resident },
    { name: `${name}: RSS of the operator, maximum`, unit: 'MiB', value: peak },
  ];
}

/** Kills the replica that owns all reporters; they reconnect to the other one. */
async function measureKilledReplica(
  { cluster, operator, fleet }: Fixture,
  killed: Operator,
  access: Access,
  tunnels: number,
  progress: (activity: string) => void,
): Promise<Metric[]> {
  await operator.ready();
  const before = await countWrites(cluster, access);
  progress('killing a replica');
  const killedMs = machineMs();
  process.kill(killed.pid, 'SIGKILL');
  const { lastAckedMs } = await fleet.ask('reconnect', { address: operator.grpcAddress });
  await waitUntilSynced(operator, progress);
  const syncedMs = machineMs();
  await delay(QUIET_MS);
  const name = `killed replica with ${tunnels} tunnels`;
  return [
    {
      name: `${name}: all full pushes ACKed by the other one`,
      unit: 's',
      value: (lastAckedMs - killedMs) / 1000,
    },
    { name: `${name}: all reporters in sync`, unit: 's', value: (syncedMs - killedMs) / 1000 },
    {
      name: `${name}: slice writes`,
      unit: '',
      value: await writesSince(before, cluster, access),
      target: { exactly: 0 },
    },
  ];
}

/** Waits until the operator owns all reporters and has nothing to write. */
async function waitUntilSynced(operator: Operator, progress: (activity: string) => void): Promise<void> {
  await poll(TIMEOUT_MS, async () => {
    const [connected, pending] = await Promise.all([
      operator.metric('reverse_tunnel_reporters_connected'),
      operator.metric('reverse_tunnel_oldest_pending_write_seconds'),
    ]);
    progress(`${connected} of ${REPORTERS} reporters connected`);
    return connected === REPORTERS && pending === 0 ? true : undefined;
  });
}

async function countWrites(
  { auditLogPath }: BenchCluster,
  { namespace }: Access,
): Promise<TunnelWriteCounts> {
  return await countTunnelWrites(auditLogPath ?? '', namespace, 'reversetunnelslices');
}

async function writesSince(
  before: TunnelWriteCounts,
  cluster: BenchCluster,
  access: Access,
): Promise<number> {
  const writes = writesBetween(before, await countWrites(cluster, access));
  return writes.create + writes.patch + writes.delete + writes.status + writes.failed;
}
