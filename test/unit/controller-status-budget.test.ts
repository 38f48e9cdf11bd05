import { expect } from 'chai';
import { StatusBudget } from '../../src/controller/status-budget.ts';

const NOW_MS = 1_000_000;
const RETRY_MS = 10_000;

/** Takes as many writes as possible of those that wait. Returns how many. */
function takeAll(budget: StatusBudget, reporters: number, waiting: number, nowMs: number): number {
  let count = 0;
  for (; count < waiting && budget.isAvailable(reporters, nowMs); count += 1) budget.take(reporters, nowMs);
  return count;
}

describe('the budget of status writes', () => {
  for (const [reporters, atOnce, lastS] of [
    [1, 1, 0],
    [50, 50, 0],
    [51, 50, 10],
    [150, 50, 50],
    [500, 50, 230],
    [600, 50, 280],
    [3000, 100, 290],
    [10_000, 333, 300],
  ] as const) {
    it(`makes the last of ${reporters} reporters that try every 10 s wait for ${lastS} s`, () => {
      const budget = new StatusBudget();
      let waiting = reporters - takeAll(budget, reporters, reporters, NOW_MS);
      expect(reporters - waiting).to.equal(atOnce);
      let waitedMs = 0;
      for (; waiting > 0; waiting -= takeAll(budget, reporters, waiting, NOW_MS + waitedMs))
        waitedMs += RETRY_MS;
      expect(waitedMs).to.equal(lastS * 1000);
    });
  }

  it('allows several writes at once again after a pause', () => {
    const budget = new StatusBudget();
    expect(takeAll(budget, 500, 500, NOW_MS)).to.equal(50);
    expect(takeAll(budget, 500, 450, NOW_MS + 400)).to.equal(0);
    expect(takeAll(budget, 500, 450, NOW_MS + 1000)).to.equal(2);
    expect(takeAll(budget, 500, 448, NOW_MS + 60_000)).to.equal(50);
  });
});
