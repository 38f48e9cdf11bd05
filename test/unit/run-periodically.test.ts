import { expect } from 'chai';
import { runPeriodically } from '../../src/run-periodically.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { flushEventLoop } from '../support/fake-time.ts';

describe('a look every second', () => {
  it('is none at first, and one after each second', () => {
    const clock = new FakeClock();
    let looks = 0;
    const end = runPeriodically(clock, 1000, () => {
      looks += 1;
    });
    clock.advance(999);
    expect(looks).to.equal(0);
    clock.advance(1);
    expect(looks).to.equal(1);
    clock.advance(5000);
    expect(looks).to.equal(6);
    end();
  });

  it('is not overtaken by the next while it takes long', async () => {
    const clock = new FakeClock();
    const looks: (() => void)[] = [];
    const end = runPeriodically(clock, 1000, () => new Promise<void>((resolve) => looks.push(resolve)));
    clock.advance(10_000);
    expect(looks).to.have.length(1);
    looks[0]?.();
    await flushEventLoop();
    clock.advance(999);
    expect(looks).to.have.length(1);
    clock.advance(1);
    expect(looks).to.have.length(2);
    end();
  });

  it('is the last that was under way when it was ended, also by itself', async () => {
    const clock = new FakeClock();
    let looks = 0;
    const end = runPeriodically(clock, 1000, () => {
      looks += 1;
      end();
    });
    const slow: (() => void)[] = [];
    const endSlow = runPeriodically(clock, 1000, () => new Promise<void>((resolve) => slow.push(resolve)));
    clock.advance(1000);
    endSlow();
    slow[0]?.();
    await flushEventLoop();
    clock.advance(10_000);
    expect([looks, slow.length]).to.deep.equal([1, 1]);
  });
});
