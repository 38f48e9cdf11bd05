import { expect } from 'chai';
import { reporterKey } from '../../src/core/tunnel.ts';
import { apiFailure } from '../support/memory-tunnel-api.ts';
import { createMultiReplicaHarness, type MultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { delta, fullPush, names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

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
