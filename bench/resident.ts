/**
 * Measurements with 500 reporters that stay connected: memory, idle CPU and a restart. They share one operator, because
 * creating 50,000 objects takes longer than measuring.
 */
import { poll } from '../test/support/operator-process.ts';
import { startChild, type Child } from './child.ts';
import type { FleetCalls } from './fleet-process.ts';
import { startOperator, type Operator } from './operator.ts';
import type { BenchContext, Measurement } from './scenario.ts';
import { openBenchCluster, type Access, type BenchCluster } from './cluster.ts';
import { setTimeout as delay } from 'node:timers/promises';
import type { Metric, Target } from './metric.ts';
import { memoryMiB, cpuMs } from './process-usage.ts';
import { countTunnelWrites, writesBetween } from '../test/support/audit-log.ts';
import { baselineList } from './baseline.ts';
import { machineMs } from './machine.ts';

const TIMEOUT_MS = 20 * 60_000;
const COUNT_INTERVAL_MS = 500;
/** Reporters start one after another over a report interval, because real Envoys are not synchronized. */
const START_SPREAD_MS = 5000;

export interface ResidentFixture {
  readonly cluster: BenchCluster;
  readonly access: Access;
  readonly fleet: Child<FleetCalls>;
  /** Replaced by a restart. Uses the default report interval of 5 s. */
  operator: Operator;
  /** Grows every reporter to `tunnelsEach` tunnels, and waits for all objects. Resolves with their number. Never shrinks. */
  growTo(tunnelsEach: number, context: BenchContext): Promise<number>;
}

export async function openResidentFixture(
  context: BenchContext,
  cleanup: AsyncDisposableStack,
): Promise<ResidentFixture> {
  context.progress('starting');
  const reporters = context.scale.residentReporters;
  const cluster = cleanup.use(await openBenchCluster({ audit: true }));
  const access = await cluster.access('mirror');
  const fleet = cleanup.use(startChild<FleetCalls>(new URL('./fleet-process.ts', import.meta.url)));
  let currentTunnelsEach: number | undefined;
  const fixture: ResidentFixture = {
    cluster,
    access,
    fleet,
    operator: await startOperator({ access }),
    async growTo(tunnelsEach, { progress }) {
      const objects = reporters * tunnelsEach;
      if (currentTunnelsEach === undefined) {
        await fleet.ask('start', {
          address: fixture.operator.grpcAddress,
          reporters,
          tunnels: tunnelsEach,
          rampUpMs: START_SPREAD_MS,
          // Short, so that a restart is not dominated by Envoy's retry interval of 5 s.
          connectRetryIntervalMs: 500,
        });
      } else if (tunnelsEach > currentTunnelsEach) {
        await fleet.ask('grow', tunnelsEach - currentTunnelsEach);
      }
      currentTunnelsEach = tunnelsEach;
      await fleet.ask('settled', null);
      await waitForObjectCount(cluster, access.namespace, objects, progress);
      return objects;
    },
  };
  cleanup.defer(() => fixture.operator[Symbol.asyncDispose]());
  await fixture.operator.ready();
  return fixture;
}

/** Waits for exactly `objects` ReverseTunnels in a namespace, and reports the progress. */
export async function waitForObjectCount(
  cluster: BenchCluster,
  namespace: string,
  objects: number,
  progress: (activity: string) => void,
): Promise<void> {
  let countedMs = Number.NEGATIVE_INFINITY;
  await poll(TIMEOUT_MS, async () => {
    // A count reads from the cache of the API server, which is too expensive for each poll.
    if (performance.now() - countedMs < COUNT_INTERVAL_MS) return undefined;
    countedMs = performance.now();
    const count = await cluster.countObjects(namespace);
    progress(`${count} of ${objects} objects`);
    return count === objects ? true : undefined;
  });
}

/**
 * Measures memory without objects, then while 500 reporters grow. The operator has written every object itself, which
 * needs more memory than listing them.
 */
export const memory: Measurement<ResidentFixture> = {
  name: 'memory',
  description: 'resident memory with 0, 10,000 and 50,000 objects of 500 reporters',
  async measure(fixture, context) {
    const metrics = await measureMemory(fixture.operator, 0, context);
    const { initialTunnels, residentTunnels } = context.scale;
    let objects = await fixture.growTo(initialTunnels, context);
    metrics.push(...(await measureMemory(fixture.operator, objects, context, { atMost: 110 })));
    objects = await fixture.growTo(residentTunnels, context);
    metrics.push(...(await measureMemory(fixture.operator, objects, context, { atMost: 180 })));
    return metrics;
  },
};

/**
 * Returns the current and the maximum resident memory of the operator, with all reporters connected.
 *
 * @param note appended to the name, for objects that were reported differently
 */
