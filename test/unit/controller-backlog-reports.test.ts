import { expect } from 'chai';
import { BacklogReports } from '../../src/controller/backlog-reports.ts';

const NOW_MS = 1_000_000;
const RETRY_MS = 10_000;

/** Reports as many of the waiting backlogs as possible. Returns how many. */
function reportAll(reports: BacklogReports, reporters: number, waiting: number, nowMs: number): number {
  let count = 0;
  for (; count < waiting && reports.isAllowed(reporters, nowMs); count += 1) reports.report(reporters, nowMs);
  return count;
}

describe('the reports of backlogs', () => {
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
    it(`take ${lastS} s if ${reporters} reporters wait and try every 10 s`, () => {
      const reports = new BacklogReports();
      let waiting = reporters - reportAll(reports, reporters, reporters, NOW_MS);
      expect(reporters - waiting).to.equal(atOnce);
      let waitedMs = 0;
      for (; waiting > 0; waiting -= reportAll(reports, reporters, waiting, NOW_MS + waitedMs))
        waitedMs += RETRY_MS;
      expect(waitedMs).to.equal(lastS * 1000);
    });
  }

  it('are possible at once again after a pause', () => {
    const reports = new BacklogReports();
    expect(reportAll(reports, 500, 500, NOW_MS)).to.equal(50);
    expect(reportAll(reports, 500, 450, NOW_MS + 400)).to.equal(0);
    expect(reportAll(reports, 500, 450, NOW_MS + 1000)).to.equal(2);
    expect(reportAll(reports, 500, 448, NOW_MS + 60_000)).to.equal(50);
  });
});
