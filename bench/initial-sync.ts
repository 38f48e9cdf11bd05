/** 10,000 tunnels are added and removed at once: the throughput of the operator compared to the baseline loop. */
import { setTimeout as delay } from 'node:timers/promises';
import { openBaselineLoop, type BaselineLoop, baselineObjects, type BaselineObject } from './baseline.ts';
import { startChild, type Child } from './child.ts';
import type { Metric } from './metric.ts';
import type { FleetCalls } from './fleet-process.ts';
import { startOperator, type Operator } from './operator.ts';
import { clientPortsOf, cpuMs } from './process-usage.ts';
import { openObjectWatch, type ObjectWatch } from './object-watch.ts';
import { defineScenario, type BenchContext, type Scenario } from './scenario.ts';
import { openBenchCluster } from './cluster.ts';

/** For 10,000 objects; even a busy machine writes 50 per second. */
const TIMEOUT_MS = 200_000;
/** From the last watch event until CPU is read, because the operator is still reading its own watch. */
const SETTLE_MS = 500;
/** The connection pool of the operator: the default of `--write-concurrency`, and 24 for claims, Leases and Events. */
const MAX_CONNECTIONS = 64 + 24;

interface Fixture {
  readonly baseline: BaselineLoop;
  readonly operator: Operator;
  readonly fleet: Child<FleetCalls>;
  readonly watch: ObjectWatch;
  readonly apiPort: number;
}

/** The same number of writes by the operator and by the baseline loop. */
interface Comparison {
  /** Objects per second of the operator, divided by those of the baseline loop. */
  readonly ratio: number;
  /** From the first report sent to the last event on a watch. */
  readonly objectsPerSecond: number;
  readonly baselineObjectsPerSecond: number;
  readonly cpuMsPerObject: number;
  /** Connections to the API server, each with a TLS handshake, that were opened while the operator wrote. */
  readonly connectionsOpened: number;
}

/**
 * Returns a scenario with a new operator that has written nothing yet. The baseline loop writes half of its objects before
 * the operator and half after it, so that a drift of the machine affects both.
 *
 * @param reporters the number of reporters that share the tunnels
 */
export function initialSync(reporters: number): Scenario {
  const name = `initial-sync-${reporters}`;
  return defineScenario<Fixture>(openFixture, [
    {
      name,
      description: `10,000 tunnels of ${reporters === 1 ? '1 reporter' : `${reporters} reporters`} added, then removed: objects/s vs. baseline, CPU per object`,
      measure: (fixture, context) => measure(fixture, context, name, reporters),
    },
  ]);
}

async function openFixture(context: BenchContext, cleanup: AsyncDisposableStack): Promise<Fixture> {
  context.progress('starting');
  const cluster = cleanup.use(await openBenchCluster({ audit: false }));
  const baseline = cleanup.use(await openBaselineLoop(cluster, await cluster.access('baseline')));
  const access = await cluster.access('mirror');
  const watch = cleanup.use(await openObjectWatch(cluster, access.namespace));
  const fleet = cleanup.use(startChild<FleetCalls>(new URL('./fleet-process.ts', import.meta.url)));
  // A short interval, so that removals are reported soon.
  const operator = cleanup.use(await startOperator({ access, flags: ['--report-interval', '1s'] }));
  await operator.ready();
  return { baseline, operator, fleet, watch, apiPort: Number(new URL(cluster.url).port) };
}

async function measure(
  fixture: Fixture,
  context: BenchContext,
  name: string,
  reporters: number,
): Promise<Metric[]> {
  const { baseline, operator, fleet, watch } = fixture;
  const count = context.scale.initialSyncTunnels;
  const objects = baselineObjects(0, count);

  /** Applies a change and returns the machine time at which its first report was sent. */
  async function firstReportSentMs(change: Promise<void>): Promise<number> {
    await change;
    return (await fleet.ask('settled', null)) ?? Number.NaN;
  }

  context.progress('creating objects');
  const created = await compare(
    fixture,
    objects,
    (part) => baseline.create(part),
    async () => {
      const options = { address: operator.grpcAddress, reporters, tunnels: count / reporters };
      return await Promise.all([
        watch.waitForNth('ADDED', count, TIMEOUT_MS),
        firstReportSentMs(fleet.ask('start', options)),
      ]);
    },
  );
  context.progress('deleting objects');
  const removed = await compare(
    fixture,
    objects,
    (part) => baseline.delete(part),
    async () => {
      return await Promise.all([
        watch.waitForNth('DELETED', count, TIMEOUT_MS),
        firstReportSentMs(fleet.ask('clear', null)),
      ]);
    },
  );

  return [...metrics(`${name}: new objects`, created), ...metrics(`${name}: removed objects`, removed)];
}

/**
 * Compares the operator to the baseline loop.
 *
 * @param writeWithOperator makes the operator write the same number of objects; resolves with the machine times of the last
 *   watch event and of the first report
 */
async function compare(
  { operator, apiPort }: Fixture,
  objects: readonly BaselineObject[],
  writeBaseline: (objects: readonly BaselineObject[]) => Promise<number>,
  writeWithOperator: () => Promise<readonly [lastMs: number, sentMs: number]>,
): Promise<Comparison> {
  const half = objects.length / 2;
  let baselineMs = await writeBaseline(objects.slice(0, half));
  await delay(SETTLE_MS);
  const portsBefore = clientPortsOf(apiPort);
  const cpuBeforeMs = cpuMs(operator.pid);
  const [lastMs, sentMs] = await writeWithOperator();
  const opened = [...clientPortsOf(apiPort)].filter((port) => !portsBefore.has(port)).length;
  await delay(SETTLE_MS);
  const usedMs = cpuMs(operator.pid) - cpuBeforeMs;
  baselineMs += await writeBaseline(objects.slice(half));
  await delay(SETTLE_MS);
  const operatorMs = lastMs - sentMs;
  return {
    ratio: baselineMs / operatorMs,
    objectsPerSecond: (objects.length / operatorMs) * 1000,
    baselineObjectsPerSecond: (objects.length / baselineMs) * 1000,
    cpuMsPerObject: usedMs / objects.length,
    connectionsOpened: opened,
  };
}

function metrics(what: string, comparison: Comparison): Metric[] {
  return [
    { name: `${what} vs. baseline`, unit: '', value: comparison.ratio, target: { atLeast: 0.85 } },
    { name: what, unit: 'objects/s', value: comparison.objectsPerSecond },
    { name: `${what}, baseline`, unit: 'objects/s', value: comparison.baselineObjectsPerSecond },
    {
      name: `${what}, operator CPU per object`,
      unit: 'ms',
      value: comparison.cpuMsPerObject,
      target: { atMost: 0.25 },
    },
    {
      name: `${what}, connections opened`,
      unit: '',
      value: comparison.connectionsOpened,
      target: { atMost: MAX_CONNECTIONS },
    },
  ];
}
