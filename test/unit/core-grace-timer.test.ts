import { expect } from 'chai';
import * as fc from 'fast-check';

import { GraceTimer } from '../../src/core/grace-timer.ts';

const LIMITS = { unknownAfterMs: 30_000, expireAfterMs: 300_000 };

/** Returns a timer that was ticked every second; `leaseHeld` contains for each tick whether the Lease was held. */
function timerAfter(leaseHeld: readonly boolean[]): GraceTimer {
  const timer = new GraceTimer(1000);
  for (const [second, isHeld] of leaseHeld.entries()) timer.tick(1000 + (second + 1) * 1000, isHeld);
  return timer;
}

function seconds(count: number, leaseHeld: boolean): boolean[] {
  return Array.from({ length: count }, () => leaseHeld);
}

describe('GraceTimer', () => {
  it('passes through the phases grace, unknown and expired', () => {
    const phases = [29, 30, 299, 300].map((count) => timerAfter(seconds(count, true)).phase(LIMITS));
    expect(phases).to.deep.equal(['grace', 'unknown', 'unknown', 'expired']);
  });

  it('is paused while the Lease is not held and for 15 s afterwards', () => {
    const outage = [...seconds(10, true), ...seconds(100, false)];
    expect(timerAfter(outage).elapsedMs).to.equal(10_000);
    expect(timerAfter([...outage, ...seconds(15, true)]).elapsedMs).to.equal(10_000);
    expect(timerAfter([...outage, ...seconds(20, true)]).elapsedMs).to.equal(15_000);
  });

  it('is not reset by many short outages', () => {
    const day = Array.from({ length: 20 }, () => [...seconds(30, true), ...seconds(10, false)]).flat();
    // Only 15 s of each 30 s with the Lease count, except in the first period.
    expect(timerAfter(day).elapsedMs).to.equal(30_000 + 19 * 15_000);
    expect(timerAfter(day).phase(LIMITS)).to.equal('expired');
  });

  it('does not count a gap between ticks, in which the process was stopped', () => {
    const timer = new GraceTimer(0);
    timer.tick(1000, true);
    timer.tick(3_600_000, true);
    expect(timer.elapsedMs).to.be.at.most(6000);
  });

  it('never runs faster than the clock or backwards', () => {
    fc.assert(
      fc.property(fc.array(fc.record({ ms: fc.nat(20_000), isHeld: fc.boolean() })), (ticks) => {
        const timer = new GraceTimer(500);
        let nowMs = 500;
        let before = 0;
        for (const { ms, isHeld } of ticks) {
          nowMs += ms;
          timer.tick(nowMs, isHeld);
          expect(timer.elapsedMs).to.be.within(before, before + ms);
          before = timer.elapsedMs;
        }
      }),
    );
  });

  it('skips the phase unknown if unknown-after exceeds expire-after', () => {
    const limits = { unknownAfterMs: 60_000, expireAfterMs: 20_000 };
    expect([19, 20].map((count) => timerAfter(seconds(count, true)).phase(limits))).to.deep.equal([
      'grace',
      'expired',
    ]);
  });
});
