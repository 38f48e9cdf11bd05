/** The number of writes, from the audit log of the API server: one per change, and none for anything else. */
import { setTimeout as delay } from 'node:timers/promises';
import { countTunnelWrites, writesBetween, type TunnelWriteCounts } from '../test/support/audit-log.ts';
import { poll } from '../test/support/operator-process.ts';
import { startChild, type Child } from './child.ts';
import type { Metric } from './metric.ts';
import type { FleetCalls } from './fleet-process.ts';
import { startOperator, type Operator } from './operator.ts';
import { openRawReporter, reportedTunnels } from './raw-reporter.ts';
import { defineScenario, type BenchContext } from './scenario.ts';
import { openBenchCluster, type Access, type BenchCluster } from './cluster.ts';

const REPORTERS = 10;
/** Short, so that 1,000 heartbeats of 10 reporters take 10 s. */
const FLAGS = ['--report-interval', '100ms'];
const TIMEOUT_MS = 200_000;
/** Wait for unexpected writes after the last expected one. */
const QUIET_MS = 3000;

interface Fixture {
  readonly cluster: BenchCluster;
  readonly access: Access;
  readonly fleet: Child<FleetCalls>;
  operator: Operator;
}

export const writeCounts = defineScenario<Fixture>(
  async (context, cleanup) => {
    context.progress('starting');
    const cluster = cleanup.use(await openBenchCluster({ audit: true }));
    const access = await cluster.access('mirror');
    const fleet = cleanup.use(startChild<FleetCalls>(new URL('./fleet-process.ts', import.meta.url)));
    const fixture: Fixture = {
      cluster,
      access,
      fleet,
      operator: await startOperator({ access, flags: FLAGS }),
    };
    cleanup.defer(() => fixture.operator[Symbol.asyncDispose]());
    await fixture.operator.ready();
    return fixture;
  },
  [
    {
      name: 'writes',
      description:
        'object writes for new tunnels, changes, heartbeats, an identical full push, a reconnect, a restart',
      measure,
    },
  ],
);

async function measure(fixture: Fixture, { scale, progress }: BenchContext): Promise<Metric[]> {
  const { fleet, access } = fixture;
  const metrics: Metric[] = [];
  const objects = scale.countedTunnels;
  const changes = scale.countedChanges;

  /** Executes `act` and counts the resulting writes, including rejected ones. */
  async function countWrites(what: string, expected: number, act: () => Promise<void>): Promise<void> {
    progress(what);
    const before = await readWrites(fixture);
    await act();
    const value = totalAttempts(writesBetween(before, await waitUntilQuiet(fixture, before, expected)));
    metrics.push({ name: `object writes for ${what}`, unit: '', value, target: { exactly: expected } });
  }

  await countWrites(`${objects} new tunnels`, objects, async () => {
    const address = fixture.operator.grpcAddress;
    // Short, so that a reconnect is not dominated by Envoy's retry interval.
    const options = {
      address,
      reporters: REPORTERS,
      tunnels: objects / REPORTERS,
      connectRetryIntervalMs: 500,
    };
    await fleet.ask('start', options);
    await fleet.ask('settled', null);
  });
  await countWrites(`${changes} changes (added, removed, new created_at)`, changes, async () => {
    const removed = 0.3 * changes;
    await fleet.ask('change', { added: changes - 2 * removed, removed, flapped: removed });
    await fleet.ask('settled', null);
  });
  await countWrites(`${scale.heartbeats} heartbeats`, 0, async () => {
    const { reports } = await fleet.ask('statistics', null);
    await poll(TIMEOUT_MS, async () => {
      const now = await fleet.ask('statistics', null);
      return now.reports.heartbeat >= reports.heartbeat + scale.heartbeats ? true : undefined;
    });
  });

  const rawReporter = await openRawReporter(fixture.operator.grpcAddress, 'twice');
  const added = reportedTunnels(0, changes);
  const before = await readWrites(fixture);
  await rawReporter.send({ fullPush: true, added });
  await waitUntilQuiet(fixture, before, changes);
  await countWrites(`an identical full push of ${changes} tunnels`, 0, async () => {
    await rawReporter.send({ fullPush: true, added });
  });
  rawReporter.close();

  await countWrites(`a reconnect of ${REPORTERS} reporters with ${objects} objects`, 0, async () => {
    const { connects } = await fleet.ask('statistics', null);
    await fleet.ask('reconnect', null);
    await waitForConnects(fleet, connects + REPORTERS);
  });
  await countWrites(`a restart with ${objects} objects`, 0, async () => {
    const { connects } = await fleet.ask('statistics', null);
    const { grpcAddress } = fixture.operator;
    await fixture.operator.stop();
    fixture.operator = await startOperator({ access, flags: [...FLAGS, '--grpc-address', grpcAddress] });
    await fixture.operator.ready();
    await waitForConnects(fleet, connects + REPORTERS);
  });
  return metrics;
}

/** Waits until the first full push of `connects` streams has been ACKed since the fleet was created. */
async function waitForConnects(fleet: Child<FleetCalls>, connects: number): Promise<void> {
  await poll(TIMEOUT_MS, async () =>
    (await fleet.ask('statistics', null)).connects >= connects ? true : undefined,
  );
}

async function readWrites({ cluster, access }: Fixture): Promise<TunnelWriteCounts> {
  return await countTunnelWrites(cluster.auditLogPath ?? '', access.namespace);
}

/** Waits for the expected writes, and then `QUIET_MS` for unexpected ones. */
async function waitUntilQuiet(
  fixture: Fixture,
  before: TunnelWriteCounts,
  expected: number,
): Promise<TunnelWriteCounts> {
  await poll(TIMEOUT_MS, async () => {
    const now = totalAttempts(writesBetween(before, await readWrites(fixture)));
    if (now < expected) await delay(500);
    return now >= expected ? true : undefined;
  });
  await delay(QUIET_MS);
  return await readWrites(fixture);
}

function totalAttempts(writes: TunnelWriteCounts): number {
  return writes.create + writes.patch + writes.delete + writes.status + writes.failed;
}
