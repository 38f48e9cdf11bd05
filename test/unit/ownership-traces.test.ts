/**
 * The shortest traces that the model checker found when one ownership rule is left out (docs/decisions/0005), replayed in
 * fake time with the real controller on each replica. Each trace is run twice: with all rules no object is lost, and
 * without the one rule the trace violates the invariant. The second run proves that the first one tests something.
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

/** Writes objects before the claim is confirmed. */
class WritesBeforeClaimConfirmed extends Ownership {
  override get owns(): boolean {
    return this.hasStream || super.owns;
  }
}

/** Reverts external changes based on the caches. */
class RevertsWithoutLiveRead extends Ownership {
  override canWrite(): WritePermission {
    return this.owns ? 'allow' : 'deny';
  }
}

/** Ends ownership only for a higher epoch. */
class ComparesEpochs extends Ownership {
  override onObserved(observed: ObservedReporter | undefined, nowMs: number): void {
    if (!this.#isLower(observed)) super.onObserved(observed, nowMs);
  }
  override readAnswered(
    observed: ObservedReporter | undefined,
    mark: number,
    sentMs: number,
    nowMs: number,
  ): void {
    super.readAnswered(this.#isLower(observed) ? this.observed : observed, mark, sentMs, nowMs);
  }
  #isLower(observed: ObservedReporter | undefined): boolean {
    const own = this.owner;
    return (
      own !== undefined &&
      (observed?.owner?.epoch ?? 0) <= own.epoch &&
      observed?.owner?.replica !== own.replica
    );
  }
}

/** Deletes stale objects immediately, regardless of the previous owner. */
class DeletesBeforeConfirmedFresh extends Ownership {
  override canDelete(): WritePermission {
    return this.canWrite();
  }
}

/** Sends expiry deletes based on the caches. */
class ExpiresWithoutLiveRead extends Ownership {
  override canExpire(): WritePermission {
    return this.owns && !this.hasStream ? 'allow' : 'deny';
  }
}

/** A leader that considers an owner dead writes its objects without a claim. */
class WritesWithoutClaim extends Ownership {
  #writes = false;
  override takeOver(): void {
    this.#writes = true;
  }
  override get owns(): boolean {
    return this.#writes || super.owns;
  }
  override get hasConfirmedClaim(): boolean {
    return this.#writes || super.hasConfirmedClaim;
  }
  override get isIdle(): boolean {
    return !this.#writes && super.isIdle;
  }
  override canExpire(): WritePermission {
    return 'allow';
  }
}

function using(Variant: typeof Ownership): ReplicaOptions {
  return { createOwnership: (self, freshReportAfterMs) => new Variant(self, freshReportAfterMs) };
}

/** Runs a trace in a new harness; returns how often the object of T1, which is connected throughout, was deleted. */
async function run(trace: (harness: MultiReplicaHarness) => Promise<void>): Promise<number> {
  const harness = createMultiReplicaHarness();
  try {
    await trace(harness);
    return harness.deletions.filter((deletion) => deletion.endsWith(' node-1')).length;
  } finally {
    harness.stop();
    await harness.settle();
  }
}

/** An Envoy moves from A, which has no objects of it, to B, whose claim is in flight. */
async function claimInFlight(harness: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = harness.replica('a', rules);
  const b = harness.replica('b', rules);
  a.connect(RESPONDER, fullPush());
  await harness.settle();
  // The claim of B is delayed, its object writes are not.
  const claim = harness.reporterApi.patchStatus.bind(harness.reporterApi);
  let arrive = (): void => {};
  const arrived = new Promise<void>((resolve) => {
    arrive = resolve;
  });
  harness.reporterApi.patchStatus = async (name, version, patch) => {
    if (patch.owner?.replica === 'b') await arrived;
    return await claim(name, version, patch);
  };
  b.connect(RESPONDER, fullPush(T1));
  await harness.advance(3000);
  arrive();
  await harness.advance(3000);
  b.report(RESPONDER, delta([]));
  await harness.advance(MINUTE);
  expect(harness.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
}

/** B has claimed and created T1; A observes the object before the claim. */
async function objectsAheadOfReporters(harness: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = harness.replica('a', rules);
  const b = harness.replica('b');
  a.connect(RESPONDER, fullPush());
  await harness.advance(2000);
  a.state.watchesReporters = false;
  b.connect(RESPONDER, fullPush(T1));
  await harness.settle();
  a.report(RESPONDER, delta([]));
  await harness.advance(5000);
  a.state.watchesReporters = true;
  await harness.advance(1000);
  b.report(RESPONDER, delta([]));
  await harness.advance(MINUTE);
  expect(harness.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
}

/** An empty full push is unread at A while the Envoy moves to B; A then reads it and claims, as the rules allow. */
async function unreadFullPush(harness: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = harness.replica('a', rules);
  const b = harness.replica('b');
  b.connect(RESPONDER, fullPush(T1));
  await harness.advance(2000);
  a.connect(RESPONDER, fullPush());
  await harness.settle();
  expect(harness.owner(RESPONDER)).to.equal('a');
  await harness.advance(1000);
  b.report(RESPONDER, delta([]));
  await harness.advance(5000);
  b.report(RESPONDER, delta([]));
  // A's stream is half-open, which keepalive detects.
  await harness.advance(30_000);
  a.disconnect(RESPONDER);
  await harness.advance(MINUTE);
  expect(harness.owner(RESPONDER)).to.equal('b');
  expect(harness.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
}

/** The same, but B has died when A reads the report. */
async function unreadFullPushAfterDeath(harness: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = harness.replica('a', rules);
  const b = harness.replica('b');
  b.connect(RESPONDER, fullPush(T1));
  await harness.settle();
  b.crash();
  a.connect(RESPONDER, fullPush());
  await harness.advance(3000);
  expect(harness.owner(RESPONDER)).to.equal('a');
  // The live Envoy also reconnects to A, with a newer stream.
  a.connect(RESPONDER, fullPush(T1));
  await harness.advance(MINUTE);
  expect(harness.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
}

/** The reporter object is deleted manually while the Envoy moves to B, which creates a new one with epoch 1. */
async function reporterObjectRecreated(harness: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = harness.replica('a', rules);
  const b = harness.replica('b');
  a.connect(RESPONDER, fullPush());
  await harness.advance(2000);
  a.report(RESPONDER, delta([]));
  await harness.settle();
  a.state.watchesReporters = false;
  a.state.watchesTunnels = false;
  harness.reporterApi.deleteManually(NAME);
  await harness.settle();
  b.connect(RESPONDER, fullPush(T1));
  await harness.settle();
  a.state.watchesTunnels = true;
  await harness.advance(5000);
  a.state.watchesReporters = true;
  await harness.advance(1000);
  b.report(RESPONDER, delta([]));
  await harness.advance(MINUTE);
  expect(harness.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
}

/** A is an owner without a stream whose grace timer expires; B has claimed without a change of objects, unseen by A. */
async function claimUnseenAtExpiry(harness: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = harness.replica('a', rules);
  const b = harness.replica('b');
  a.connect(RESPONDER, fullPush(T1));
  await harness.advance(2000);
  a.disconnect(RESPONDER);
  await harness.advance(290_000);
  a.state.watchesReporters = false;
  b.connect(RESPONDER, fullPush(T1));
  await harness.advance(5000);
  b.report(RESPONDER, delta([]));
  await harness.advance(30_000);
  a.state.watchesReporters = true;
  b.report(RESPONDER, delta([]));
  await harness.advance(MINUTE);
  expect(harness.owner(RESPONDER)).to.equal('b');
}

/** A leader considers A dead for 20 minutes, while A is alive and serves. */
async function wronglyPresumedDead(harness: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
  const a = harness.replica('a');
  const leader = harness.replica('leader', rules);
  leader.state.leads = true;
  a.connect(RESPONDER, fullPush(T1));
  await harness.advance(2000);
  leader.state.presumedDead.add('a');
  for (let reports = 0; reports < 240; reports += 1) {
    await harness.advance(5000);
    a.report(RESPONDER, delta([]));
  }
  leader.state.presumedDead.delete('a');
  await harness.advance(MINUTE);
  a.report(RESPONDER, delta([]));
  await harness.advance(MINUTE);
  expect(harness.owner(RESPONDER)).to.equal('a');
  expect(harness.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
}

describe('ownership traces', () => {
  const traces: [
    rule: string,
    trace: (harness: MultiReplicaHarness, rules: ReplicaOptions) => Promise<void>,
    withoutRule: ReplicaOptions,
  ][] = [
    [
      'objects are written only after the claim is confirmed',
      claimInFlight,
      using(WritesBeforeClaimConfirmed),
    ],
    [
      'external changes are reverted only after a live read',
      objectsAheadOfReporters,
      using(RevertsWithoutLiveRead),
    ],
    ['a live read never uses the cache', objectsAheadOfReporters, { readsFromCache: true }],
    ['ownership is decided by equality, not by order', reporterObjectRecreated, using(ComparesEpochs)],
    [
      'stale objects are deleted only after the stream is confirmed fresh',
      unreadFullPush,
      using(DeletesBeforeConfirmedFresh),
    ],
    [
      'stale objects of a dead owner are deleted only after the stream is confirmed fresh',
      unreadFullPushAfterDeath,
      using(DeletesBeforeConfirmedFresh),
    ],
    ['expiry deletes follow a live read', claimUnseenAtExpiry, using(ExpiresWithoutLiveRead)],
    ['the leader writes only after a claim', wronglyPresumedDead, using(WritesWithoutClaim)],
  ];
  for (const [rule, trace, withoutRule] of traces) {
    it(`${rule}, so the object of a connected tunnel is never deleted`, async () => {
      expect(await run((harness) => trace(harness, {}))).to.equal(0);
    });
    it(`without the rule "${rule}", the trace deletes the object`, async () => {
      const deleted = await run((harness) => trace(harness, withoutRule).catch(() => undefined));
      expect(deleted).to.be.greaterThan(0);
    });
  }

  /** A create by A times out, A expires the reporter and deletes its reporter object, and then the create is applied. */
  async function lateCreate(harness: MultiReplicaHarness, rules: ReplicaOptions): Promise<void> {
    const a = harness.replica('a', rules);
    a.state.leads = true;
    a.connect(RESPONDER, fullPush());
    await harness.advance(2000);
    a.disconnect(RESPONDER);
    await harness.advance(6 * MINUTE);
    expect(harness.reporterApi.stored.size).to.equal(0);
    harness.tunnelApi.createManually(manifestFor(names, RESPONDER, T1));
    await harness.advance(MINUTE);
    await harness.advance(20_000);
  }

  it('an orphaned object that is created after the expiry of its reporter is deleted within about a minute', async () => {
    await run(async (harness) => {
      await lateCreate(harness, {});
      expect(harness.tunnelNames(RESPONDER)).to.deep.equal([]);
      expect(
        harness.reporterApi.stored.size,
        'the reporter object that was created for it is deleted as well',
      ).to.equal(0);
    });
  });

  it('an orphaned object stays forever if orphans are not claimed', async () => {
    await run(async (harness) => {
      await lateCreate(harness, { takesOverOrphans: false });
      expect(harness.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
    });
  });

  it('two live Envoys with one ID claim less and less often, and the conflict is reported', async () => {
    await run(async (harness) => {
      const a = harness.replica('a', { reportIntervalMs: 25 });
      const b = harness.replica('b', { reportIntervalMs: 25 });
      a.connect(RESPONDER, fullPush(T1));
      b.connect(RESPONDER, fullPush(tunnel('node-2')));
      const claimsUntil = async (ms: number): Promise<number> => {
        harness.reporterApi.calls.length = 0;
        for (let passed = 0; passed < ms; passed += 250) {
          a.report(RESPONDER, delta([]));
          b.report(RESPONDER, delta([]));
          await harness.advance(250);
        }
        return harness.reporterApi.calls.filter((call) => call.startsWith('patchStatus')).length;
      };
      const first = await claimsUntil(MINUTE);
      expect(harness.condition(RESPONDER, 'IdentityConflict')).to.equal('True DuplicateReporterID');
      expect(first, 'status writes in the first minute').to.be.within(5, 40);
      await claimsUntil(5 * MINUTE);
      expect(await claimsUntil(10 * MINUTE), 'status writes in ten minutes later on').to.be.at.most(20);
      a.disconnect(RESPONDER);
      for (let minutes = 0; minutes < 25; minutes += 1) {
        b.report(RESPONDER, delta([]));
        await harness.advance(MINUTE);
      }
      expect(harness.condition(RESPONDER, 'IdentityConflict'), 'after the conflict has ended').to.equal(
        'none',
      );
      expect(harness.tunnelNames(RESPONDER)).to.deep.equal(['node-2']);
    });
  });

  it('two live Envoys with one ID on one replica cause fewer and fewer object writes', async () => {
    await run(async (harness) => {
      const a = harness.replica('a');
      const pushes = [fullPush(T1), fullPush(tunnel('node-2'))] as const;
      const alternate = async (times: number): Promise<number> => {
        harness.tunnelApi.calls.length = 0;
        for (let index = 0; index < times; index += 1) {
          // Each stream is ended by the reconnect of the other Envoy, and Envoy reconnects after 5 s.
          a.connect(RESPONDER, pushes[index % 2 === 0 ? 0 : 1]);
          await harness.advance(2500);
        }
        return harness.tunnelApi.writes;
      };
      await alternate(24);
      expect(harness.condition(RESPONDER, 'IdentityConflict')).to.equal('True DuplicateReporterID');
      harness.reporterApi.calls.length = 0;
      expect(await alternate(240), 'object writes in ten minutes later on').to.be.at.most(4);
      const claims = harness.reporterApi.calls.filter((call) => call.startsWith('patchStatus')).length;
      expect(claims, 'claims in the same ten minutes: few, but not none').to.be.within(1, 8);
      // One Envoy remains and reports.
      a.connect(RESPONDER, fullPush(tunnel('node-2')));
      for (let reports = 0; reports < 130; reports += 1) {
        await harness.advance(5000);
        a.report(RESPONDER, delta([]));
      }
      await harness.advance(MINUTE);
      expect(harness.tunnelNames(RESPONDER)).to.deep.equal(['node-2']);
      expect(harness.condition(RESPONDER, 'IdentityConflict')).to.equal('none');
    });
  });
});
