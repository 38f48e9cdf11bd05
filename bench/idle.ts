/** What reporters cost that have nothing to say: a heartbeat every 5 s each. */
import { setTimeout as delay } from 'node:timers/promises';
import { rowWrites, since } from '../test/support/audit-log.ts';
import { cpuMs } from './process-usage.ts';
import type { ResidentStage } from './resident-stage.ts';
import type { Measurement } from './scenario.ts';

export const idle: Measurement<ResidentStage> = {
  name: 'idle',
  about: '500 reporters with 100 tunnels each and nothing to say: CPU of one core, writes',
  async measure(stage, bench) {
    const { operator, fleet, world, access } = stage;
    const rows = await stage.growTo(bench.sizes.residentTunnels, bench);
    await delay(bench.sizes.settleMs);
    bench.progress(`${bench.sizes.idleMs / 1000} s of heartbeats`);
    const writesBefore = await rowWrites(world.auditLogPath ?? '', access.namespace);
    const heartbeatsBefore = (await fleet.ask('statistics', null)).reports.heartbeat;
    const cpuBeforeMs = cpuMs(operator.pid);
    const startedMs = performance.now();
    await delay(bench.sizes.idleMs);
    const elapsedMs = performance.now() - startedMs;
    const usedMs = cpuMs(operator.pid) - cpuBeforeMs;
    const { connected, reports } = await fleet.ask('statistics', null);
    if (connected !== bench.sizes.residentReporters) throw new Error(`only ${connected} reporters connected`);
    const writes = since(writesBefore, await rowWrites(world.auditLogPath ?? '', access.namespace));
    return [
      {
        name: `idle with ${rows} rows: CPU of one core`,
        unit: '%',
        value: (usedMs / elapsedMs) * 100,
        target: { atMost: 2 },
      },
      {
        name: `idle with ${rows} rows: row writes`,
        unit: '',
        value: writes.create + writes.patch + writes.delete + writes.status + writes.failed,
        target: { exactly: 0 },
      },
      {
        name: `idle with ${rows} rows: heartbeats`,
        unit: '/s',
        value: ((reports.heartbeat - heartbeatsBefore) / elapsedMs) * 1000,
      },
    ];
  },
};
