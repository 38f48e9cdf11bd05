/** How many writes it takes: one for each change and none for anything else, by the API server's own audit log. */
import { setTimeout as delay } from 'node:timers/promises';
import { rowWrites, since, type RowWrites } from '../test/support/audit-log.ts';
import { poll } from '../test/support/operator-process.ts';
import { startChild, type Child } from './child.ts';
import type { Figure } from './figure.ts';
import type { FleetCalls } from './fleet-process.ts';
import { startOperator, type Operator } from './operator.ts';
import { openRawReporter, reportedTunnels } from './raw-reporter.ts';
import { scenario, type Bench } from './scenario.ts';
import { openWorld, type Access, type World } from './world.ts';

const REPORTERS = 10;
/** Short, so that 1,000 heartbeats of 10 reporters take 10 s. */
const FLAGS = ['--report-interval', '100ms'];
const LIMIT_MS = 200_000;
/** After the last expected write: what is not to come is given this long to come. */
const QUIET_MS = 3000;

interface Stage {
  readonly world: World;
  readonly access: Access;
  readonly fleet: Child<FleetCalls>;
  operator: Operator;
}

export const writeCounts = scenario<Stage>(
  async (bench, undo) => {
    bench.progress('starting');
    const world = undo.use(await openWorld({ audit: true }));
    const access = await world.access('mirror');
    const fleet = undo.use(startChild<FleetCalls>(new URL('./fleet-process.ts', import.meta.url)));
    const stage: Stage = { world, access, fleet, operator: await startOperator({ access, flags: FLAGS }) };
    undo.defer(() => stage.operator[Symbol.asyncDispose]());
    await stage.operator.ready();
    return stage;
  },
  [
    {
      name: 'writes',
      about:
        'row writes for new tunnels, changes, heartbeats, an identical full push, a reconnect, a restart',
      measure,
    },
  ],
);

async function measure(stage: Stage, { sizes, progress }: Bench): Promise<Figure[]> {
  const { fleet, access } = stage;
  const figures: Figure[] = [];
  const rows = sizes.counted;
  const changes = sizes.countedChanges;

  /** Has something done, and counts the writes, refused ones included, that came of it. */
  async function count(what: string, expected: number, act: () => Promise<void>): Promise<void> {
    progress(what);
    const before = await written(stage);
    await act();
    const value = attempts(since(before, await untilQuiet(stage, before, expected)));
    figures.push({ name: `row writes for ${what}`, unit: '', value, target: { exactly: expected } });
  }

  await count(`${rows} new tunnels`, rows, async () => {
    const address = stage.operator.grpcAddress;
    // Short, so that reconnects are about what the operator does and not about Envoy's patience.
    const options = { address, reporters: REPORTERS, tunnels: rows / REPORTERS, connectRetryIntervalMs: 500 };
    await fleet.ask('start', options);
    await fleet.ask('settled', null);
  });
  await count(`${changes} changes (added, removed, new created_at)`, changes, async () => {
    const removed = 0.3 * changes;
    await fleet.ask('change', { added: changes - 2 * removed, removed, flapped: removed });
    await fleet.ask('settled', null);
  });
  await count(`${sizes.heartbeats} heartbeats`, 0, async () => {
    const { reports } = await fleet.ask('statistics', null);
    await poll(LIMIT_MS, async () => {
      const now = await fleet.ask('statistics', null);
      return now.reports.heartbeat >= reports.heartbeat + sizes.heartbeats ? true : undefined;
    });
  });

  const raw = await openRawReporter(stage.operator.grpcAddress, 'twice');
  const added = reportedTunnels(0, changes);
  const before = await written(stage);
  await raw.send({ fullPush: true, added });
  await untilQuiet(stage, before, changes);
  await count(`an identical full push of ${changes} tunnels`, 0, async () => {
    await raw.send({ fullPush: true, added });
  });
  raw.close();

  await count(`a reconnect of ${REPORTERS} reporters with ${rows} rows`, 0, async () => {
    const { connects } = await fleet.ask('statistics', null);
    await fleet.ask('reconnect', null);
    await untilConnects(fleet, connects + REPORTERS);
  });
  await count(`a restart with ${rows} rows`, 0, async () => {
    const { connects } = await fleet.ask('statistics', null);
    const { grpcAddress } = stage.operator;
    await stage.operator.stop();
    stage.operator = await startOperator({ access, flags: [...FLAGS, '--grpc-address', grpcAddress] });
    await stage.operator.ready();
    await untilConnects(fleet, connects + REPORTERS);
  });
  return figures;
}

/** Until so many streams have been ACKed since the fleet was made: each begins with a full push. */
async function untilConnects(fleet: Child<FleetCalls>, connects: number): Promise<void> {
  await poll(LIMIT_MS, async () =>
    (await fleet.ask('statistics', null)).connects >= connects ? true : undefined,
  );
}

async function written({ world, access }: Stage): Promise<RowWrites> {
  return await rowWrites(world.auditLogPath ?? '', access.namespace);
}

/** Waits for the writes that are expected, and a while longer for those that are not. */
async function untilQuiet(stage: Stage, before: RowWrites, expected: number): Promise<RowWrites> {
  await poll(LIMIT_MS, async () => {
    const now = attempts(since(before, await written(stage)));
    if (now < expected) await delay(500);
    return now >= expected ? true : undefined;
  });
  await delay(QUIET_MS);
  return await written(stage);
}

function attempts(writes: RowWrites): number {
  return writes.create + writes.patch + writes.delete + writes.status + writes.failed;
}
