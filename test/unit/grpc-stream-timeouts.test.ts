import { expect } from 'chai';
import { HeartbeatTimer, streamDeadline } from '../../src/grpc/stream-timeouts.ts';
import { FakeClock } from '../support/fake-clock.ts';

const HOUR_MS = 3_600_000;
const NOW_MS = Date.UTC(2026, 10, 23);

describe('HeartbeatTimer', () => {
  let clock: FakeClock;
  let timeouts: string[];
  let timer: HeartbeatTimer;

  beforeEach(() => {
    clock = new FakeClock();
    timeouts = [];
    timer = new HeartbeatTimer(clock, (details) => timeouts.push(details));
  });
  afterEach(() => timer.stop());

  /** Advances the clock until the timer fires, and returns how long that took. */
  function timeoutAfterMs(): number {
    const startMs = clock.monotonicMs();
    while (timeouts.length === 0 && clock.monotonicMs() - startMs < 1_000_000) clock.advance(500);
    return clock.monotonicMs() - startMs;
  }

  it('times out after 5 minutes without a first report', () => {
    expect([timeoutAfterMs(), timeouts]).to.deep.equal([300_000, ['no report within 300 s']]);
  });

  for (const [intervalMs, timeoutMs] of [
    [25, 15_000],
    [5000, 15_000],
    [20_000, 60_000],
  ] as const) {
    it(`times out after ${timeoutMs} ms with a report interval of ${intervalMs} ms`, () => {
      timer.setInterval(intervalMs);
      expect([timeoutAfterMs(), timeouts]).to.deep.equal([
        timeoutMs,
        [`no report within ${timeoutMs / 1000} s`],
      ]);
    });
  }

  it('is rechecked together with the timers of other streams as long as reports arrive', () => {
    timer.stop();
    const timers = [0, 137, 411].map((offsetMs) => {
      clock.advance(offsetMs);
      const other = new HeartbeatTimer(clock, (details) => timeouts.push(details));
      other.setInterval(5000);
      return other;
    });
    for (let reports = 0; reports < 10; reports += 1) {
      clock.advance(5000);
      for (const other of timers) other.reset(clock.monotonicMs());
    }
    const wakeUps = new Set(clock.pendingTimersMs);
    for (const other of timers) other.stop();
    expect([wakeUps.size, timeouts]).to.deep.equal([1, []]);
  });

  describe('while a report arrives', () => {
    let progress: { firstByteMs: number; lastByteMs: number } | undefined;

    beforeEach(() => {
      progress = undefined;
      timer.stop();
      timer = new HeartbeatTimer(
        clock,
        (details) => timeouts.push(details),
        () => progress,
      );
    });

    it('does not time out for 22 s, and restarts with the complete report', () => {
      timer.setInterval(5000);
      const firstByteMs = clock.monotonicMs();
      for (let second = 0; second < 22; second += 1) {
        progress = { firstByteMs, lastByteMs: clock.monotonicMs() };
        clock.advance(1000);
      }
      expect(timeouts).to.deep.equal([]);
      progress = undefined;
      timer.reset(clock.monotonicMs());
      expect(timeoutAfterMs()).to.equal(15_000);
    });

    it('times out when no byte arrives for the heartbeat timeout', () => {
      timer.setInterval(5000);
      clock.advance(10_000);
      progress = { firstByteMs: clock.monotonicMs(), lastByteMs: clock.monotonicMs() };
      expect(timeoutAfterMs()).to.equal(15_000);
    });

    it('times out 5 minutes after the first byte, however often a byte arrives', () => {
      timer.setInterval(5000);
      const firstByteMs = clock.monotonicMs();
      for (let second = 0; second < 400 && timeouts.length === 0; second += 1) {
        progress = { firstByteMs, lastByteMs: clock.monotonicMs() };
        clock.advance(1000);
      }
      expect([clock.monotonicMs() - firstByteMs, timeouts]).to.deep.equal([
        300_000,
        ['no report within 15 s'],
      ]);
    });

    it('does not time out earlier than without it', () => {
      timer.setInterval(1_200_000);
      progress = { firstByteMs: clock.monotonicMs(), lastByteMs: clock.monotonicMs() };
      clock.advance(3_599_999);
      expect(timeouts).to.deep.equal([]);
    });

    it('does not extend the timeout of the first report', () => {
      clock.advance(200_000);
      progress = { firstByteMs: clock.monotonicMs(), lastByteMs: clock.monotonicMs() };
      expect(timeoutAfterMs()).to.equal(100_000);
    });
  });

  it('restarts with each report', () => {
    timer.setInterval(5000);
    for (let report = 0; report < 10; report += 1) {
      clock.advance(14_000);
      timer.reset(clock.monotonicMs());
    }
    expect(timeouts).to.deep.equal([]);
    expect(timeoutAfterMs()).to.equal(15_000);
  });

  describe('in a process that was frozen', () => {
    it('waits for the reports that arrived meanwhile', () => {
      timer.setInterval(5000);
      clock.freeze(60_000);
      expect(timeouts).to.deep.equal([]);
      timer.reset(clock.monotonicMs());
      expect(timeoutAfterMs()).to.equal(15_000);
    });

    it('times out 1 s later if no report has arrived', () => {
      timer.setInterval(5000);
      clock.freeze(60_000);
      expect(timeoutAfterMs()).to.equal(1000);
    });
  });

  it('applies a changed report interval from the last report on', () => {
    timer.setInterval(60_000);
    clock.advance(14_000);
    timer.setInterval(5000);
    expect(timeoutAfterMs()).to.equal(1000);
  });

  it('never fires once it is stopped', () => {
    timer.stop();
    clock.advance(1_000_000);
    expect(timeouts).to.deep.equal([]);
  });
});

describe('streamDeadline', () => {
  for (const { random, ageMs } of [
    { random: 0, ageMs: 0.9 * HOUR_MS },
    { random: 0.5, ageMs: HOUR_MS },
    { random: 1, ageMs: 1.1 * HOUR_MS },
  ]) {
    it(`is the maximum age ±10 %: ${ageMs} ms for the random number ${random}`, () => {
      const { ttlMs, reason } = streamDeadline(undefined, HOUR_MS, 0, NOW_MS, random);
      expect(ttlMs).to.be.closeTo(ageMs, 1);
      expect(reason).to.equal('max_age');
    });
  }

  it('is the expiry of the credential, without jitter, if that is earlier', () => {
    const { ttlMs, reason } = streamDeadline(NOW_MS + 60_000, HOUR_MS, 0, NOW_MS, 0);
    expect({ ttlMs, reason }).to.deep.equal({ ttlMs: 60_000, reason: 'credential_expired' });
    expect(streamDeadline(NOW_MS + 2 * HOUR_MS, HOUR_MS, 0, NOW_MS, 0.5).reason).to.equal('max_age');
  });

  it('is measured from when the peer presented its credential', () => {
    expect(streamDeadline(undefined, HOUR_MS, 600_000, NOW_MS, 0.5).ttlMs).to.be.closeTo(3_000_000, 1);
    expect(streamDeadline(undefined, HOUR_MS, HOUR_MS, NOW_MS, 0).ttlMs).to.equal(0);
  });

  it('is now for a credential that has expired since it was checked', () => {
    expect(streamDeadline(NOW_MS - 1, HOUR_MS, 0, NOW_MS, 0).ttlMs).to.equal(0);
  });
});
