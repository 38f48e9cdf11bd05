import { expect } from 'chai';
import type { Clock } from '../../src/clock.ts';
import { ApiError } from '../../src/k8s/api-error.ts';
import { Lease, type LeaseSpec } from '../../src/k8s/lease.ts';
import { rfc3339Micro } from '../../src/timestamps.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { advanceTime, flushEventLoop } from '../support/fake-time.ts';
import { MemoryLeases } from '../support/memory-api.ts';

const NAME = 'the-lease';
const AWAY = new ApiError('unavailable', 'connect ECONNREFUSED');
const HOUR_MS = 3_600_000;

describe('MicroTime', () => {
  it('has exactly six fraction digits', () => {
    expect(rfc3339Micro(Date.UTC(2026, 10, 23, 5, 0, 0, 7))).to.equal('2026-11-23T05:00:00.007000Z');
  });
});

describe('a Lease', () => {
  let clock: FakeClock;
  let leases: MemoryLeases;
  const running: Lease[] = [];

  beforeEach(() => {
    clock = new FakeClock();
    clock.advance(1000);
    leases = new MemoryLeases();
  });
  afterEach(async () => {
    leases.failure = undefined;
    leases.delay = undefined;
    await Promise.all(running.splice(0).map((lease) => lease.release()));
    expect(clock.pendingTimersMs, 'timers left').to.deep.equal([]);
  });

  /** Creates a holder whose wall clock is ahead by `aheadMs`. */
  function holder(identity: string, { own = false, aheadMs = 0, watches = true } = {}) {
    const ownClock: Clock = {
      monotonicMs: () => clock.monotonicMs(),
      wallMs: () => clock.wallMs() + aheadMs,
      setTimer: (delayMs, callback) => clock.setTimer(delayMs, callback),
      setImmediate: (callback) => clock.setImmediate(callback),
    };
    const seen = { times: 0, may: true, failures: 0, setBack: 0 };
    const lease = new Lease({
      client: leases,
      name: NAME,
      identity,
      exclusive: own,
      fence: { canWrite: () => seen.may },
      clock: ownClock,
      random: () => 0.5,
    });
    lease.addEventHandler({
      onAcquired: () => {
        seen.times += 1;
      },
      onRollback: () => {
        seen.setBack += 1;
      },
      onResult: (failure) => {
        if (failure !== undefined) seen.failures += 1;
      },
    });
    if (watches) leases.watches.push((name, object) => name === NAME && lease.onWatchEvent(object));
    running.push(lease);
    lease.start();
    return Object.assign(lease, { seen });
  }

  const advance = (ms: number): Promise<void> => advanceTime(clock, ms);

  it('is held once it is written, and renewed every 5 s', async () => {
    const lease = holder('a');
    expect(lease.isHeld).to.equal(false);
    await flushEventLoop();
    expect(lease.isHeld).to.equal(true);
    await advance(60_000);
    expect(lease.isHeld).to.equal(true);
    expect(lease.seen.times).to.equal(1);
    expect(leases.writes).to.have.length(1 + 12);
  });

  it('has one holder of many candidates and costs the others no writes', async () => {
    const all = ['a', 'b', 'c'].map((identity) => holder(identity));
    await advance(60_000);
    expect(all.filter(({ isHeld }) => isHeld)).to.have.length(1);
    expect(new Set(leases.writes.map((write) => write.split(' ')[2])).size).to.equal(1);
  });

  it('is given up by its holder 10 s after the last renewal was sent, before others may take it', async () => {
    const a = holder('a', { watches: false });
    await flushEventLoop();
    leases.failure = AWAY;
    await advance(9999);
    expect(a.isHeld).to.equal(true);
    await advance(2);
    expect(a.isHeld).to.equal(false);
    expect(a.seen.failures).to.be.greaterThan(2);
    leases.failure = undefined;
    await advance(3000);
    expect([a.isHeld, a.seen.times]).to.deep.equal([true, 2]);
  });

  const rewrites: Record<string, (spec: LeaseSpec | undefined) => LeaseSpec | undefined> = {
    'another holder': (spec) => ({ ...spec, holderIdentity: 'another' }),
    'no holder': (spec) => ({ ...spec, holderIdentity: null }),
    'a renewal time that never changes': (spec) => ({ ...spec, renewTime: '2026-11-23T05:00:00.000000Z' }),
    'no spec': () => undefined,
  };
  for (const [rewrite, admit] of Object.entries(rewrites)) {
    for (const own of [true, false]) {
      it(`is not held if admission stores ${rewrite} (${own ? 'exclusive' : 'shared'})`, async () => {
        const lease = holder('a', { own });
        await flushEventLoop();
        expect(lease.isHeld).to.equal(true);
        leases.admit = ({ spec, ...object }) => {
          const stored = admit(spec);
          return stored === undefined ? object : { ...object, spec: stored };
        };
        await advance(60_000);
        expect(lease.isHeld).to.equal(false);
        expect(lease.seen.failures).to.be.within(1, 60);
        expect(leases.writes.length, 'at most one write per second').to.be.at.most(62);
        leases.admit = undefined;
        await advance(20_000);
        expect(lease.isHeld).to.equal(true);
        expect(lease.seen.setBack, 'the watch may be ahead of the first response').to.be.at.most(1);
      });
    }
  }

  it('is held if admission rewrites what no other process reads', async () => {
    const lease = holder('a', { own: true });
    leases.admit = ({ spec, ...object }) => ({
      ...object,
      spec: { ...spec, leaseDurationSeconds: 1, leaseTransitions: 9 },
    });
    await advance(60_000);
    expect([lease.isHeld, lease.seen.failures]).to.deep.equal([true, 0]);
  });

  it('is valid from when the renewal was sent, not from its response', async () => {
    const a = holder('a', { watches: false });
    await flushEventLoop();
    const { promise, resolve } = Promise.withResolvers<void>();
    leases.delay = promise;
    await advance(20_000);
    leases.delay = undefined;
    resolve();
    await flushEventLoop();
    expect(a.isHeld, 'the response is 15 s late').to.equal(false);
    await advance(2000);
    expect(a.isHeld).to.equal(true);
  });

  it('of a dead holder is taken after 15 s without a change, within 17 s of the last renewal', async () => {
    const a = holder('a');
    await flushEventLoop();
    const b = holder('b');
    await advance(12_000);
    // Dead: it neither renews nor releases.
    a.seen.may = false;
    const [lastMs] = [clock.monotonicMs()];
    while (!b.isHeld) await advance(100);
    expect(clock.monotonicMs() - lastMs).to.be.within(10_000, 17_000);
  });

  it('is taken immediately after its release', async () => {
    const a = holder('a');
    await flushEventLoop();
    const b = holder('b');
    await advance(7000);
    await a.release();
    await flushEventLoop();
    expect([a.isHeld, b.isHeld]).to.deep.equal([false, true]);
  });

  it('does not depend on wall clocks that differ by two hours', async () => {
    const a = holder('a', { aheadMs: HOUR_MS });
    await flushEventLoop();
    const b = holder('b', { aheadMs: -HOUR_MS });
    const c = holder('c');
    await advance(120_000);
    expect([a.isHeld, b.isHeld, c.isHeld]).to.deep.equal([true, false, false]);
    a.seen.may = false;
    await advance(17_000);
    expect([a, b, c].filter(({ isHeld }) => isHeld)).to.have.length(1);
    expect(a.isHeld).to.equal(false);
  });

  it('with a manually edited duration of a year has no leader for at most 15 s, then one', async () => {
    const a = holder('a');
    const b = holder('b');
    await advance(6000);
    leases.editManually(NAME, {
      holderIdentity: 'other',
      leaseDurationSeconds: 31_536_000,
      renewTime: '2099-01-01T00:00:00.000000Z',
    });
    await flushEventLoop();
    expect([a.isHeld, b.isHeld], 'at once').to.deep.equal([false, false]);
    await advance(17_000);
    expect([a, b].filter(({ isHeld }) => isHeld)).to.have.length(1);
  });

  it('is recreated by one candidate after a manual deletion', async () => {
    const a = holder('a');
    const b = holder('b');
    await advance(6000);
    leases.deleteManually(NAME);
    await advance(17_000);
    expect([a, b].filter(({ isHeld }) => isHeld)).to.have.length(1);
  });

  it('does not count a changed label as a sign of life', async () => {
    const a = holder('a');
    await flushEventLoop();
    const b = holder('b');
    await flushEventLoop();
    a.seen.may = false;
    for (let times = 0; times < 20; times += 1) {
      await advance(1000);
      leases.editManually(NAME, {}, { edited: String(times) });
    }
    expect(b.isHeld).to.equal(true);
  });

  it('that is exclusive is taken back immediately after an edit and deleted on release', async () => {
    const own = holder('me', { own: true });
    await advance(6000);
    leases.editManually(NAME, { holderIdentity: 'mallory' });
    await advance(1000);
    expect(leases.stored.get(NAME)?.spec?.holderIdentity).to.equal('me');
    leases.deleteManually(NAME);
    await advance(1000);
    expect(leases.stored.get(NAME)?.spec?.holderIdentity).to.equal('me');
    expect([own.isHeld, own.seen.times], 'held continuously').to.deep.equal([true, 1]);
    await own.release();
    expect(leases.stored.size).to.equal(0);
  });

  it('reports a rollback if the stored version is older than one seen before: etcd was restored', async () => {
    const restoreEmpty = leases.backup();
    const lease = holder('a', { own: true, watches: false });
    await advance(20_000);
    leases.editManually(NAME, { holderIdentity: 'mallory' });
    await advance(20_000);
    expect([lease.isHeld, lease.seen.setBack], 'the holder has changed').to.deep.equal([true, 0]);
    const restore = leases.backup();
    await advance(20_000);
    restore();
    await advance(20_000);
    expect([lease.isHeld, lease.seen.setBack]).to.deep.equal([true, 1]);
    leases.deleteManually(NAME);
    await advance(20_000);
    expect([lease.isHeld, lease.seen.setBack], 'deleted manually').to.deep.equal([true, 1]);
    restoreEmpty();
    await advance(20_000);
    expect([lease.isHeld, lease.seen.setBack], 'recreated in an older store').to.deep.equal([true, 2]);
  });

  for (const watches of [true, false]) {
    it(`that is exclusive reports a rollback for a foreign renewal at a newer version: etcd was restored to another history${watches ? '' : ', without a watch event'}`, async () => {
      const lease = holder('a', { own: true, watches });
      await advance(20_000);
      leases.editManually(NAME, { renewTime: '2026-11-22T00:00:00.000000Z' });
      await advance(20_000);
      expect([lease.isHeld, lease.seen.setBack]).to.deep.equal([true, 1]);
    });
  }

  it('accepts its own renewal whose response was lost', async () => {
    const lease = holder('a', { own: true });
    await advance(6000);
    const patch = leases.patch.bind(leases);
    leases.patch = async (name, sent) => {
      await patch(name, sent);
      throw AWAY;
    };
    await advance(6000);
    leases.patch = patch;
    await advance(20_000);
    expect([lease.isHeld, lease.seen.setBack]).to.deep.equal([true, 0]);
    expect(lease.seen.failures).to.be.greaterThan(0);
  });

  it('reports no rollback for a Lease that a previous process of the same name left behind', async () => {
    await holder('a', { own: true }).release();
    await leases.create({
      metadata: { name: NAME },
      spec: { holderIdentity: 'a', renewTime: '2026-11-22T00:00:00.000000Z' },
    });
    const lease = holder('a', { own: true });
    await advance(20_000);
    expect([lease.isHeld, lease.seen.setBack]).to.deep.equal([true, 0]);
  });

  it('is not acquired while acquiring is not allowed', async () => {
    const lease = holder('a');
    lease.seen.may = false;
    await advance(60_000);
    expect(leases.writes.length).to.be.at.most(1);
  });
});
