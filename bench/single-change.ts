/** One tunnel comes or goes while 50,000 stay: from the report to the row on somebody's watch. */
import { setTimeout as delay } from 'node:timers/promises';
import { poll } from '../test/support/operator-process.ts';
import { baselineObjects, NAMES, openBaselineLoop } from './baseline.ts';
import { percentile, type Metric } from './metric.ts';
import { machineMs } from './machine.ts';
import { openRawReporter, reportedTunnels } from './raw-reporter.ts';
import type { ResidentFixture } from './resident.ts';
import { openObjectWatch, type WatchEventType, type ObjectWatch } from './object-watch.ts';
import type { BenchContext, Measurement } from './scenario.ts';
import { FLEET_DEFAULTS } from '../src/simulate/fleet.ts';

/** 20 of each a second: reports and bare requests take turns, so that what disturbs the one disturbs the other. */
const INTERVAL_MS = 25;
const TIMEOUT_MS = 60_000;
const REPORTER = 'single';
/** Serials far from the fleet's. */
const BASE_SERIAL = 20_000_000;

/** Something that is sent, and the row in which it will show. */
interface TimedChange {
  readonly row: string;
  readonly send: () => Promise<unknown>;
}

export const singleChange: Measurement<ResidentFixture> = {
  name: 'single',
  description:
    'one tunnel added or removed, 20 a second, 50,000 resident: report → watch over bare request → watch',
  measure,
};

async function measure(fixture: ResidentFixture, context: BenchContext): Promise<Metric[]> {
  const { world, access, operator } = fixture;
  await fixture.growTo(context.scale.residentTunnels, context);
  await using cleanup = new AsyncDisposableStack();
  const baselineAccess = await world.access('bare');
  const baseline = cleanup.use(await openBaselineLoop(world, baselineAccess));
  const operatorWatch = cleanup.use(await openObjectWatch(world, access.namespace));
  const baselineWatch = cleanup.use(await openObjectWatch(world, baselineAccess.namespace));
  const reporter = await openRawReporter(operator.grpcAddress, REPORTER);
  cleanup.defer(() => reporter.close());
  await reporter.send({ fullPush: true });

  const id = { cluster: FLEET_DEFAULTS.reporterCluster, id: REPORTER };
  const tunnels = reportedTunnels(BASE_SERIAL, context.scale.singleChanges).map((tunnel) => ({
    tunnel,
    row: NAMES.tunnelObjectName(id, { ...tunnel, createdAt: undefined }),
  }));
  const objects = baselineObjects(BASE_SERIAL, context.scale.singleChanges);

  async function runPhase(
    what: string,
    type: WatchEventType,
    reports: TimedChange[],
    requests: TimedChange[],
  ): Promise<Metric[]> {
    context.progress(`${reports.length} ${what}, one by one`);
    const viaOperator = trackLatencies(operatorWatch, type);
    const direct = trackLatencies(baselineWatch, type);
    const startedMs = machineMs();
    const responses: Promise<unknown>[] = [];
    for (const [index, report] of reports.entries()) {
      const request = requests[index];
      await sleepUntil(startedMs + 2 * index * INTERVAL_MS);
      responses.push(viaOperator.send(report));
      await sleepUntil(startedMs + (2 * index + 1) * INTERVAL_MS);
      if (request !== undefined) responses.push(direct.send(request));
    }
    await Promise.all(responses);
    return comparisonMetrics(`one tunnel ${what}`, await viaOperator.all(), await direct.all());
  }

  return [
    ...(await runPhase(
      'added',
      'ADDED',
      tunnels.map(({ tunnel, row }) => ({ row, send: () => reporter.send({ added: [tunnel] }) })),
      objects.map((row) => ({ row: row.name, send: () => baseline.create([row]) })),
    )),
    ...(await runPhase(
      'removed',
      'DELETED',
      tunnels.map(({ tunnel, row }) => ({ row, send: () => reporter.send({ removedNames: [tunnel.name] }) })),
      objects.map((row) => ({ row: row.name, send: () => baseline.delete([row]) })),
    )),
  ];
}

/** Notes when each change was sent and when its row was seen. */
function trackLatencies(watch: ObjectWatch, expectedType: WatchEventType) {
  const sentMs = new Map<string, number>();
  const seenAfterMs: number[] = [];
  watch.onEvent = (type, line, seenMs) => {
    if (type !== expectedType) return;
    const { object } = JSON.parse(line) as { object: { metadata: { name: string } } };
    const since = sentMs.get(object.metadata.name);
    if (since === undefined) return;
    sentMs.delete(object.metadata.name);
    seenAfterMs.push(seenMs - since);
  };
  return {
    send({ row, send }: TimedChange): Promise<unknown> {
      sentMs.set(row, machineMs());
      const response = send();
      // Awaited only at the end; until then a failure is nobody's.
      response.catch(() => undefined);
      return response;
    },
    /** All of them in ms, ascending, once every row was seen. */
    all: () =>
      poll(TIMEOUT_MS, () => (sentMs.size === 0 ? seenAfterMs.toSorted((a, b) => a - b) : undefined)),
  };
}

async function sleepUntil(atMs: number): Promise<void> {
  const leftMs = atMs - machineMs();
  if (leftMs > 0) await delay(leftMs);
}

function comparisonMetrics(
  what: string,
  viaOperator: readonly number[],
  direct: readonly number[],
): Metric[] {
  return [
    { percent: 50, atMost: 1.15 },
    { percent: 99, atMost: 1.3 },
  ].flatMap(({ percent, atMost }) => {
    const [ms, baselineMs] = [percentile(viaOperator, percent), percentile(direct, percent)];
    return [
      { name: `${what}, p${percent} over bare`, unit: '', value: ms / baselineMs, target: { atMost } },
      { name: `${what}, p${percent}`, unit: 'ms', value: ms },
      { name: `${what}, p${percent}, bare`, unit: 'ms', value: baselineMs },
    ];
  });
}
