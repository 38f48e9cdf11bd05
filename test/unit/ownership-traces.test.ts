/**
 * The shortest traces that a model checker found for each rule of ownership left out (docs/decisions/0005), replayed in
 * fake time with the real controller on each replica. Each is played twice: with the rules as they are nothing is lost,
 * and with that one rule left out the trace breaks what the rule is for. So no test here can pass by not testing.
 */
import { expect } from 'chai';

import { Ownership, type WritePermission } from '../../src/core/ownership.ts';
import type { ObservedReporter } from '../../src/core/reporter-object.ts';
import { manifestFor } from '../../src/core/tunnel-object.ts';
import {
  createMultiReplicaHarness,
  type ReplicaOptions,
  type MultiReplicaHarness,
} from '../support/multi-replica-harness.ts';
import { delta, fullPush, names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const T1 = tunnel('node-1');
const NAME = names.reporterObjectName(RESPONDER);
const MINUTE = 60_000;

/** Rows are written as soon as a claim is wanted. */
class RowsBeforeTheClaimIsConfirmed extends Ownership {
  override get owns(): boolean {
    return this.hasStream || super.owns;
  }
}

/** What others did to rows is undone by what the caches say. */
class UndoesWithoutReading extends Ownership {
  override canWrite(): WritePermission {
    return this.owns ? 'allow' : 'deny';
  }
}

/** Only a higher epoch ends ownership. */
class ComparesEpochs extends Ownership {
  override onObserved(seen: ObservedReporter | undefined, nowMs: number): void {
    if (!this.#isLower(seen)) super.onObserved(seen, nowMs);
  }
  override readAnswered(
    seen: ObservedReporter | undefined,
    mark: number,
    sentMs: number,
    nowMs: number,
  ): void {
    super.readAnswered(this.#isLower(seen) ? this.observed : seen, mark, sentMs, nowMs);
  }
  #isLower(seen: ObservedReporter | undefined): boolean {
    const own = this.owner;
    return (
      own !== undefined && (seen?.owner?.epoch ?? 0) <= own.epoch && seen?.owner?.replica !== own.replica
    );
  }
}

/** Collects at once, whoever owned before. */
class CollectsBeforeTheStreamHasSpoken extends Ownership {
  override canDelete(): WritePermission {
    return this.canWrite();
  }
}

/** Expires by what the caches say. */
class ExpiresWithoutReading extends Ownership {
  override canExpire(): WritePermission {
    return this.owns && !this.hasStream ? 'allow' : 'deny';
  }
}

/** A leader that holds an owner for dead acts on its rows at once. */
class ActsWithoutAClaim extends Ownership {
  #acts = false;
  override takeOver(): void {
    this.#acts = true;
  }
  override get owns(): boolean {
    return this.#acts || super.owns;
  }
  override get hasConfirmedClaim(): boolean {
    return this.#acts || super.hasConfirmedClaim;
  }
  override get isIdle(): boolean {
    return !this.#acts && super.isIdle;
  }
  override canExpire(): WritePermission {
    return 'allow';
  }
}

function leavingOut(Rule: typeof Ownership): ReplicaOptions {
  return { createOwnership: (self, spokenAfterMs) => new Rule(self, spokenAfterMs) };
}

/** Plays a trace in a world of its own; gives how often the row of T1, which lives throughout, was deleted. */
async function play(trace: (world: MultiReplicaHarness) => Promise<void>): Promise<number> {
  const world = createMultiReplicaHarness();
  try {
    await trace(world);
    return world.deletions.filter((deletion) => deletion.endsWith(' node-1')).length;
  } finally {
    world.stop();
    await world.settle();
  }
}

/** An Envoy moves from A, which owns nothing of it, to B, whose claim is on its way. */
async function claimOnItsWay(world: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = world.replica('a', rules);
  const b = world.replica('b', rules);
  a.connect(RESPONDER, fullPush());
  await world.settle();
  // Of B only what it sends to rows arrives at once.
  const claim = world.reporterApi.patchStatus.bind(world.reporterApi);
  let arrive = (): void => {};
  const arrived = new Promise<void>((resolve) => {
    arrive = resolve;
  });
  world.reporterApi.patchStatus = async (name, version, patch) => {
    if (patch.owner?.replica === 'b') await arrived;
    return await claim(name, version, patch);
  };
  b.connect(RESPONDER, fullPush(T1));
  await world.advance(3000);
  arrive();
  await world.advance(3000);
  b.report(RESPONDER, delta([]));
  await world.advance(MINUTE);
  expect(world.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
}

/** B has claimed and created T1; A sees the row before it sees the claim. */
async function rowsAheadOfReporters(world: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = world.replica('a', rules);
  const b = world.replica('b');
  a.connect(RESPONDER, fullPush());
  await world.advance(2000);
  a.state.watchesReporters = false;
  b.connect(RESPONDER, fullPush(T1));
  await world.settle();
  a.report(RESPONDER, delta([]));
  await world.advance(5000);
  a.state.watchesReporters = true;
  await world.advance(1000);
  b.report(RESPONDER, delta([]));
  await world.advance(MINUTE);
  expect(world.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
}

/** An empty full push lies unread at A while the Envoy moves to B; A reads it, and claims rightfully. */
async function unreadFullPush(world: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = world.replica('a', rules);
  const b = world.replica('b');
  b.connect(RESPONDER, fullPush(T1));
  await world.advance(2000);
  a.connect(RESPONDER, fullPush());
  await world.settle();
  expect(world.owner(RESPONDER)).to.equal('a');
  await world.advance(1000);
  b.report(RESPONDER, delta([]));
  await world.advance(5000);
  b.report(RESPONDER, delta([]));
  // Nobody is at the other end of A's stream, which keepalive finds.
  await world.advance(30_000);
  a.disconnect(RESPONDER);
  await world.advance(MINUTE);
  expect(world.owner(RESPONDER)).to.equal('b');
  expect(world.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
}

/** The same, and B is dead by the time that A reads. */
async function unreadFullPushAfterADeath(world: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = world.replica('a', rules);
  const b = world.replica('b');
  b.connect(RESPONDER, fullPush(T1));
  await world.settle();
  b.crash();
  a.connect(RESPONDER, fullPush());
  await world.advance(3000);
  expect(world.owner(RESPONDER)).to.equal('a');
  // The live Envoy comes to A as well, with a stream that is the newer one.
  a.connect(RESPONDER, fullPush(T1));
  await world.advance(MINUTE);
  expect(world.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
}

/** The reporter's object is deleted by hand while the Envoy moves to B, which makes a new one and begins at 1. */
async function objectMadeAnew(world: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = world.replica('a', rules);
  const b = world.replica('b');
  a.connect(RESPONDER, fullPush());
  await world.advance(2000);
  a.report(RESPONDER, delta([]));
  await world.settle();
  a.state.watchesReporters = false;
  a.state.watchesTunnels = false;
  world.reporterApi.deleteManually(NAME);
  await world.settle();
  b.connect(RESPONDER, fullPush(T1));
  await world.settle();
  a.state.watchesTunnels = true;
  await world.advance(5000);
  a.state.watchesReporters = true;
  await world.advance(1000);
  b.report(RESPONDER, delta([]));
  await world.advance(MINUTE);
  expect(world.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
}

/** A owns without a stream, and its time is up; B has claimed without changing a row, which A does not see. */
async function claimUnseenAtExpiry(world: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = world.replica('a', rules);
  const b = world.replica('b');
  a.connect(RESPONDER, fullPush(T1));
  await world.advance(2000);
  a.disconnect(RESPONDER);
  await world.advance(290_000);
  a.state.watchesReporters = false;
  b.connect(RESPONDER, fullPush(T1));
  await world.advance(5000);
  b.report(RESPONDER, delta([]));
  await world.advance(30_000);
  a.state.watchesReporters = true;
  b.report(RESPONDER, delta([]));
  await world.advance(MINUTE);
  expect(world.owner(RESPONDER)).to.equal('b');
}

/** A leader holds A for dead for 20 minutes, while A lives and serves. */
async function wronglyHeldForDead(world: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = world.replica('a');
  const leader = world.replica('leader', rules);
  leader.state.leads = true;
  a.connect(RESPONDER, fullPush(T1));
  await world.advance(2000);
  leader.state.presumedDead.add('a');
  for (let reports = 0; reports < 240; reports += 1) {
    await world.advance(5000);
    a.report(RESPONDER, delta([]));
  }
  leader.state.presumedDead.delete('a');
  await world.advance(MINUTE);
  a.report(RESPONDER, delta([]));
  await world.advance(MINUTE);
  expect(world.owner(RESPONDER)).to.equal('a');
  expect(world.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
}

describe('the traces that break ownership', () => {
  const traces: [
    rule: string,
    trace: (world: MultiReplicaHarness, rules: ReplicaOptions) => Promise<void>,
    without: ReplicaOptions,
  ][] = [
    ['no row before the claim is confirmed', claimOnItsWay, leavingOut(RowsBeforeTheClaimIsConfirmed)],
    ['a fresh read before undoing what another did', rowsAheadOfReporters, leavingOut(UndoesWithoutReading)],
    ['a fresh read that is one, not from the cache', rowsAheadOfReporters, { readsFromCache: true }],
    ['ownership by equality, not by order', objectMadeAnew, leavingOut(ComparesEpochs)],
    [
      'no collecting before the stream has spoken again',
      unreadFullPush,
      leavingOut(CollectsBeforeTheStreamHasSpoken),
    ],
    [
      'nor when the owner before is dead',
      unreadFullPushAfterADeath,
      leavingOut(CollectsBeforeTheStreamHasSpoken),
    ],
    ['a fresh read before expiry', claimUnseenAtExpiry, leavingOut(ExpiresWithoutReading)],
    ['the leader only by claim', wronglyHeldForDead, leavingOut(ActsWithoutAClaim)],
  ];
  for (const [rule, trace, without] of traces) {
    it(`${rule}: a row that lives throughout is never deleted`, async () => {
      expect(await play((world) => trace(world, {}))).to.equal(0);
    });
    it(`${rule}: left out, the trace deletes it`, async () => {
      const deleted = await play((world) => trace(world, without).catch(() => undefined));
      expect(deleted).to.be.greaterThan(0);
    });
  }

  /** A's create times out, A expires the reporter and deletes its object, and then the create lands. */
  async function lateCreate(world: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
    const a = world.replica('a', rules);
    a.state.leads = true;
    a.connect(RESPONDER, fullPush());
    await world.advance(2000);
    a.disconnect(RESPONDER);
    await world.advance(6 * MINUTE);
    expect(world.reporterApi.objects.size).to.equal(0);
    world.tunnelApi.createManually(manifestFor(names, RESPONDER, T1));
    await world.advance(MINUTE);
    await world.advance(20_000);
  }

  it('orphans are claimed: a row that lands after its reporter has expired is gone within about a minute', async () => {
    await play(async (world) => {
      await lateCreate(world, {});
      expect(world.tunnelNames(RESPONDER)).to.deep.equal([]);
      expect(world.reporterApi.objects.size, 'the object made for it goes as well').to.equal(0);
    });
  });

  it('orphans are claimed: left out, the row stays for ever', async () => {
    await play(async (world) => {
      await lateCreate(world, { takesOverOrphans: false });
      expect(world.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
    });
  });

  it('two live Envoys with one id: places are traded ever more rarely, and the object says so', async () => {
    await play(async (world) => {
      const a = world.replica('a', { reportIntervalMs: 25 });
      const b = world.replica('b', { reportIntervalMs: 25 });
      a.connect(RESPONDER, fullPush(T1));
      b.connect(RESPONDER, fullPush(tunnel('node-2')));
      const claimsUntil = async (ms: number): Promise<number> => {
        world.reporterApi.calls.length = 0;
        for (let passed = 0; passed < ms; passed += 250) {
          a.report(RESPONDER, delta([]));
          b.report(RESPONDER, delta([]));
          await world.advance(250);
        }
        return world.reporterApi.calls.filter((call) => call.startsWith('patchStatus')).length;
      };
      const first = await claimsUntil(MINUTE);
      expect(world.condition(RESPONDER, 'IdentityConflict')).to.equal('True DuplicateReporterID');
      expect(first, 'status writes in the first minute').to.be.within(5, 40);
      await claimsUntil(5 * MINUTE);
      expect(await claimsUntil(10 * MINUTE), 'in ten minutes, later').to.be.at.most(20);
      a.disconnect(RESPONDER);
      for (let minutes = 0; minutes < 25; minutes += 1) {
        b.report(RESPONDER, delta([]));
        await world.advance(MINUTE);
      }
      expect(world.condition(RESPONDER, 'IdentityConflict'), 'after it has ended').to.equal('none');
      expect(world.tunnelNames(RESPONDER)).to.deep.equal(['node-2']);
    });
  });

  it('two live Envoys with one id on one replica: the rows swing ever more rarely', async () => {
    await play(async (world) => {
      const a = world.replica('a');
      const pushes = [fullPush(T1), fullPush(tunnel('node-2'))] as const;
      const swing = async (times: number): Promise<number> => {
        world.tunnelApi.calls.length = 0;
        for (let turn = 0; turn < times; turn += 1) {
          // Each is ended by the other's return, and returns after Envoy's 5 s.
          a.connect(RESPONDER, pushes[turn % 2 === 0 ? 0 : 1]);
          await world.advance(2500);
        }
        return world.tunnelApi.writes;
      };
      await swing(24);
      expect(world.condition(RESPONDER, 'IdentityConflict')).to.equal('True DuplicateReporterID');
      world.reporterApi.calls.length = 0;
      expect(await swing(240), 'row writes in ten minutes, later').to.be.at.most(4);
      const claims = world.reporterApi.calls.filter((call) => call.startsWith('patchStatus')).length;
      expect(claims, 'claims meanwhile: few, but some').to.be.within(1, 8);
      // One is left, and is heard.
      a.connect(RESPONDER, fullPush(tunnel('node-2')));
      for (let reports = 0; reports < 130; reports += 1) {
        await world.advance(5000);
        a.report(RESPONDER, delta([]));
      }
      await world.advance(MINUTE);
      expect(world.tunnelNames(RESPONDER)).to.deep.equal(['node-2']);
      expect(world.condition(RESPONDER, 'IdentityConflict')).to.equal('none');
    });
  });
});
