import { expect } from 'chai';
import * as fc from 'fast-check';

import { backoffDelayMs, RETRY, SLOW_RETRY } from '../../src/backoff.ts';
import { RevertBackoff } from '../../src/controller/revert-backoff.ts';
import { FakeClock } from '../support/fake-clock.ts';

describe('backoffDelayMs', () => {
  it('doubles with each consecutive failure up to its limit', () => {
    const waits = [1, 2, 3, 8, 9, 10, 100, 1_000_000].map((failures) => backoffDelayMs(RETRY, failures, 1));
    expect(waits).to.deep.equal([100, 200, 400, 12_800, 25_600, 30_000, 30_000, 30_000]);
    const slow = [1, 2, 6, 7, 8, 5000].map((failures) => backoffDelayMs(SLOW_RETRY, failures, 1));
    expect(slow).to.deep.equal([5000, 10_000, 160_000, 300_000, 300_000, 300_000]);
  });

  it('randomizes the upper half of the delay, so that retries are spread', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2000 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (failures, random) => {
          const maxMs = backoffDelayMs(RETRY, failures, 1);
          expect(backoffDelayMs(RETRY, failures, random)).to.be.within(maxMs / 2, maxMs);
          expect(backoffDelayMs(RETRY, failures, 0)).to.equal(maxMs / 2);
        },
      ),
    );
  });
});

function createRevertBackoff() {
  const clock = new FakeClock();
  const backoff = new RevertBackoff(clock);
  return {
    backoff,
    clock,
    /** Reverts `times` times, each immediately after the previous delay. Returns the delays. */
    revert: (times: number): number[] =>
      Array.from({ length: times }, () => {
        const waitMs = backoff.nextDelayMs('r', 't');
        clock.advance(waitMs);
        return waitMs;
      }),
  };
}

describe('RevertBackoff', () => {
  it('has no delay at first, then 1 s, 2 s, 4 s, up to 5 minutes', () => {
    const { revert } = createRevertBackoff();
    expect(revert(12)).to.deep.equal([
      0, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000,
    ]);
    expect(revert(2000).at(-1)).to.equal(300_000);
  });

  it('is separate per object', () => {
    const { backoff, revert } = createRevertBackoff();
    revert(10);
    expect(backoff.nextDelayMs('r', 'u')).to.equal(0);
    expect(backoff.nextDelayMs('s', 't')).to.equal(0);
    expect(backoff.nextDelayMs('r', 't')).to.equal(300_000);
  });

  it('counts edits during a delay as one, because nothing was reverted in between', () => {
    const { backoff, clock, revert } = createRevertBackoff();
    revert(2);
    const waits: number[] = [];
    for (let edit = 0; edit < 5; edit += 1) {
      waits.push(backoff.nextDelayMs('r', 't'));
      clock.advance(400);
    }
    expect(waits).to.deep.equal([2000, 1600, 1200, 800, 400]);
    expect(revert(1)).to.deep.equal([4000]);
  });

  it('is reset after 10 minutes without an external change, and not earlier', () => {
    const { clock, revert } = createRevertBackoff();
    revert(3);
    clock.advance(599_999);
    expect(revert(1)).to.deep.equal([4000]);
    clock.advance(600_000);
    expect(revert(2)).to.deep.equal([0, 1000]);
  });

  it('is not reset while changes continue at the maximum delay', () => {
    const { clock, revert } = createRevertBackoff();
    revert(20);
    for (let time = 0; time < 50; time += 1) {
      clock.advance(1000);
      expect(revert(1)).to.deep.equal([300_000]);
    }
  });

  it('keeps 10,000 objects, and evicts the least recently changed one', () => {
    const { backoff, clock } = createRevertBackoff();
    const revertOnce = (name: string): number => backoff.nextDelayMs('r', name);
    for (let index = 0; index < 10_000; index += 1) revertOnce(`t${index}`);
    expect(revertOnce('t0'), 'all are kept').to.equal(1000);
    revertOnce('another');
    clock.advance(1000);
    expect(revertOnce('t0'), 'changed most recently').to.equal(2000);
    expect(revertOnce('t1'), 'evicted').to.equal(0);
  });
});
