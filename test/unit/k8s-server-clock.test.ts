import { expect } from 'chai';
import { ServerClock } from '../../src/k8s/server-clock.ts';
import { FakeClock } from '../support/fake-clock.ts';

/** The clock of the API server when the monotonic clock of the replica is at 0. */
const START_MS = Date.UTC(2026, 10, 28, 12, 0, 0, 250);

/** A clock of a machine that can be suspended: its monotonic clock then stands still, its wall clock does not. */
class SuspendableClock extends FakeClock {
  #suspendedMs = 0;

  override wallMs(): number {
    return super.wallMs() + this.#suspendedMs;
  }

  /** Time that passes while the machine is suspended; negative: the wall clock is set back. */
  suspend(ms: number): void {
    this.#suspendedMs += ms;
  }
}

/** A replica's clock and what it knows about an API server whose clock starts at `startMs`. */
function createWorld(startMs = START_MS) {
  const clock = new SuspendableClock(0);
  const serverClock = new ServerClock(clock);
  let offsetMs = startMs;
  return {
    clock,
    serverClock,
    /** Time of the API server now. */
    serverMs: () => offsetMs + clock.monotonicMs(),
    step: (byMs: number): void => {
      offsetMs += byMs;
    },
    /** Receives a response that was sent `latencyMs` ago. */
    respond: (latencyMs = 0): void =>
      serverClock.observe(new Date(offsetMs + clock.monotonicMs() - latencyMs).toUTCString()),
  };
}

describe('ServerClock', () => {
  it('is undefined before the first date, and ignores text that is not a date', () => {
    const { serverClock, respond } = createWorld();
    expect(serverClock.nowMs()).to.equal(undefined);
    serverClock.observe('yesterday');
    serverClock.observe('');
    expect(serverClock.nowMs()).to.equal(undefined);
    respond();
    expect(serverClock.nowMs()).to.be.a('number');
  });

  it('is never ahead, at most 1 s and the latency behind, and does not depend on the wall clock', () => {
    const { clock, serverClock, serverMs, respond } = createWorld();
    for (const [waitMs, latencyMs] of [
      [0, 0],
      [700, 40],
      [1, 300],
      [5000, 0],
      [12, 9000],
      [3999, 7],
    ] as const) {
      clock.advance(waitMs);
      respond(latencyMs);
      const behindMs = serverMs() - (serverClock.nowMs() ?? 0);
      expect(behindMs).to.be.at.least(0);
      expect(behindMs).to.be.below(1000);
    }
  });

  it('follows a suspension of the machine before the next response, and no longer counts it afterwards', () => {
    const { clock, serverClock, serverMs, step, respond } = createWorld();
    respond();
    clock.suspend(36_000);
    step(36_000);
    expect(serverMs() - (serverClock.nowMs() ?? 0)).to.equal(250);
    respond();
    clock.advance(5000);
    expect(serverMs() - (serverClock.nowMs() ?? 0)).to.equal(250);
  });

  it('returns by how much it may be ahead from when the wall clock gains time to the next response', () => {
    const { clock, serverClock, serverMs, respond } = createWorld();
    expect(serverClock.maxAheadMs()).to.equal(0);
    clock.suspend(3_600_000);
    expect(serverClock.maxAheadMs(), 'before the first response').to.equal(0);
    respond();
    clock.suspend(1000);
    expect(serverClock.maxAheadMs(), 'a drift').to.equal(0);
    clock.suspend(3_600_000);
    clock.advance(1000);
    expect(serverClock.maxAheadMs()).to.equal(3_601_000);
    expect((serverClock.nowMs() ?? 0) - serverMs()).to.equal(3_601_000 - 250);
    respond();
    expect(serverClock.maxAheadMs()).to.equal(0);
    clock.suspend(-3_600_000);
    expect(serverClock.maxAheadMs(), 'set back').to.equal(0);
  });

  it('ignores a wall clock that is set back or drifts, and one that was set forward before a response', () => {
    const { clock, serverClock, serverMs, respond } = createWorld();
    respond();
    for (const ms of [-3_600_000, 900]) {
      clock.suspend(ms);
      expect(serverMs() - (serverClock.nowMs() ?? 0)).to.equal(250);
    }
    clock.suspend(3_600_000);
    clock.advance(1000);
    respond();
    expect(serverMs() - (serverClock.nowMs() ?? 0)).to.equal(250);
  });

  it('becomes more precise with each response that follows the start of a second more closely', () => {
    const { clock, serverClock, serverMs, respond } = createWorld();
    respond();
    expect(serverMs() - (serverClock.nowMs() ?? 0)).to.equal(250);
    clock.advance(760);
    respond();
    expect(serverMs() - (serverClock.nowMs() ?? 0)).to.equal(10);
    clock.advance(500);
    respond();
    expect(serverMs() - (serverClock.nowMs() ?? 0)).to.equal(10);
  });

  it('follows a clock that is set forward at once, and one that is set back within 2 minutes', () => {
    const { clock, serverClock, serverMs, respond, step } = createWorld();
    respond();
    step(3_600_000);
    respond();
    expect(serverMs() - (serverClock.nowMs() ?? 0)).to.equal(250);
    step(-3_600_000);
    for (let passedMs = 0; passedMs <= 125_000; passedMs += 5000) {
      respond();
      clock.advance(5000);
    }
    expect(serverMs() - (serverClock.nowMs() ?? 0)).to.be.within(0, 1000);
  });

  it('forgets what it knew before a long time without responses', () => {
    const { clock, serverClock, serverMs, respond, step } = createWorld();
    respond();
    clock.advance(600_000);
    step(-60_000);
    respond();
    expect(serverMs() - (serverClock.nowMs() ?? 0)).to.be.within(0, 1000);
  });
});
