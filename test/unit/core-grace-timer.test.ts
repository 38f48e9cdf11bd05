import { expect } from 'chai';
import * as fc from 'fast-check';

import { GraceTimer } from '../../src/core/grace-timer.ts';

const LIMITS = { unknownAfterMs: 30_000, expireAfterMs: 300_000 };

/** A timer that is looked at every second, while the Lease is held or not as `held` says for each. */
function after(held: readonly boolean[]): GraceTimer {
  const timer = new GraceTimer(1000);
  for (const [second, may] of held.entries()) timer.tick(1000 + (second + 1) * 1000, may);
  return timer;
}

function seconds(count: number, held: boolean): boolean[] {
  return Array.from({ length: count }, () => held);
}

describe('the time for which a reporter is lost', () => {
  it('passes through lost, unknown, expired', () => {
    const phases = [29, 30, 299, 300].map((count) => after(seconds(count, true)).phase(LIMITS));
    expect(phases).to.deep.equal(['grace', 'unknown', 'unknown', 'expired']);
  });

  it('stands still while no Lease is held, and for 15 s after', () => {
    const outage = [...seconds(10, true), ...seconds(100, false)];
    expect(after(outage).elapsedMs).to.equal(10_000);
    expect(after([...outage, ...seconds(15, true)]).elapsedMs).to.equal(10_000);
    expect(after([...outage, ...seconds(20, true)]).elapsedMs).to.equal(15_000);
  });

  it('goes on after many outages, each shorter than its end: none begins it anew', () => {
    const day = Array.from({ length: 20 }, () => [...seconds(30, true), ...seconds(10, false)]).flat();
    // Of each 30 s that it is held, 15 count: all of the first.
    expect(after(day).elapsedMs).to.equal(30_000 + 19 * 15_000);
    expect(after(day).phase(LIMITS)).to.equal('expired');
  });

  it('does not count a gap in which nobody looked: the process was stopped', () => {
    const timer = new GraceTimer(0);
    timer.tick(1000, true);
    timer.tick(3_600_000, true);
    expect(timer.elapsedMs).to.be.at.most(6000);
  });

  it('never runs faster than the clock, nor backwards', () => {
    fc.assert(
      fc.property(fc.array(fc.record({ ms: fc.nat(20_000), may: fc.boolean() })), (looks) => {
        const timer = new GraceTimer(500);
        let nowMs = 500;
        let before = 0;
        for (const { ms, may } of looks) {
          nowMs += ms;
          timer.tick(nowMs, may);
          expect(timer.elapsedMs).to.be.within(before, before + ms);
          before = timer.elapsedMs;
        }
      }),
    );
  });

  it('with unknown-after beyond expire-after goes from lost to expired', () => {
    const limits = { unknownAfterMs: 60_000, expireAfterMs: 20_000 };
    expect([19, 20].map((count) => after(seconds(count, true)).phase(limits))).to.deep.equal([
      'grace',
      'expired',
    ]);
  });
});
