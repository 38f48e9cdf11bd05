import { expect } from 'chai';
import * as fc from 'fast-check';

import { backoffDelayMs, RETRY, SLOW_RETRY } from '../../src/backoff.ts';
import { RevertBackoff } from '../../src/controller/revert-backoff.ts';
import { FakeClock } from '../support/fake-clock.ts';

describe('the wait before the next try', () => {
  it('doubles with each failure in a row, up to its limit', () => {
    const waits = [1, 2, 3, 8, 9, 10, 100, 1_000_000].map((failures) => backoffDelayMs(RETRY, failures, 1));
    expect(waits).to.deep.equal([100, 200, 400, 12_800, 25_600, 30_000, 30_000, 30_000]);
    const slow = [1, 2, 6, 7, 8, 5000].map((failures) => backoffDelayMs(SLOW_RETRY, failures, 1));
    expect(slow).to.deep.equal([5000, 10_000, 160_000, 300_000, 300_000, 300_000]);
  });

  it('leaves its upper half to chance, so that what failed together is not tried together', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2000 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (failures, random) => {
          const most = backoffDelayMs(RETRY, failures, 1);
          expect(backoffDelayMs(RETRY, failures, random)).to.be.within(most / 2, most);
          expect(backoffDelayMs(RETRY, failures, 0)).to.equal(most / 2);
        },
      ),
    );
  });
});

function createPacing() {
  const clock = new FakeClock();
  const pacing = new RevertBackoff(clock);
  return {
    pacing,
    clock,
    /** Undone again as soon as it was put right, so many times. */
    fight: (times: number): number[] =>
      Array.from({ length: times }, () => {
        const waitMs = pacing.nextDelayMs('r', 't');
        clock.advance(waitMs);
        return waitMs;
      }),
  };
}

describe('putting right what somebody else did to a row', () => {
  it('is done at once the first time, then after 1 s, 2 s, 4 s, and at least every 5 minutes', () => {
    const { fight } = createPacing();
    expect(fight(12)).to.deep.equal([
      0, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000,
    ]);
    expect(fight(2000).at(-1)).to.equal(300_000);
  });

  it('is for each row by itself', () => {
    const { pacing, fight } = createPacing();
    fight(10);
    expect(pacing.nextDelayMs('r', 'u')).to.equal(0);
    expect(pacing.nextDelayMs('s', 't')).to.equal(0);
    expect(pacing.nextDelayMs('r', 't')).to.equal(300_000);
  });

  it('counts edits during a wait as one: nothing was put right in between', () => {
    const { pacing, clock, fight } = createPacing();
    fight(2);
    const waits: number[] = [];
    for (let edit = 0; edit < 5; edit += 1) {
      waits.push(pacing.nextDelayMs('r', 't'));
      clock.advance(400);
    }
    expect(waits).to.deep.equal([2000, 1600, 1200, 800, 400]);
    expect(fight(1)).to.deep.equal([4000]);
  });

  it('is done at once again when the row was left alone for 10 minutes, and not sooner', () => {
    const { clock, fight } = createPacing();
    fight(3);
    clock.advance(599_999);
    expect(fight(1)).to.deep.equal([4000]);
    clock.advance(600_000);
    expect(fight(2)).to.deep.equal([0, 1000]);
  });

  it('does not forget a fight that goes on at the longest wait', () => {
    const { clock, fight } = createPacing();
    fight(20);
    for (let time = 0; time < 50; time += 1) {
      clock.advance(1000);
      expect(fight(1)).to.deep.equal([300_000]);
    }
  });

  it('remembers 10,000 rows, and forgets first what was left alone longest', () => {
    const { pacing, clock } = createPacing();
    const undo = (row: string): number => pacing.nextDelayMs('r', row);
    for (let row = 0; row < 10_000; row += 1) undo(`t${row}`);
    expect(undo('t0'), 'all are remembered').to.equal(1000);
    undo('one more');
    clock.advance(1000);
    expect(undo('t0'), 'it was undone a moment ago').to.equal(2000);
    expect(undo('t1'), 'it gave way').to.equal(0);
  });
});
