import { setImmediate } from 'node:timers/promises';
import { expect } from 'chai';
import { DecodeScheduler } from '../../src/grpc/decode-scheduler.ts';

describe('turns at decoding', () => {
  it('go round among connections, however many streams one has', async () => {
    const turns = new DecodeScheduler();
    const [busy, quiet] = [{}, {}];
    const order: string[] = [];
    const work = async (connection: object, name: string, steps: number): Promise<void> => {
      for (let step = 0; step < steps; step += 1) {
        await turns.wait(connection);
        order.push(name);
      }
    };
    await Promise.all([...Array.from({ length: 10 }, () => work(busy, 'busy', 3)), work(quiet, 'quiet', 3)]);
    expect(order.slice(0, 7).filter((name) => name === 'quiet')).to.have.length(3);
    expect(order).to.have.length(33);
  });

  it('are one for each turn of the event loop, so that others get in between', async () => {
    const turns = new DecodeScheduler();
    let taken = 0;
    const connection = {};
    const all = Promise.all(
      Array.from({ length: 5 }, async () => {
        await turns.wait(connection);
        taken += 1;
      }),
    );
    expect(taken).to.equal(0);
    for (let turn = 1; turn <= 3; turn += 1) {
      await setImmediate();
      expect(taken).to.be.at.most(turn + 1);
    }
    await all;
    expect(taken).to.equal(5);
  });
});
