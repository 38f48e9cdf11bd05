import { expect } from 'chai';
import { collectReporterStats } from '../../src/controller/controller-stats.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { apiFailure } from '../support/memory-api.ts';
import { createMultiReplicaHarness, type MultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { delta, fullPush, names, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);
const [GOOD, BAD, LATE] = [tunnel('good'), tunnel('bad'), tunnel('late')];
const HOUR_MS = 3_600_000;

describe('the backlog of a reporter with a rejected object', () => {
  let world: MultiReplicaHarness;
  let replica: ReturnType<MultiReplicaHarness['replica']>;
  /** Names of objects whose creation is rejected, and of those whose creation fails because of an outage. */
  let refused: Set<string>;
  let unanswered: Set<string>;

  beforeEach(() => {
    world = createMultiReplicaHarness();
    replica = world.replica('a');
    refused = new Set([names.tunnelObjectName(RESPONDER, BAD)]);
    unanswered = new Set();
    world.tunnelApi.before = ({ verb, name }) => {
      if (verb !== 'create') return;
      if (refused.has(name)) throw apiFailure('rejected');
      if (unanswered.has(name)) throw apiFailure('unavailable');
    };
  });
  afterEach(async () => {
    world.stop();
    await world.settle();
  });

  /** Returns how long objects have been waiting, without rejected ones; undefined if none are waiting. */
  function backlogMs(): number | undefined {
    const sinceMs = replica.registry.entry(KEY)?.pendingWrites.backlogSinceMs;
    return sinceMs === undefined ? undefined : world.clock.monotonicMs() - sinceMs;
  }

  it('does not exist, however long the rejection lasts', async () => {
    replica.connect(RESPONDER, fullPush(GOOD, BAD));
    await world.advance(HOUR_MS);
    expect(world.condition(RESPONDER, 'Synced')).to.equal('False WritesRejected');
    expect([replica.queue.pending(KEY), backlogMs()]).to.deep.equal([1, undefined]);
  });

  it('is as old as other waiting objects, and ends with them', async () => {
    replica.connect(RESPONDER, fullPush(GOOD, BAD));
    await world.advance(HOUR_MS);
    unanswered.add(names.tunnelObjectName(RESPONDER, LATE));
    replica.report(RESPONDER, delta([LATE]));
    await world.advance(5000);
    expect(backlogMs()).to.be.within(1, 5000);
    unanswered.clear();
    await world.advance(5000);
    expect(world.tunnelNames(RESPONDER)).to.deep.equal(['good', 'late']);
    expect([replica.queue.pending(KEY), backlogMs()]).to.deep.equal([1, undefined]);
  });

  it('ends when the last waiting object is rejected as well', async () => {
    replica.connect(RESPONDER, fullPush(GOOD, BAD));
    await world.advance(HOUR_MS);
    const late = names.tunnelObjectName(RESPONDER, LATE);
    unanswered.add(late);
    replica.report(RESPONDER, delta([LATE]));
    await world.advance(5000);
    expect(backlogMs()).to.be.within(1, 5000);
    refused.add(late);
    await world.advance(2000);
    expect([replica.queue.pending(KEY), backlogMs()]).to.deep.equal([2, undefined]);
  });

  it('does not exist after each of many changes, although one is waiting at each check of the status', async () => {
    replica.connect(RESPONDER, fullPush(GOOD, BAD));
    await world.advance(HOUR_MS);
    for (let change = 0; change < 30; change += 1) {
      replica.report(RESPONDER, change % 2 === 0 ? delta([LATE]) : delta([], [LATE.name]));
      await world.advance(1000);
      expect(backlogMs(), `after ${change + 1} changes`).to.equal(undefined);
    }
  });
});

describe('the age of the oldest pending write during an outage of the API server', () => {
  let world: MultiReplicaHarness;
  let replica: ReturnType<MultiReplicaHarness['replica']>;
  let isDown: boolean;

  beforeEach(async () => {
    world = createMultiReplicaHarness();
    replica = world.replica('a');
    isDown = false;
    world.tunnelApi.before = () => {
      if (isDown) throw apiFailure('unavailable');
    };
    const patchStatus = world.reporterApi.patchStatus.bind(world.reporterApi);
    world.reporterApi.patchStatus = (...call) =>
      isDown ? Promise.reject(apiFailure('unavailable')) : patchStatus(...call);
    const create = world.reporterApi.create.bind(world.reporterApi);
    world.reporterApi.create = (...call) =>
      isDown ? Promise.reject(apiFailure('unavailable')) : create(...call);
    const read = world.reporterApi.read.bind(world.reporterApi);
    world.reporterApi.read = (...call) =>
      isDown ? Promise.reject(apiFailure('unavailable')) : read(...call);
    replica.connect(RESPONDER, fullPush(GOOD));
    await world.advance(5000);
  });
  afterEach(async () => {
    isDown = false;
    world.stop();
    await world.settle();
  });

  const ageMs = (): number => {
    const { ledger, queue, registry } = replica;
    const mirrored = { hasObjects: () => true };
    return collectReporterStats(registry.entries(), { ledger, queue, mirrored }, world.clock.monotonicMs())
      .backlogMs;
  };
  const heartbeats = async (seconds: number): Promise<void> => {
    for (let second = 0; second < seconds; second += 5) {
      replica.report(RESPONDER, delta([]));
      await world.advance(5000);
    }
  };

  for (const losesLease of [false, true]) {
    const lease = losesLease ? 'with the loss of the Lease' : 'while the Lease is held';
    it(`grows with a pending change, and ends with the outage (${lease})`, async () => {
      isDown = true;
      replica.report(RESPONDER, delta([LATE]));
      await heartbeats(10);
      if (losesLease) replica.state.writes = false;
      await heartbeats(290);
      expect(ageMs()).to.be.within(285_000, 301_000);
      isDown = false;
      replica.state.writes = true;
      replica.reporters.resume();
      await heartbeats(60);
      expect(ageMs()).to.equal(0);
      expect(world.tunnelNames(RESPONDER)).to.deep.equal(['good', 'late']);
    });

    it(`is 0 without a pending change (${lease})`, async () => {
      isDown = true;
      if (losesLease) replica.state.writes = false;
      await heartbeats(300);
      expect(ageMs()).to.equal(0);
    });
  }

  it('grows for a reporter that connects during the outage', async () => {
    isDown = true;
    replica.connect(OTHER_RESPONDER, fullPush(LATE));
    await heartbeats(120);
    expect(ageMs()).to.be.within(100_000, 121_000);
  });
});
