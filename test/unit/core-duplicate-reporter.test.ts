import { expect } from 'chai';

import { FlapDetector } from '../../src/core/duplicate-reporter.ts';

describe('two Envoys under one id', () => {
  it('are told from one that moves: by more than 3 changes within a minute', () => {
    const moves = new FlapDetector();
    for (let atMs = 0; atMs < 600_000; atMs += 20_001) expect(moves.record(atMs)).to.equal(false);
    const quarrel = new FlapDetector();
    expect([0, 10, 20].map((seconds) => quarrel.record(seconds * 1000))).to.deep.equal([false, false, false]);
    expect(quarrel.record(59_000)).to.equal(true);
    expect(quarrel.isConflict(59_000)).to.equal(true);
  });

  it('are said once for each quarrel, which ends after 10 minutes without a change', () => {
    const changes = new FlapDetector();
    for (let times = 0; times < 4; times += 1) changes.record(times * 1000);
    expect(changes.record(300_000)).to.equal(false);
    expect(changes.conflictEndsMs(300_000)).to.equal(900_000);
    expect([changes.isConflict(899_999), changes.isConflict(900_000)]).to.deep.equal([true, false]);
    expect(changes.conflictEndsMs(900_000)).to.equal(undefined);
    for (let times = 0; times < 3; times += 1) expect(changes.record(900_000 + times)).to.equal(false);
    expect(changes.record(900_003)).to.equal(true);
  });

  it('on one replica wait ever longer: from 1 s, doubling to 5 minutes', () => {
    const changes = new FlapDetector();
    const waits: number[] = [];
    for (let times = 0; times < 15; times += 1) {
      changes.record(times * 5000);
      waits.push(changes.claimDelayMs(times * 5000) / 1000);
    }
    expect(waits).to.deep.equal([0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
  });
});
