/** The operator is restarted with 50,000 rows, and all of its reporters come back at once. */
import { poll } from '../test/support/operator-process.ts';
import { countTunnelWrites, writesBetween } from '../test/support/audit-log.ts';
import { setTimeout as delay } from 'node:timers/promises';
import { baselineList } from './baseline-list.ts';
import { machineMs } from './machine-clock.ts';
import { startOperator } from './operator.ts';
import type { ResidentFixture } from './resident-fixture.ts';
import type { Measurement } from './scenario.ts';

const TIMEOUT_MS = 120_000;
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
    await poll(TIMEOUT_MS, async () =>
      (await fleet.ask('statistics', null)).connected === 0 ? true : undefined,
    );
    context.progress('a bare list');
    const listedMs = await baselineList(world, access);
    context.progress('restarting');
    fixture.operator = await startOperator({ access, flags: ['--grpc-address', grpcAddress] });
    const { startedMs } = fixture.operator;
    const backMs = poll(TIMEOUT_MS, async () => {
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
