/** 10,000 tunnels at once, then none: how near the operator comes to what the API server takes. */
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

/** For 10,000 rows; a machine that is busy with something else still writes 50 a second. */
const TIMEOUT_MS = 200_000;
/** From the last row seen to the look at CPU: the operator still reads its own watch. Also lets the machine calm down. */
const SETTLE_MS = 500;
/** The operator's pool for calls: what `--write-concurrency` is by default, and 24 for claims, Leases and events. */
const MAX_CONNECTIONS = 64 + 24;

interface Fixture {
  readonly baseline: BaselineLoop;
  readonly operator: Operator;
  readonly fleet: Child<FleetCalls>;
  readonly watch: ObjectWatch;
  readonly apiPort: number;
}

/** One flood of rows by the operator, and the same by the bare loop. */
interface Comparison {
  /** Rows a second over the bare loop's. */
  readonly ratio: number;
  /** From the first report sent to the last row seen on a watch. */
  readonly objectsPerSecond: number;
  readonly baselineObjectsPerSecond: number;
  readonly cpuMsPerObject: number;
  /** Connections to the API server, each a TLS handshake, that were opened while the operator wrote. */
  readonly connectionsOpened: number;
}

/**
 * A fresh operator that has written nothing yet. Half of the bare loop's rows are written before the operator's and half
 * after, so that a machine that gets slower or faster meanwhile does so for both.
 *
 * @param reporters that hold the tunnels between them
 */
export function initialSync(reporters: number): Scenario {
  const name = `cold-${reporters}`;
  return defineScenario<Fixture>(openFixture, [
    {
      name,
      description: `10,000 tunnels of ${reporters === 1 ? '1 reporter' : `${reporters} reporters`} come, then go: rows a second over a bare loop, CPU a row`,
      measure: (fixture, context) => measure(fixture, context, name, reporters),
    },
  ]);
}

async function openFixture(context: BenchContext, cleanup: AsyncDisposableStack): Promise<Fixture> {
  context.progress('starting');
  const cluster = cleanup.use(await openBenchCluster({ audit: false }));
  const bare = cleanup.use(await openBaselineLoop(cluster, await cluster.access('bare')));
  const access = await cluster.access('mirror');
  const watch = cleanup.use(await openObjectWatch(cluster, access.namespace));
  const fleet = cleanup.use(startChild<FleetCalls>(new URL('./fleet-process.ts', import.meta.url)));
  // A second between reports, so that removals do not wait long to be reported.
  const operator = cleanup.use(await startOperator({ access, flags: ['--report-interval', '1s'] }));
  await operator.ready();
  return { baseline: bare, operator, fleet, watch, apiPort: Number(new URL(cluster.url).port) };
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

  /** When the first report of a change was sent. */
  async function firstReportSentMs(change: Promise<void>): Promise<number> {
    await change;
    return (await fleet.ask('settled', null)) ?? Number.NaN;
  }

  context.progress('rows are created');
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
  context.progress('rows are deleted');
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

  return [...metrics(`${name}: new rows`, created), ...metrics(`${name}: removed rows`, removed)];
}

/** @param writeWithOperator has the operator write as many rows; when the last row was seen, and when the first report was sent */
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
    { name: `${what} over bare`, unit: '', value: comparison.ratio, target: { atLeast: 0.85 } },
    { name: what, unit: 'rows/s', value: comparison.objectsPerSecond },
    { name: `${what}, bare`, unit: 'rows/s', value: comparison.baselineObjectsPerSecond },
    {
      name: `${what}, operator CPU a row`,
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
