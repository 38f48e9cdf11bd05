import { expect } from 'chai';
import type { Clock } from '../../src/clock.ts';
import { ApiError } from '../../src/k8s/api-error.ts';
import { Lease } from '../../src/k8s/lease.ts';
import { rfc3339Micro } from '../../src/timestamps.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { advanceTime, flushEventLoop } from '../support/fake-time.ts';
import { MemoryLeases } from '../support/memory-leases.ts';

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

  /** A holder whose wall clock is ahead by so much. */
  function holder(identity: string, { own = false, aheadMs = 0, watches = true } = {}) {
    const ownClock: Clock = {
      monotonicMs: () => clock.monotonicMs(),
      wallMs: () => clock.wallMs() + aheadMs,
      setTimer: (delayMs, callback) => clock.setTimer(delayMs, callback),
    };
    const seen = { times: 0, may: true, failures: 0, setBack: 0 };
    const lease = new Lease({
      client: leases,
      name: NAME,
      identity,
      exclusive: own,
      canAcquire: () => seen.may,
      onAcquired: () => {
        seen.times += 1;
      },
      onRollback: () => {
        seen.setBack += 1;
      },
      onResult: (failure) => {
        if (failure !== undefined) seen.failures += 1;
      },
      clock: ownClock,
      random: () => 0.5,
    });
    if (watches) leases.watches.push((name, object) => name === NAME && lease.onWatchEvent(object));
    running.push(lease);
    lease.start();
    return Object.assign(lease, { seen });
  }

  const pass = (ms: number): Promise<void> => advanceTime(clock, ms);

  it('is held once it is written, and renewed every 5 s', async () => {
    const lease = holder('a');
    expect(lease.isHeld).to.equal(false);
    await flushEventLoop();
    expect(lease.isHeld).to.equal(true);
    await pass(60_000);
    expect(lease.isHeld).to.equal(true);
    expect(lease.seen.times).to.equal(1);
    expect(leases.writes).to.have.length(1 + 12);
  });

  it('is held by one of many, and costs the others no write', async () => {
    const all = ['a', 'b', 'c'].map((identity) => holder(identity));
    await pass(60_000);
    expect(all.filter(({ isHeld }) => isHeld)).to.have.length(1);
    expect(new Set(leases.writes.map((write) => write.split(' ')[2])).size).to.equal(1);
  });

  it('is given up by its holder 10 s after the last renewal was sent, before others may take it', async () => {
    const a = holder('a', { watches: false });
    await flushEventLoop();
    leases.failure = AWAY;
    await pass(9999);
    expect(a.isHeld).to.equal(true);
    await pass(2);
    expect(a.isHeld).to.equal(false);
    expect(a.seen.failures).to.be.greaterThan(2);
    leases.failure = undefined;
    await pass(3000);
    expect([a.isHeld, a.seen.times]).to.deep.equal([true, 2]);
  });

  it('counts from when the renewal was sent, not from its answer', async () => {
    const a = holder('a', { watches: false });
    await flushEventLoop();
    const { promise, resolve } = Promise.withResolvers<void>();
    leases.delay = promise;
    await pass(20_000);
    leases.delay = undefined;
    resolve();
    await flushEventLoop();
    expect(a.isHeld, 'that answer is 15 s old').to.equal(false);
    await pass(2000);
    expect(a.isHeld).to.equal(true);
  });

  it('of a dead holder is taken after 15 s without a change, within 17 s of its last sign', async () => {
    const a = holder('a');
    await flushEventLoop();
    const b = holder('b');
    await pass(12_000);
    // Dead: it renews no more, and gives nothing up.
    a.seen.may = false;
    const [lastMs] = [clock.monotonicMs()];
    while (!b.isHeld) await pass(100);
    expect(clock.monotonicMs() - lastMs).to.be.within(10_000, 17_000);
  });

  it('that is given up is taken at once', async () => {
    const a = holder('a');
    await flushEventLoop();
    const b = holder('b');
    await pass(7000);
    await a.release();
    await flushEventLoop();
    expect([a.isHeld, b.isHeld]).to.deep.equal([false, true]);
  });

  it('does not depend on clocks: an hour ahead and an hour behind', async () => {
    const a = holder('a', { aheadMs: HOUR_MS });
    await flushEventLoop();
    const b = holder('b', { aheadMs: -HOUR_MS });
    const c = holder('c');
    await pass(120_000);
    expect([a.isHeld, b.isHeld, c.isHeld]).to.deep.equal([true, false, false]);
    a.seen.may = false;
    await pass(17_000);
    expect([a, b, c].filter(({ isHeld }) => isHeld)).to.have.length(1);
    expect(a.isHeld).to.equal(false);
  });

  it('edited by hand, with a year of duration: nobody leads for 15 s at most, then one does', async () => {
    const a = holder('a');
    const b = holder('b');
    await pass(6000);
    leases.editManually(NAME, {
      holderIdentity: 'nobody',
      leaseDurationSeconds: 31_536_000,
      renewTime: '2099-01-01T00:00:00.000000Z',
    });
    await flushEventLoop();
    expect([a.isHeld, b.isHeld], 'at once').to.deep.equal([false, false]);
    await pass(17_000);
    expect([a, b].filter(({ isHeld }) => isHeld)).to.have.length(1);
  });

  it('deleted by hand is made anew, by one of them', async () => {
    const a = holder('a');
    const b = holder('b');
    await pass(6000);
    leases.deleteManually(NAME);
    await pass(17_000);
    expect([a, b].filter(({ isHeld }) => isHeld)).to.have.length(1);
  });

  it('with a label edited by somebody proves nobody alive', async () => {
    const a = holder('a');
    await flushEventLoop();
    const b = holder('b');
    await flushEventLoop();
    a.seen.may = false;
    for (let times = 0; times < 20; times += 1) {
      await pass(1000);
      leases.editManually(NAME, {});
    }
    expect(b.isHeld).to.equal(true);
  });

  it('of its own is taken back at once from whoever edited it, and deleted at the end', async () => {
    const own = holder('me', { own: true });
    await pass(6000);
    leases.editManually(NAME, { holderIdentity: 'mallory' });
    await pass(1000);
    expect(leases.objects.get(NAME)?.spec?.holderIdentity).to.equal('me');
    leases.deleteManually(NAME);
    await pass(1000);
    expect(leases.objects.get(NAME)?.spec?.holderIdentity).to.equal('me');
    expect([own.isHeld, own.seen.times], 'it was held all the time').to.deep.equal([true, 1]);
    await own.release();
    expect(leases.objects.size).to.equal(0);
  });

  it('tells when what is stored is older than what was shown before: etcd was restored', async () => {
    const lease = holder('a', { own: true, watches: false });
    await pass(20_000);
    leases.editManually(NAME, { holderIdentity: 'mallory' });
    await pass(20_000);
    expect([lease.isHeld, lease.seen.setBack], 'another holder is newer').to.deep.equal([true, 0]);
    const backup = leases.objects.get(NAME);
    await pass(20_000);
    if (backup !== undefined) leases.objects.set(NAME, backup);
    await pass(20_000);
    expect([lease.isHeld, lease.seen.setBack]).to.deep.equal([true, 1]);
    leases.deleteManually(NAME);
    await pass(20_000);
    expect([lease.isHeld, lease.seen.setBack], 'deleted by hand').to.deep.equal([true, 1]);
    leases.deleteManually(NAME);
    leases.restoreVersion(50);
    await pass(20_000);
    expect([lease.isHeld, lease.seen.setBack], 'made anew in an older store').to.deep.equal([true, 2]);
  });

  for (const watches of [true, false]) {
    it(`tells of its own that somebody else renewed it, at a newer version: etcd was restored to another history${watches ? '' : ', and no watch showed it'}`, async () => {
      const lease = holder('a', { own: true, watches });
      await pass(20_000);
      leases.editManually(NAME, { renewTime: '2026-11-22T00:00:00.000000Z' });
      await pass(20_000);
      expect([lease.isHeld, lease.seen.setBack]).to.deep.equal([true, 1]);
    });
  }

  it('takes a renewal of its own whose answer was lost for its own', async () => {
    const lease = holder('a', { own: true });
    await pass(6000);
    const patch = leases.patch.bind(leases);
    leases.patch = async (name, sent) => {
      await patch(name, sent);
      throw AWAY;
    };
    await pass(6000);
    leases.patch = patch;
    await pass(20_000);
    expect([lease.isHeld, lease.seen.setBack]).to.deep.equal([true, 0]);
    expect(lease.seen.failures).to.be.greaterThan(0);
  });

  it('says nothing of a Lease that a former process of its name left behind', async () => {
    await holder('a', { own: true }).release();
    await leases.create({
      metadata: { name: NAME },
      spec: { holderIdentity: 'a', renewTime: '2026-11-22T00:00:00.000000Z' },
    });
    const lease = holder('a', { own: true });
    await pass(20_000);
    expect([lease.isHeld, lease.seen.setBack]).to.deep.equal([true, 0]);
  });

  it('is not tried for while that is not allowed', async () => {
    const lease = holder('a');
    lease.seen.may = false;
    await pass(60_000);
    expect(leases.writes.length).to.be.at.most(1);
  });
});
