/** The operator is restarted with 50,000 rows, and all of its reporters come back at once. */
import { poll } from '../test/support/operator-process.ts';
import { rowWrites, since } from '../test/support/audit-log.ts';
import { setTimeout as delay } from 'node:timers/promises';
import { bareList } from './bare-list.ts';
import { machineMs } from './machine-clock.ts';
import { startOperator } from './operator.ts';
import type { ResidentStage } from './resident-stage.ts';
import type { Measurement } from './scenario.ts';

const LIMIT_MS = 120_000;
/** Writes that are not to come are given this long to come. */
const QUIET_MS = 5000;

export const restart: Measurement<ResidentStage> = {
  name: 'restart',
  about:
    'restart with 50,000 rows: from the start of the process to ready, and to the last full push ACKed; writes',
  async measure(stage, bench) {
    const { fleet, world, access } = stage;
    const rows = await stage.growTo(bench.sizes.residentTunnels, bench);
    const writesBefore = await rowWrites(world.auditLogPath ?? '', access.namespace);
    const { connects } = await fleet.ask('statistics', null);
    const { grpcAddress } = stage.operator;
    bench.progress('stopping');
    await stage.operator.stop();
    await poll(LIMIT_MS, async () =>
      (await fleet.ask('statistics', null)).connected === 0 ? true : undefined,
    );
    bench.progress('a bare list');
    const listedMs = await bareList(world, access);
    bench.progress('restarting');
    stage.operator = await startOperator({ access, flags: ['--grpc-address', grpcAddress] });
    const { startedMs } = stage.operator;
    const backMs = poll(LIMIT_MS, async () => {
      const seen = await fleet.ask('statistics', null);
      return seen.connects >= connects + bench.sizes.residentReporters ? machineMs() : undefined;
    });
    const [readyMs, ackedMs] = await Promise.all([stage.operator.ready(), backMs]);
    bench.progress('quiet');
    await delay(QUIET_MS);
    const writes = since(writesBefore, await rowWrites(world.auditLogPath ?? '', access.namespace));
    return [
      {
        name: `restart with ${rows} rows: ready`,
        unit: 's',
        value: (readyMs - startedMs) / 1000,
        target: { atMost: 4 },
      },
      {
        name: `restart with ${rows} rows: a bare list of them`,
        unit: 's',
        value: listedMs / 1000,
      },
      {
        name: `restart with ${rows} rows: all full pushes ACKed`,
        unit: 's',
        value: (ackedMs - startedMs) / 1000,
        target: { atMost: 5 },
      },
      {
        name: `restart with ${rows} rows: row writes`,
        unit: '',
        value: writes.create + writes.patch + writes.delete + writes.status + writes.failed,
        target: { exactly: 0 },
      },
    ];
  },
};
