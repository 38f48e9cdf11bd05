import { expect } from 'chai';
import { pino } from 'pino';
import { TakeoverController } from '../../src/controller/takeover-controller.ts';
import { ReporterCache } from '../../src/controller/reporter-cache.ts';
import type { ReporterObject } from '../../src/core/reporter-object.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { names, OTHER_RESPONDER, RESPONDER } from '../support/sample-tunnels.ts';

/** The object of a reporter that another replica owns. */
function owned(owner: string): ReporterObject {
  return {
    metadata: { name: names.reporterObjectName(RESPONDER), uid: 'uid-1', resourceVersion: '10' },
    spec: RESPONDER,
    status: { owner: { replica: owner, epoch: 3 } },
  };
}

/** A scanning replica; takeovers are recorded as `id` or `id orphan`. */
function createScene() {
  const clock = new FakeClock();
  const inherited: string[] = [];
  const world = {
    leads: true,
    mayWrite: true,
    otherLives: false,
    ownLeaseShows: true,
    orphans: [] as string[],
  };
  const cache = new ReporterCache(names);
  cache.upsert(owned('other'));
  const inheritance = new TakeoverController({
    self: 'self',
    leader: {
      get isHeld() {
        return world.leads;
      },
    },
    registry: { entry: () => undefined },
    reporters: {
      isActive: () => false,
      takeOver: ({ id }, orphan) => void inherited.push(orphan ? `${id} orphan` : id),
    },
    cache,
    mirrored: { reporterKeys: () => world.orphans },
    replicas: { isAlive: () => world.ownLeaseShows, *expiredLeases() {} },
    fence: {
      canWrite: () => world.mayWrite,
      isAlive: () => world.otherLives,
      isServing: () => world.otherLives,
    },
    readiness: { hasSynced: true },
    leases: { delete: () => Promise.resolve() },
    clock,
    log: pino({ level: 'silent' }),
  });
  inheritance.start();
  return { clock, world, inherited, stop: () => inheritance.stop() };
}

describe('the reporters of a dead owner', () => {
  it('are claimed by the leader once they have been orphaned for 5 s', () => {
    const { clock, inherited, stop } = createScene();
    clock.advance(4000);
    expect(inherited).to.deep.equal([]);
    clock.advance(4000);
    expect(inherited).to.include(RESPONDER.id);
    stop();
    expect(clock.pendingTimersMs).to.deep.equal([]);
  });

  it('are not claimed while their owner is alive, nor by a replica that is fenced or not the leader', () => {
    for (const other of [{ otherLives: true }, { leads: false }, { mayWrite: false }]) {
      const { clock, world, inherited, stop } = createScene();
      Object.assign(world, other);
      clock.advance(60_000);
      expect(inherited).to.deep.equal([]);
      stop();
    }
  });

  it('are not evaluated with a watch of Leases that lacks the own Lease, because all others would appear dead', () => {
    const { clock, world, inherited, stop } = createScene();
    world.ownLeaseShows = false;
    clock.advance(60_000);
    expect(inherited).to.deep.equal([]);
    world.ownLeaseShows = true;
    clock.advance(4000);
    expect(inherited, 'the 5 s begin only now').to.deep.equal([]);
    clock.advance(4000);
    expect(inherited).to.include(RESPONDER.id);
    stop();
  });

  it('may be orphaned objects, which are claimed by creating the reporter object', () => {
    const { clock, world, inherited, stop } = createScene();
    world.otherLives = true;
    world.orphans = [reporterKey(OTHER_RESPONDER), reporterKey(RESPONDER)];
    clock.advance(10_000);
    expect(new Set(inherited)).to.deep.equal(new Set([`${OTHER_RESPONDER.id} orphan`]));
    stop();
  });
});
