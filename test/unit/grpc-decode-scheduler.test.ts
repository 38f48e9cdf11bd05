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

  it('runs one step per tick of the event loop, so that other work runs in between', async () => {
    const scheduler = new DecodeScheduler();
    let steps = 0;
    const connection = {};
    const all = Promise.all(
      Array.from({ length: 5 }, async () => {
        await scheduler.wait(connection);
        steps += 1;
      }),
    );
    expect(steps).to.equal(0);
    for (let tick = 1; tick <= 3; tick += 1) {
      await setImmediate();
      expect(steps).to.be.at.most(tick + 1);
    }
    await all;
    expect(steps).to.equal(5);
  });
});
