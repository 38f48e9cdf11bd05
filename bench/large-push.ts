/** A full push of 100,000 tunnels: how long until it is ACKed, how long others wait, and what it leaves in memory. */
import type { Figure } from './figure.ts';
import { LARGE_REPORTER, type LargeStage } from './large-stage.ts';
import { memoryOf } from './memory.ts';
import type { Measurement } from './scenario.ts';

export const largePush: Measurement<LargeStage> = {
  name: 'push',
  about: "one full push of 100,000 tunnels ACKed, and another stream's worst ACK meanwhile",
  async measure(stage, bench): Promise<Figure[]> {
    const { acked, worstAckMs } = await stage.pushed(bench);
    const name = `a full push of ${bench.sizes.large} tunnels`;
    return [
      {
        name: `${name}: ACKed`,
        unit: 's',
        value: (acked.ackedMs - acked.sentMs) / 1000,
        target: { atMost: 0.5 },
      },
      { name: `${name}: another stream's worst ACK`, unit: 'ms', value: worstAckMs, target: { atMost: 100 } },
      { name: `${name}: size`, unit: 'MB', value: acked.bytes / 1e6 },
    ];
  },
};

export const largeMemory: Measurement<LargeStage> = {
  name: 'memory-large',
  about: 'resident memory with 100,000 rows of one full push, and after the same push came again',
  async measure(stage, bench): Promise<Figure[]> {
    const { large } = bench.sizes;
    await stage.written(bench);
    const figures = await memoryOf(stage.operator, large, bench, { atMost: 280 });
    bench.progress('the same full push again');
    const { sentMs, ackedMs } = await stage.pusher.ask('push', {
      address: stage.operator.grpcAddress,
      id: LARGE_REPORTER,
      tunnels: large,
    });
    figures.push({
      name: `an identical full push of ${large} tunnels: ACKed`,
      unit: 's',
      value: (ackedMs - sentMs) / 1000,
    });
    figures.push(...(await memoryOf(stage.operator, large, bench, undefined, ', pushed twice')));
    return figures;
  },
};
