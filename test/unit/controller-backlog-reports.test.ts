import { expect } from 'chai';
import { BacklogReports } from '../../src/controller/backlog-reports.ts';

const NOW_MS = 1_000_000;

describe('the times at which backlogs are reported', () => {
  for (const [reporters, lastS] of [
    [1, 0],
    [50, 0],
    [51, 0.5],
    [150, 50],
    [500, 225],
    [600, 275],
    [10_000, 298.5],
  ] as const) {
    it(`are at most ${lastS} s late if ${reporters} reporters wait`, () => {
      const reports = new BacklogReports();
      const delays = Array.from({ length: reporters }, () => reports.reserve(reporters, NOW_MS) - NOW_MS);
      expect(delays).to.deep.equal(delays.toSorted((a, b) => a - b));
      expect(delays.filter((delayMs) => delayMs === 0)).to.have.lengthOf(Math.min(reporters, 50));
      expect(delays.at(-1)).to.be.closeTo(lastS * 1000, 1);
    });
  }

  it('are not late again after a pause', () => {
    const reports = new BacklogReports();
    for (let count = 0; count < 150; count += 1) reports.reserve(150, NOW_MS);
    expect(reports.reserve(150, NOW_MS + 51_000)).to.equal(NOW_MS + 51_000);
  });

  it('are never more than 5 minutes late, however many backlogs ended before they were reported', () => {
    const reports = new BacklogReports();
    for (let count = 0; count < 5000; count += 1) reports.reserve(500, NOW_MS);
    expect(reports.reserve(500, NOW_MS)).to.equal(NOW_MS + 300_000);
  });
});
