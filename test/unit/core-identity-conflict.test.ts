import { expect } from 'chai';

import { PlaceChanges } from '../../src/core/identity-conflict.ts';

describe('two Envoys under one id', () => {
  it('are told from one that moves: by more than 3 changes within a minute', () => {
    const moves = new PlaceChanges();
    for (let atMs = 0; atMs < 600_000; atMs += 20_001) expect(moves.changed(atMs)).to.equal(false);
    const quarrel = new PlaceChanges();
    expect([0, 10, 20].map((seconds) => quarrel.changed(seconds * 1000))).to.deep.equal([
      false,
      false,
      false,
    ]);
    expect(quarrel.changed(59_000)).to.equal(true);
    expect(quarrel.conflict(59_000)).to.equal(true);
  });

  it('are said once for each quarrel, which ends after 10 minutes without a change', () => {
    const changes = new PlaceChanges();
    for (let times = 0; times < 4; times += 1) changes.changed(times * 1000);
    expect(changes.changed(300_000)).to.equal(false);
    expect(changes.endsMs(300_000)).to.equal(900_000);
    expect([changes.conflict(899_999), changes.conflict(900_000)]).to.deep.equal([true, false]);
    expect(changes.endsMs(900_000)).to.equal(undefined);
    for (let times = 0; times < 3; times += 1) expect(changes.changed(900_000 + times)).to.equal(false);
    expect(changes.changed(900_003)).to.equal(true);
  });

  it('on one replica wait ever longer: from 1 s, doubling to 5 minutes', () => {
    const changes = new PlaceChanges();
    const waits: number[] = [];
    for (let times = 0; times < 15; times += 1) {
      changes.changed(times * 5000);
      waits.push(changes.waitMs(times * 5000) / 1000);
    }
    expect(waits).to.deep.equal([0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
  });
});
