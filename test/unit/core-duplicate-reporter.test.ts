import { expect } from 'chai';

import { FlapDetector } from '../../src/core/duplicate-reporter.ts';

describe('FlapDetector', () => {
  it('detects a conflict at the fourth flap within a minute, not at a lower rate', () => {
    const reconnecting = new FlapDetector();
    for (let atMs = 0; atMs < 600_000; atMs += 20_001) expect(reconnecting.record(atMs)).to.equal(false);
    const contended = new FlapDetector();
    expect([0, 10, 20].map((seconds) => contended.record(seconds * 1000))).to.deep.equal([
      false,
      false,
      false,
    ]);
    expect(contended.record(59_000)).to.equal(true);
    expect(contended.isConflict(59_000)).to.equal(true);
  });

  it('reports each conflict once and ends it after 10 minutes without a flap', () => {
    const detector = new FlapDetector();
    for (let flap = 0; flap < 4; flap += 1) detector.record(flap * 1000);
    expect(detector.record(300_000)).to.equal(false);
    expect(detector.conflictEndsMs(300_000)).to.equal(900_000);
    expect([detector.isConflict(899_999), detector.isConflict(900_000)]).to.deep.equal([true, false]);
    expect(detector.conflictEndsMs(900_000)).to.equal(undefined);
    for (let flap = 0; flap < 3; flap += 1) expect(detector.record(900_000 + flap)).to.equal(false);
    expect(detector.record(900_003)).to.equal(true);
  });

  it('doubles the claim delay during a conflict from 1 s to 5 minutes', () => {
    const detector = new FlapDetector();
    const delays: number[] = [];
    for (let flap = 0; flap < 15; flap += 1) {
      detector.record(flap * 5000);
      delays.push(detector.claimDelayMs(flap * 5000) / 1000);
    }
    expect(delays).to.deep.equal([0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
  });
});
