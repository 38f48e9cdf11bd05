import { expect } from 'chai';
import { HeartbeatTimer } from '../../src/grpc/heartbeat-timer.ts';
import { FakeClock } from '../support/fake-clock.ts';

describe('the silence of a reporter', () => {
  let clock: FakeClock;
  let said: string[];
  let silence: HeartbeatTimer;

  beforeEach(() => {
    clock = new FakeClock();
    said = [];
    silence = new HeartbeatTimer(clock, (details) => said.push(details));
  });
  afterEach(() => silence.stop());

  /** Lets time pass until it is too long; how long that took from now. */
  function tooLongAfterMs(): number {
    const startMs = clock.monotonicMs();
    while (said.length === 0 && clock.monotonicMs() - startMs < 1_000_000) clock.advance(500);
    return clock.monotonicMs() - startMs;
  }

  it('may last 5 minutes before the first report', () => {
    expect([tooLongAfterMs(), said]).to.deep.equal([300_000, ['no report within 300 s']]);
  });

  for (const [intervalMs, mostMs] of [
    [25, 15_000],
    [5000, 15_000],
    [20_000, 60_000],
  ] as const) {
    it(`may last ${mostMs} ms where a report is due each ${intervalMs} ms`, () => {
      silence.setInterval(intervalMs);
      expect([tooLongAfterMs(), said]).to.deep.equal([mostMs, [`no report within ${mostMs / 1000} s`]]);
    });
  }

  it('begins anew with each report, for which no timer is set', () => {
    silence.setInterval(5000);
    for (let report = 0; report < 10; report += 1) {
      clock.advance(14_000);
      silence.reset(clock.monotonicMs());
    }
    expect(said).to.deep.equal([]);
    expect(tooLongAfterMs()).to.equal(15_000);
  });

  it('is measured by the new interval from the last report on when the interval changes', () => {
    silence.setInterval(60_000);
    clock.advance(14_000);
    silence.setInterval(5000);
    expect(tooLongAfterMs()).to.equal(1000);
  });

  it('is no matter once it is stopped', () => {
    silence.stop();
    clock.advance(1_000_000);
    expect(said).to.deep.equal([]);
  });
});
