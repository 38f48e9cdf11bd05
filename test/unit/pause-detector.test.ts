import { expect } from 'chai';
import { pino } from 'pino';
import { detectPauses } from '../../src/pause-detector.ts';
import { FakeClock } from '../support/fake-clock.ts';

describe('detectPauses', () => {
  let clock: FakeClock;
  let pauses: number[];
  let stop: () => void;

  beforeEach(() => {
    clock = new FakeClock();
    pauses = [];
    stop = detectPauses(clock, pino({ enabled: false }), (pausedMs) => pauses.push(pausedMs));
  });

  it('reports once that the process was stopped, and for how long', () => {
    clock.advance(12_000);
    clock.freeze(54_000);
    expect(pauses).to.deep.equal([51_000]);
    clock.advance(60_000);
    expect(pauses).to.deep.equal([51_000]);
  });

  it('does not report a busy event loop', () => {
    for (let round = 0; round < 10; round += 1) {
      clock.advance(5000);
      clock.freeze(14_999);
    }
    expect(pauses).to.deep.equal([]);
  });

  it('has no timer after it was stopped', () => {
    stop();
    expect(clock.pendingTimersMs).to.deep.equal([]);
    clock.freeze(60_000);
    expect(pauses).to.deep.equal([]);
  });
});
