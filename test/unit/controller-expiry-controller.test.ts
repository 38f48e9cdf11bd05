import { expect } from 'chai';

import { connectionFailure } from '../support/memory-api.ts';
import { createMultiReplicaHarness, type MultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { delta, fullPush, names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const TUNNELS = Array.from({ length: 5 }, (_, index) => tunnel(`node-${index}`));
const MANY = Array.from({ length: 1000 }, (_, index) => tunnel(`many-${index}`));
const NAME = names.reporterObjectName(RESPONDER);

function states(world: MultiReplicaHarness): string[] {
  return [...world.tunnelApi.stored.values()].map(({ status }) => status?.state ?? '');
}

describe('a disconnected reporter', () => {
  let world: MultiReplicaHarness;
  let replica: ReturnType<MultiReplicaHarness['replica']>;

  beforeEach(async () => {
    world = createMultiReplicaHarness();
    replica = world.replica('a');
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(2000);
    replica.report(RESPONDER, delta([]));
    await world.settle();
    world.tunnelApi.calls.length = 0;
    world.reporterApi.calls.length = 0;
  });
  afterEach(async () => {
    world.stop();
    await world.settle();
  });

  /** The reporter gets 1,000 tunnels, which take several seconds to mark or delete, and disconnects. */
  async function loseMany(): Promise<void> {
    replica.report(RESPONDER, fullPush(...MANY));
    await world.advance(5000);
    replica.disconnect(RESPONDER);
  }

  it('is recorded immediately in one write, and no object is written for 30 s', async () => {
    replica.disconnect(RESPONDER);
    await world.settle();
    expect(world.condition(RESPONDER, 'Connected')).to.equal('False StreamEnded');
    await world.advance(28_000);
    expect(world.reporterApi.calls).to.deep.equal([`patchStatus ${NAME}`]);
    expect(world.tunnelApi.calls).to.deep.equal([]);
  });

  it('has its objects set to Unknown after 30 s, in one write each, and deleted after 5 minutes, followed by its own object', async () => {
    replica.disconnect(RESPONDER);
    await world.advance(33_000);
    expect(new Set(states(world))).to.deep.equal(new Set(['Unknown']));
    expect(world.tunnelApi.writes).to.equal(5);
    await world.advance(265_000);
    expect(states(world)).to.have.length(5);
    await world.advance(6000);
    expect(states(world)).to.deep.equal([]);
    expect(world.reporterApi.stored.size).to.equal(0);
    expect(world.tunnelApi.writes).to.equal(10);
    expect(replica.ledger.totalTunnelCount(), 'tunnels remembered').to.equal(0);
    expect([...replica.registry.entries()], 'reporters remembered').to.deep.equal([]);
  });

  it('causes no object write if it reconnects before that', async () => {
    replica.disconnect(RESPONDER);
    await world.advance(28_000);
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(600_000);
    expect(world.tunnelApi.writes).to.equal(0);
    expect(world.condition(RESPONDER, 'Ready')).to.equal('True Synced');
    // The disconnection, and the claim of the new stream.
    expect(world.reporterApi.calls).to.have.length(2);
  });

  it('causes one write per object if it reconnects after they were set to Unknown', async () => {
    replica.disconnect(RESPONDER);
    await world.advance(200_000);
    world.tunnelApi.calls.length = 0;
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(10_000);
    expect(world.tunnelApi.calls.map(({ verb }) => verb)).to.deep.equal(
      Array.from({ length: 5 }, () => 'patchStatus'),
    );
    expect(new Set(states(world))).to.deep.equal(new Set(['Connected']));
  });

  it('gets all its objects again if it reconnects during the expiry', async () => {
    await loseMany();
    await world.advance(303_000);
    expect(states(world).length).to.be.within(1, 999);
    replica.connect(RESPONDER, fullPush(...MANY));
    await world.advance(10_000);
    expect(states(world)).to.have.length(1000);
    expect(new Set(states(world))).to.deep.equal(new Set(['Connected']));
  });

  it('is expired at a limited rate, with a live read per batch', async () => {
    await loseMany();
    await world.advance(298_000);
    world.reporterApi.calls.length = 0;
    const left: number[] = [];
    for (let seconds = 0; seconds < 8; seconds += 1) {
      await world.advance(1000);
      left.push(states(world).length);
    }
    const steps = left.map((count, index) => (left[index - 1] ?? 1000) - count);
    expect(Math.max(...steps)).to.be.at.most(200);
    expect(left.at(-1)).to.equal(0);
    expect(world.reporterApi.calls.filter((call) => call.startsWith('read')).length).to.be.at.least(5);
  });

  it('is not kept for another 5 minutes if the deletion of its object failed once', async () => {
    const remove = world.reporterApi.delete.bind(world.reporterApi);
    let failures = 0;
    world.reporterApi.delete = (name, uid, version) => {
      failures += 1;
      return failures === 1 ? Promise.reject(connectionFailure()) : remove(name, uid, version);
    };
    replica.disconnect(RESPONDER);
    await world.advance(330_000);
    expect(failures).to.equal(2);
    expect(states(world)).to.deep.equal([]);
    expect(world.reporterApi.stored.size).to.equal(0);
  });

  it('gets no expired object again even if a status write fails meanwhile', async () => {
    await loseMany();
    await world.advance(303_000);
    const patchStatus = world.reporterApi.patchStatus.bind(world.reporterApi);
    const read = world.reporterApi.read.bind(world.reporterApi);
    world.reporterApi.patchStatus = () => Promise.reject(connectionFailure());
    world.reporterApi.read = () => Promise.reject(connectionFailure());
    // A manual edit of the status, which must be reverted, and of an object while its ownership is unknown.
    world.reporterApi.editManually(NAME, { conditions: [] });
    await world.settle();
    world.tunnelApi.deleteManually([...world.tunnelApi.stored.keys()].at(-1) ?? '');
    await world.settle();
    Object.assign(world.reporterApi, { patchStatus, read });
    world.tunnelApi.calls.length = 0;
    await world.advance(10_000);
    expect(world.tunnelApi.calls.filter(({ verb }) => verb === 'create')).to.deep.equal([]);
    expect(states(world)).to.deep.equal([]);
  });

  it('has all objects set to Unknown even if ownership was uncertain meanwhile', async () => {
    await loseMany();
    await world.advance(29_000);
    const { promise: arrived, resolve: arrive } = Promise.withResolvers<void>();
    const mark = world.tunnelApi.patchStatus.bind(world.tunnelApi);
    world.tunnelApi.patchStatus = async (row, status) => {
      await arrived;
      return await mark(row, status);
    };
    await world.advance(2000);
    const patchStatus = world.reporterApi.patchStatus.bind(world.reporterApi);
    const read = world.reporterApi.read.bind(world.reporterApi);
    world.reporterApi.patchStatus = () => Promise.reject(connectionFailure());
    world.reporterApi.read = () => Promise.reject(connectionFailure());
    world.reporterApi.editManually(NAME, { conditions: [] });
    await world.settle();
    arrive();
    await world.settle();
    Object.assign(world.reporterApi, { patchStatus, read });
    await world.advance(20_000);
    expect(states(world).filter((state) => state !== 'Unknown')).to.deep.equal([]);
  });

  it('is not expired while this replica is fenced, nor in the following 15 s', async () => {
    replica.disconnect(RESPONDER);
    await world.advance(298_000);
    replica.state.writes = false;
    await world.advance(3_600_000);
    replica.state.writes = true;
    replica.reporters.resume();
    await world.advance(14_000);
    expect(states(world)).to.have.length(5);
    await world.advance(8000);
    expect(states(world)).to.deep.equal([]);
  });

  it('is taken over by the leader, marked and expired if its owner dies', async () => {
    const leader = world.replica('leader');
    leader.state.leads = true;
    replica.crash();
    await world.advance(10_000);
    expect(world.owner(RESPONDER)).to.equal('leader');
    expect(world.condition(RESPONDER, 'Connected')).to.equal('False OwnerLost');
    expect(world.tunnelApi.writes).to.equal(0);
    await world.advance(32_000);
    expect(new Set(states(world))).to.deep.equal(new Set(['Unknown']));
    leader.state.leads = false;
    await world.advance(280_000);
    expect(states(world), 'although it is no longer the leader').to.deep.equal([]);
    expect(world.reporterApi.stored.size).to.equal(0);
  });

  it('causes no object write if its owner dies and its Envoy reconnects to another replica', async () => {
    const leader = world.replica('leader');
    leader.state.leads = true;
    replica.crash();
    await world.advance(3000);
    leader.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(2000);
    leader.report(RESPONDER, delta([]));
    await world.advance(600_000);
    expect(world.tunnelApi.writes).to.equal(0);
    expect(world.owner(RESPONDER)).to.equal('leader');
  });
});

describe('reporters that disconnect at the same time', () => {
  it('share the rate of marking and expiry: a few objects do not wait for thousands of another reporter', async () => {
    const world = createMultiReplicaHarness();
    const replica = world.replica('a');
    const states = (id: string): (string | undefined)[] =>
      [...world.tunnelApi.stored.values()]
        .filter(({ spec }) => spec.reporter.id === id)
        .map(({ status }) => status?.state);
    replica.connect(RESPONDER, fullPush(...MANY));
    const few = Array.from({ length: 12 }, (_, index) => ({ cluster: 'edge', id: `few-${index}` }));
    for (const reporter of few) replica.connect(reporter, fullPush(...TUNNELS));
    await world.advance(10_000);
    for (const reporter of [RESPONDER, ...few]) replica.report(reporter, delta([]));
    await world.settle();
    for (const reporter of [RESPONDER, ...few]) replica.disconnect(reporter);
    await world.advance(33_000);
    for (const { id } of few) expect(new Set(states(id)), id).to.deep.equal(new Set(['Unknown']));
    expect(states(RESPONDER.id)).to.include('Connected');
    await world.advance(267_000);
    expect(new Set(states(RESPONDER.id))).to.deep.equal(new Set(['Unknown']));
    await world.advance(3000);
    for (const { id } of few) expect(states(id), id).to.deep.equal([]);
    expect(states(RESPONDER.id).length).to.be.within(1, 999);
    await world.advance(10_000);
    expect(world.tunnelApi.stored.size + world.reporterApi.stored.size).to.equal(0);
    world.stop();
    await world.settle();
  });

  it('are processed round-robin if there are too many, and later ones follow', async () => {
    const world = createMultiReplicaHarness();
    const replica = world.replica('a');
    const some = Array.from({ length: 30 }, (_, index) => ({ cluster: 'edge', id: `r-${index}` }));
    for (const reporter of some) replica.connect(reporter, fullPush(...MANY.slice(0, 100)));
    await world.advance(20_000);
    for (const reporter of some) replica.disconnect(reporter);
    await world.advance(34_500);
    const marked = new Map<string, number>();
    for (const { spec, status } of world.tunnelApi.stored.values()) {
      if (status?.state === 'Unknown') marked.set(spec.reporter.id, (marked.get(spec.reporter.id) ?? 0) + 1);
    }
    expect(marked.size, 'reporters with some marked objects').to.equal(30);
    expect(Math.max(...marked.values())).to.be.at.most(60);
    world.stop();
    await world.settle();
  });
});

describe('a fenced replica', () => {
  it('accepts reports, writes nothing, and updates the objects once it may write again', async () => {
    const world = createMultiReplicaHarness();
    const replica = world.replica('a');
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(2000);
    replica.report(RESPONDER, delta([]));
    await world.settle();
    replica.state.writes = false;
    world.tunnelApi.calls.length = 0;
    world.reporterApi.calls.length = 0;
    replica.report(RESPONDER, delta([tunnel('new')], ['node-0']));
    world.tunnelApi.deleteManually([...world.tunnelApi.stored.keys()][2] ?? '');
    await world.advance(60_000);
    expect([world.tunnelApi.calls, world.reporterApi.calls]).to.deep.equal([[], []]);
    replica.state.writes = true;
    replica.reporters.resume();
    await world.advance(5000);
    expect(world.tunnelNames(RESPONDER)).to.deep.equal(['new', 'node-1', 'node-2', 'node-3', 'node-4']);
    world.stop();
    await world.settle();
  });
});
