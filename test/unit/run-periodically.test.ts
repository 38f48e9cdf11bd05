import { expect } from 'chai';
import { runPeriodically } from '../../src/run-periodically.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { flushEventLoop } from '../support/fake-time.ts';

describe('runPeriodically', () => {
  it('runs the task after each interval', () => {
    const clock = new FakeClock();
    let runs = 0;
    const stop = runPeriodically(clock, 1000, () => {
      runs += 1;
    });
    clock.advance(999);
    expect(runs).to.equal(0);
    clock.advance(1);
    expect(runs).to.equal(1);
    clock.advance(5000);
    expect(runs).to.equal(6);
    stop();
  });

  it('does not start a run before the previous one has finished', async () => {
    const clock = new FakeClock();
    const pending: (() => void)[] = [];
    const stop = runPeriodically(clock, 1000, () => new Promise<void>((resolve) => pending.push(resolve)));
    clock.advance(10_000);
    expect(pending).to.have.length(1);
    pending[0]?.();
    await flushEventLoop();
    clock.advance(999);
    expect(pending).to.have.length(1);
    clock.advance(1);
    expect(pending).to.have.length(2);
    stop();
  });

  it('starts no further run once it is stopped, also from within the task', async () => {
    const clock = new FakeClock();
    let runs = 0;
    const stop = runPeriodically(clock, 1000, () => {
      runs += 1;
      stop();
    });
    const slow: (() => void)[] = [];
    const stopSlow = runPeriodically(clock, 1000, () => new Promise<void>((resolve) => slow.push(resolve)));
    clock.advance(1000);
    stopSlow();
    slow[0]?.();
    await flushEventLoop();
    clock.advance(10_000);
    expect([runs, slow.length]).to.deep.equal([1, 1]);
  });
});