export async function measureMemory(
  operator: Operator,
  objects: number,
  { scale, progress }: BenchContext,
  target?: Target,
  note = '',
): Promise<Metric[]> {
  progress(`${objects} objects, settling`);
  await delay(scale.settleMs);
  const { resident, peak } = memoryMiB(operator.pid);
  const name = `memory with ${objects} objects${note}`;
  return [
    { name, unit: 'MiB', value: resident, ...(target && { target }) },
    { name: `${name}, maximum so far`, unit: 'MiB', value: peak },
  ];
}

export const idle: Measurement<ResidentFixture> = {
  name: 'idle',
  description: '500 idle reporters with 100 tunnels each: CPU of one core, writes',
  async measure(fixture, context) {
    const { operator, fleet, cluster, access } = fixture;
    const objects = await fixture.growTo(context.scale.residentTunnels, context);
    await delay(context.scale.settleMs);
    context.progress(`${context.scale.idleMs / 1000} s of heartbeats`);
    const writesBefore = await countTunnelWrites(cluster.auditLogPath ?? '', access.namespace);
    const heartbeatsBefore = (await fleet.ask('statistics', null)).reports.heartbeat;
    const cpuBeforeMs = cpuMs(operator.pid);
    const startedMs = performance.now();
    await delay(context.scale.idleMs);
    const elapsedMs = performance.now() - startedMs;
    const usedMs = cpuMs(operator.pid) - cpuBeforeMs;
    const { connected, reports } = await fleet.ask('statistics', null);
    if (connected !== context.scale.residentReporters)
      throw new Error(`only ${connected} reporters connected`);
    const writes = writesBetween(
      writesBefore,
      await countTunnelWrites(cluster.auditLogPath ?? '', access.namespace),
    );
    return [
      {
        name: `idle with ${objects} objects: CPU of one core`,
        unit: '%',
        value: (usedMs / elapsedMs) * 100,
        target: { atMost: 2 },
      },
      {
        name: `idle with ${objects} objects: object writes`,
        unit: '',
        value: writes.create + writes.patch + writes.delete + writes.status + writes.failed,
        target: { exactly: 0 },
      },
      {
        name: `idle with ${objects} objects: heartbeats`,
        unit: '/s',
        value: ((reports.heartbeat - heartbeatsBefore) / elapsedMs) * 1000,
      },
    ];
  },
};

const RESTART_TIMEOUT_MS = 120_000;
/** Wait for unexpected writes after the restart. */
const QUIET_MS = 5000;

export const restart: Measurement<ResidentFixture> = {
  name: 'restart',
  description:
    'restart with 50,000 objects: time from process start to ready, and to the last full push ACKed; writes',
  async measure(fixture, context) {
    const { fleet, cluster, access } = fixture;
    const objects = await fixture.growTo(context.scale.residentTunnels, context);
    const writesBefore = await countTunnelWrites(cluster.auditLogPath ?? '', access.namespace);
    const { connects } = await fleet.ask('statistics', null);
    const { grpcAddress } = fixture.operator;
    context.progress('stopping');
    await fixture.operator.stop();
    await poll(RESTART_TIMEOUT_MS, async () =>
      (await fleet.ask('statistics', null)).connected === 0 ? true : undefined,
    );
    context.progress('baseline list');
    const listedMs = await baselineList(cluster, access);
    context.progress('restarting');
    fixture.operator = await startOperator({ access, flags: ['--grpc-address', grpcAddress] });
    const { startedMs } = fixture.operator;
    const lastAckMs = poll(RESTART_TIMEOUT_MS, async () => {
      const statistics = await fleet.ask('statistics', null);
      return statistics.connects >= connects + context.scale.residentReporters ? machineMs() : undefined;
    });
    const [readyMs, ackedMs] = await Promise.all([fixture.operator.ready(), lastAckMs]);
    context.progress('quiet');
    await delay(QUIET_MS);
    const writes = writesBetween(
      writesBefore,
      await countTunnelWrites(cluster.auditLogPath ?? '', access.namespace),
    );
    return [
      {
        name: `restart with ${objects} objects: ready`,
        unit: 's',
        value: (readyMs - startedMs) / 1000,
        target: { atMost: 4 },
      },
      {
        name: `restart with ${objects} objects: baseline list`,
        unit: 's',
        value: listedMs / 1000,
      },
      {
        name: `restart with ${objects} objects: all full pushes ACKed`,
        unit: 's',
        value: (ackedMs - startedMs) / 1000,
        target: { atMost: 5 },
      },
      {
        name: `restart with ${objects} objects: object writes`,
        unit: '',
        value: writes.create + writes.patch + writes.delete + writes.status + writes.failed,
        target: { exactly: 0 },
      },
    ];
  },
};
