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

/** An operator with 500 reporters that stay connected, and their rows, which several measurements look at. */

const TIMEOUT_MS = 20 * 60_000;
const COUNT_INTERVAL_MS = 500;
/** Reporters start one after the other over a report interval, as Envoys that were not started all at once. */
const START_SPREAD_MS = 5000;

export interface ResidentFixture {
  readonly world: BenchCluster;
  readonly access: Access;
  readonly fleet: Child<FleetCalls>;
  /** Replaced by a restart. Its report interval is the default, 5 s. */
  operator: Operator;
  /** Brings every reporter to so many tunnels, and waits for all rows; returns how many there are. Never shrinks. */
  growTo(tunnelsEach: number, bench: BenchContext): Promise<number>;
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
    world: cluster,
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
          // Short, so that a restart measures the operator and not Envoy's patience of 5 s.
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

/** Waits for exactly so many rows, telling how far it has come. */
export async function waitForObjectCount(
  cluster: BenchCluster,
  namespace: string,
  objects: number,
  progress: (doing: string) => void,
): Promise<void> {
  let countedMs = Number.NEGATIVE_INFINITY;
  await poll(TIMEOUT_MS, async () => {
    // A count is a list of the API server's cache: too dear to ask for at each turn.
    if (performance.now() - countedMs < COUNT_INTERVAL_MS) return undefined;
    countedMs = performance.now();
    const count = await cluster.countObjects(namespace);
    progress(`${count} of ${objects} rows`);
    return count === objects ? true : undefined;
  });
}

/** Resident memory of the operator, with every reporter still connected and reporting. */

/** With no rows, then as 500 reporters grow. The operator wrote every row itself, which takes more than listing them. */
export const memory: Measurement<ResidentFixture> = {
  name: 'memory',
  description: 'resident memory with 0, 10,000 and 50,000 rows of 500 reporters',
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

/** @param note for rows that came in another way */
export async function measureMemory(
  operator: Operator,
  objects: number,
  { scale, progress }: BenchContext,
  target?: Target,
  note = '',
): Promise<Metric[]> {
  progress(`${objects} rows settle`);
  await delay(scale.settleMs);
  const { resident, peak } = memoryMiB(operator.pid);
  const name = `memory with ${objects} rows${note}`;
  return [
    { name, unit: 'MiB', value: resident, ...(target && { target }) },
    { name: `${name}, highest so far`, unit: 'MiB', value: peak },
  ];
}

/** What reporters cost that have nothing to say: a heartbeat every 5 s each. */

export const idle: Measurement<ResidentFixture> = {
  name: 'idle',
  description: '500 reporters with 100 tunnels each and nothing to say: CPU of one core, writes',
  async measure(fixture, context) {
    const { operator, fleet, world, access } = fixture;
    const objects = await fixture.growTo(context.scale.residentTunnels, context);
    await delay(context.scale.settleMs);
    context.progress(`${context.scale.idleMs / 1000} s of heartbeats`);
    const writesBefore = await countTunnelWrites(world.auditLogPath ?? '', access.namespace);
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
      await countTunnelWrites(world.auditLogPath ?? '', access.namespace),
    );
    return [
      {
        name: `idle with ${objects} rows: CPU of one core`,
        unit: '%',
        value: (usedMs / elapsedMs) * 100,
        target: { atMost: 2 },
      },
      {
        name: `idle with ${objects} rows: row writes`,
        unit: '',
        value: writes.create + writes.patch + writes.delete + writes.status + writes.failed,
        target: { exactly: 0 },
      },
      {
        name: `idle with ${objects} rows: heartbeats`,
        unit: '/s',
        value: ((reports.heartbeat - heartbeatsBefore) / elapsedMs) * 1000,
      },
    ];
  },
};

/** The operator is restarted with 50,000 rows, and all of its reporters come back at once. */

const RESTART_TIMEOUT_MS = 120_000;
/** Writes that are not to come are given this long to come. */
const QUIET_MS = 5000;

export const restart: Measurement<ResidentFixture> = {
  name: 'restart',
  description:
    'restart with 50,000 rows: from the start of the process to ready, and to the last full push ACKed; writes',
  async measure(fixture, context) {
    const { fleet, world, access } = fixture;
    const objects = await fixture.growTo(context.scale.residentTunnels, context);
    const writesBefore = await countTunnelWrites(world.auditLogPath ?? '', access.namespace);
    const { connects } = await fleet.ask('statistics', null);
    const { grpcAddress } = fixture.operator;
    context.progress('stopping');
    await fixture.operator.stop();
    await poll(RESTART_TIMEOUT_MS, async () =>
      (await fleet.ask('statistics', null)).connected === 0 ? true : undefined,
    );
    context.progress('a bare list');
    const listedMs = await baselineList(world, access);
    context.progress('restarting');
    fixture.operator = await startOperator({ access, flags: ['--grpc-address', grpcAddress] });
    const { startedMs } = fixture.operator;
    const backMs = poll(RESTART_TIMEOUT_MS, async () => {
      const statistics = await fleet.ask('statistics', null);
      return statistics.connects >= connects + context.scale.residentReporters ? machineMs() : undefined;
    });
    const [readyMs, ackedMs] = await Promise.all([fixture.operator.ready(), backMs]);
    context.progress('quiet');
    await delay(QUIET_MS);
    const writes = writesBetween(
      writesBefore,
      await countTunnelWrites(world.auditLogPath ?? '', access.namespace),
    );
    return [
      {
        name: `restart with ${objects} rows: ready`,
        unit: 's',
        value: (readyMs - startedMs) / 1000,
        target: { atMost: 4 },
      },
      {
        name: `restart with ${objects} rows: a bare list of them`,
        unit: 's',
        value: listedMs / 1000,
      },
      {
        name: `restart with ${objects} rows: all full pushes ACKed`,
        unit: 's',
        value: (ackedMs - startedMs) / 1000,
        target: { atMost: 5 },
      },
      {
        name: `restart with ${objects} rows: row writes`,
        unit: '',
        value: writes.create + writes.patch + writes.delete + writes.status + writes.failed,
        target: { exactly: 0 },
      },
    ];
  },
};
