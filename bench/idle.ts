/** What reporters cost that have nothing to say: a heartbeat every 5 s each. */
import { setTimeout as delay } from 'node:timers/promises';
import { countTunnelWrites, writesBetween } from '../test/support/audit-log.ts';
import { cpuMs } from './process-usage.ts';
import type { ResidentFixture } from './resident-fixture.ts';
import type { Measurement } from './scenario.ts';

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
