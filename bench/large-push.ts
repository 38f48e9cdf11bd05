/** A full push of 100,000 tunnels: how long until it is ACKed, how long others wait, and what it leaves in memory. */
import type { Metric } from './metric.ts';
import { LARGE_REPORTER, type LargePushFixture } from './large-push-fixture.ts';
import { measureMemory } from './memory.ts';
import type { Measurement } from './scenario.ts';

export const largePush: Measurement<LargePushFixture> = {
  name: 'push',
  description: "one full push of 100,000 tunnels ACKed, and another stream's worst ACK meanwhile",
  async measure(fixture, context): Promise<Metric[]> {
    const { ack, maxOtherAckMs } = await fixture.pushOnce(context);
    const name = `a full push of ${context.scale.largePushTunnels} tunnels`;
    return [
      {
        name: `${name}: ACKed`,
        unit: 's',
        value: (ack.ackedMs - ack.sentMs) / 1000,
        target: { atMost: 0.5 },
      },
      {
        name: `${name}: another stream's worst ACK`,
        unit: 'ms',
        value: maxOtherAckMs,
        target: { atMost: 100 },
      },
      { name: `${name}: size`, unit: 'MB', value: ack.bytes / 1e6 },
    ];
  },
};

export const largeMemory: Measurement<LargePushFixture> = {
  name: 'memory-large',
  description: 'resident memory with 100,000 rows of one full push, and after the same push came again',
  async measure(fixture, context): Promise<Metric[]> {
    const { largePushTunnels } = context.scale;
    await fixture.waitUntilWritten(context);
    const metrics = await measureMemory(fixture.operator, largePushTunnels, context, { atMost: 280 });
    context.progress('the same full push again');
    const { sentMs, ackedMs } = await fixture.pusher.ask('push', {
      address: fixture.operator.grpcAddress,
      id: LARGE_REPORTER,
      tunnels: largePushTunnels,
    });
    metrics.push({
      name: `an identical full push of ${largePushTunnels} tunnels: ACKed`,
      unit: 's',
      value: (ackedMs - sentMs) / 1000,
    });
    metrics.push(
      ...(await measureMemory(fixture.operator, largePushTunnels, context, undefined, ', pushed twice')),
    );
    return metrics;
  },
};
