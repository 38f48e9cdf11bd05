import { expect } from 'chai';
import { pino } from 'pino';
import { runPeriodically } from '../../src/run-periodically.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { flushEventLoop } from '../support/fake-time.ts';

interface LogLine {
  readonly msg: string;
  readonly task: string;
  readonly err: { readonly message: string };
  readonly suppressed?: number;
}

describe('runPeriodically', () => {
  let lines: LogLine[];
  const log = pino({}, { write: (line) => lines.push(JSON.parse(line) as LogLine) });
  beforeEach(() => {
    lines = [];
  });

  it('runs the task after each interval', () => {
    const clock = new FakeClock();
    let runs = 0;
    const stop = runPeriodically(clock, log, {
      name: 'count',
      intervalMs: 1000,
      run: () => void (runs += 1),
    });
    clock.advance(999);
    expect(runs).to.equal(0);
    clock.advance(1);
    expect(runs).to.equal(1);
    clock.advance(5000);
    expect(runs).to.equal(6);
    stop();
  });

  it('does not start a run before the previous one has finished', async () => {
    const clock = new FakeClock();
    const pending: (() => void)[] = [];
    const stop = runPeriodically(clock, log, {
      name: 'wait',
      intervalMs: 1000,
      run: () => new Promise<void>((resolve) => pending.push(resolve)),
    });
    clock.advance(10_000);
    expect(pending).to.have.length(1);
    pending[0]?.();
    await flushEventLoop();
    clock.advance(999);
    expect(pending).to.have.length(1);
    clock.advance(1);
    expect(pending).to.have.length(2);
    stop();
  });

  it('starts no further run once it is stopped, also from within the task', async () => {
    const clock = new FakeClock();
    let runs = 0;
    const stop = runPeriodically(clock, log, {
      name: 'stop itself',
      intervalMs: 1000,
      run() {
        runs += 1;
        stop();
      },
    });
    const slow: (() => void)[] = [];
    const stopSlow = runPeriodically(clock, log, {
      name: 'wait',
      intervalMs: 1000,
      run: () => new Promise<void>((resolve) => slow.push(resolve)),
    });
    clock.advance(1000);
    stopSlow();
    slow[0]?.();
    await flushEventLoop();
    clock.advance(10_000);
    expect([runs, slow.length]).to.deep.equal([1, 1]);
  });

  for (const { how, fail } of [
    {
      how: 'throws',
      fail: (): void => {
        throw new Error('a bug');
      },
    },
    { how: 'rejects', fail: (): Promise<void> => Promise.reject(new Error('a bug')) },
  ]) {
    it(`logs the error of a task that ${how} once per minute, and runs the task again`, async () => {
      const clock = new FakeClock();
      let runs = 0;
      const stop = runPeriodically(clock, log, {
        name: 'fail',
        intervalMs: 1000,
        run() {
          runs += 1;
          return fail();
        },
      });
      for (let second = 0; second < 61; second += 1) {
        clock.advance(1000);
        await flushEventLoop();
      }
      expect(runs).to.equal(61);
      expect(lines).to.have.length(2);
      expect(lines[0]).to.deep.include({ msg: 'unexpected error in a periodic task', task: 'fail' });
      expect(lines[0]?.err.message).to.equal('a bug');
      expect(lines[1]?.suppressed).to.equal(59);
      stop();
      expect(clock.pendingTimersMs).to.deep.equal([]);
    });
  }
});
