import { setImmediate } from 'node:timers/promises';
import { expect } from 'chai';
import { Registry } from 'prom-client';
import { replaceEventLoopMetrics } from '../../src/event-loop-metrics.ts';

const BLOCKED_MS = 30;

describe('replaceEventLoopMetrics', () => {
  it('measures how long iterations of the event loop take, from one scrape to the next', async () => {
    const registry = new Registry();
    replaceEventLoopMetrics(registry);
    const value = async (statistic: string): Promise<number> => {
      const text = await registry.metrics();
      return Number(new RegExp(`^nodejs_eventloop_lag_${statistic}_seconds (.+)$`, 'm').exec(text)?.[1]);
    };
    await setImmediate();
    const startedMs = performance.now();
    while (performance.now() - startedMs < BLOCKED_MS);
    await setImmediate();
    await setImmediate();
    expect(await value('max')).to.be.at.least(BLOCKED_MS / 1000);
    await setImmediate();
    expect(await value('p50')).to.be.above(0);
  });
});
