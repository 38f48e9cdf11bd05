import { setImmediate } from 'node:timers/promises';
import { expect } from 'chai';
import { DecodeScheduler } from '../../src/grpc/decode-scheduler.ts';

describe('DecodeScheduler', () => {
  it('schedules connections round-robin, however many streams one of them has', async () => {
    const scheduler = new DecodeScheduler();
    const [busy, quiet] = [{}, {}];
    const order: string[] = [];
    const work = async (connection: object, name: string, steps: number): Promise<void> => {
      for (let step = 0; step < steps; step += 1) {
        await scheduler.wait(connection);
        order.push(name);
      }
    };
    await Promise.all([...Array.from({ length: 10 }, () => work(busy, 'busy', 3)), work(quiet, 'quiet', 3)]);
    expect(order.slice(0, 7).filter((name) => name === 'quiet')).to.have.length(3);
    expect(order).to.have.length(33);
  });

  it('runs steps for 5 ms per tick of the event loop, so that other work runs in between', async () => {
    let nowMs = 0;
    const scheduler = new DecodeScheduler(() => nowMs);
    const stepsByTick: number[] = [];
    const steps: number[] = [];
    const all = Promise.all(
      Array.from({ length: 10 }, async () => {
        await scheduler.wait({});
        steps.push(nowMs);
        nowMs += 1.25;
      }),
    );
    expect(steps).to.have.length(0);
    while (steps.length < 10) {
      const before = steps.length;
      await setImmediate();
      stepsByTick.push(steps.length - before);
    }
    await all;
    expect(stepsByTick.filter((count) => count > 0)).to.deep.equal([4, 4, 2]);
  });

  it('runs one step of more than 5 ms per tick', async () => {
    let nowMs = 0;
    const scheduler = new DecodeScheduler(() => nowMs);
    const steps: number[] = [];
    const work = async (): Promise<void> => {
      for (let step = 0; step < 3; step += 1) {
        await scheduler.wait({});
        steps.push(nowMs);
        nowMs += 6;
      }
    };
    const all = Promise.all([work(), work()]);
    const stepsByTick: number[] = [];
    while (steps.length < 6) {
      const before = steps.length;
      await setImmediate();
      stepsByTick.push(steps.length - before);
    }
    await all;
    expect(Math.max(...stepsByTick)).to.equal(1);
  });
});
