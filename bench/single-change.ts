/** One tunnel is added or removed while 50,000 exist: the time from the report to the event on a watch. */
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

/** Reports and baseline requests alternate at 20 each per second, so that disturbances affect both. */
const INTERVAL_MS = 25;
const TIMEOUT_MS = 60_000;
const REPORTER = 'single';
/** Outside the range of the serials of the fleet. */
const BASE_SERIAL = 20_000_000;

/** A request, and the object that it changes. */
interface TimedChange {
  readonly objectName: string;
  readonly send: () => Promise<unknown>;
}

export const singleChange: Measurement<ResidentFixture> = {
  name: 'single',
  description:
    'one tunnel added or removed, 20 per second, 50,000 resident: report → watch vs. baseline request → watch',
  measure,
};

async function measure(fixture: ResidentFixture, context: BenchContext): Promise<Metric[]> {
  const { cluster, access, operator } = fixture;
  await fixture.growTo(context.scale.residentTunnels, context);
  await using cleanup = new AsyncDisposableStack();
  const baselineAccess = await cluster.access('baseline');
  const baseline = cleanup.use(await openBaselineLoop(cluster, baselineAccess));
  const operatorWatch = cleanup.use(await openObjectWatch(cluster, access.namespace));
  const baselineWatch = cleanup.use(await openObjectWatch(cluster, baselineAccess.namespace));
  const reporter = await openRawReporter(operator.grpcAddress, REPORTER);
  cleanup.defer(() => reporter.close());
  await reporter.send({ fullPush: true });

  const id = { cluster: FLEET_DEFAULTS.reporterCluster, id: REPORTER };
  const tunnels = reportedTunnels(BASE_SERIAL, context.scale.singleChanges).map((tunnel) => ({
    tunnel,
    objectName: NAMES.tunnelObjectName(id, { ...tunnel, createdAt: undefined }),
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
      tunnels.map(({ tunnel, objectName }) => ({
        objectName,
        send: () => reporter.send({ added: [tunnel] }),
      })),
      objects.map((object) => ({ objectName: object.name, send: () => baseline.create([object]) })),
    )),
    ...(await runPhase(
      'removed',
      'DELETED',
      tunnels.map(({ tunnel, objectName }) => ({
        objectName,
        send: () => reporter.send({ removedNames: [tunnel.name] }),
      })),
      objects.map((object) => ({ objectName: object.name, send: () => baseline.delete([object]) })),
    )),
  ];
}

/** Measures the time from sending each change to the event of its object. */
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
    send({ objectName, send }: TimedChange): Promise<unknown> {
      sentMs.set(objectName, machineMs());
      const response = send();
      // Awaited at the end; a failure until then must not be an unhandled rejection.
      response.catch(() => undefined);
      return response;
    },
    /** Resolves with all times in ms, ascending, once every event has arrived. */
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
      { name: `${what}, p${percent} vs. baseline`, unit: '', value: ms / baselineMs, target: { atMost } },
      { name: `${what}, p${percent}`, unit: 'ms', value: ms },
      { name: `${what}, p${percent}, baseline`, unit: 'ms', value: baselineMs },
    ];
  });
}
