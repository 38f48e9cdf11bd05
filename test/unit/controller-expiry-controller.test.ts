import { expect } from 'chai';

import { connectionFailure } from '../support/memory-tunnel-api.ts';
import { createMultiReplicaHarness, type MultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { delta, fullPush, names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const TUNNELS = Array.from({ length: 5 }, (_, index) => tunnel(`node-${index}`));
const MANY = Array.from({ length: 1000 }, (_, index) => tunnel(`many-${index}`));
const NAME = names.reporterObjectName(RESPONDER);

function states(world: MultiReplicaHarness): string[] {
  return [...world.tunnelApi.stored.values()].map(({ status }) => status?.state ?? '');
}

describe('a reporter that is lost', () => {
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

  /** The reporter comes to hold 1,000 tunnels, more than a few seconds' worth of rows, and is lost. */
  async function loseMany(): Promise<void> {
    replica.report(RESPONDER, fullPush(...MANY));
    await world.advance(5000);
    replica.disconnect(RESPONDER);
  }

  it('is said so at once, in one write, and no row is touched for 30 s', async () => {
    replica.disconnect(RESPONDER);
    await world.settle();
    expect(world.condition(RESPONDER, 'Connected')).to.equal('False StreamEnded');
    await world.advance(28_000);
    expect(world.reporterApi.calls).to.deep.equal([`patchStatus ${NAME}`]);
    expect(world.tunnelApi.calls).to.deep.equal([]);
  });

  it('has rows Unknown after 30 s, in one write each, and none after 5 minutes; then its object goes', async () => {
    replica.disconnect(RESPONDER);
    await world.advance(33_000);
    expect(new Set(states(world))).to.deep.equal(new Set(['Unknown']));
    expect(world.tunnelApi.writes).to.equal(5);
    await world.advance(265_000);
    expect(states(world)).to.have.length(5);
    await world.advance(6000);
    expect(states(world)).to.deep.equal([]);
    expect(world.reporterApi.objects.size).to.equal(0);
    expect(world.tunnelApi.writes).to.equal(10);
    expect(replica.ledger.totalTunnelCount(), 'tunnels remembered').to.equal(0);
    expect([...replica.registry.entries()], 'reporters remembered').to.deep.equal([]);
  });

  it('and comes back before that costs no row a write', async () => {
    replica.disconnect(RESPONDER);
    await world.advance(28_000);
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(600_000);
    expect(world.tunnelApi.writes).to.equal(0);
    expect(world.condition(RESPONDER, 'Ready')).to.equal('True Synced');
    // The loss, and the claim of the new stream.
    expect(world.reporterApi.calls).to.have.length(2);
  });

  it('and comes back with Unknown rows costs each of them one write', async () => {
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

  it('and comes back in the middle of its expiry has all its rows again', async () => {
    await loseMany();
    await world.advance(303_000);
    expect(states(world).length).to.be.within(1, 999);
    replica.connect(RESPONDER, fullPush(...MANY));
    await world.advance(10_000);
    expect(states(world)).to.have.length(1000);
    expect(new Set(states(world))).to.deep.equal(new Set(['Connected']));
  });

  it('is expired at a pace, with a fresh read for each batch', async () => {
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

  it('is not kept for 5 minutes more by a deletion of its object that failed once', async () => {
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
    expect(world.reporterApi.objects.size).to.equal(0);
  });

  it('has no row again that has expired, though a write of its status fails meanwhile', async () => {
    await loseMany();
    await world.advance(303_000);
    const patchStatus = world.reporterApi.patchStatus.bind(world.reporterApi);
    const read = world.reporterApi.read.bind(world.reporterApi);
    world.reporterApi.patchStatus = () => Promise.reject(connectionFailure());
    world.reporterApi.read = () => Promise.reject(connectionFailure());
    // Somebody edits the status, which is to be put right; and a row, while nobody can tell whose it is.
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

  it('has all rows Unknown, though it was in doubt whose they were while they were being marked', async () => {
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

  it('is not expired while this replica may not write, nor in the 15 s after', async () => {
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

  it('whose owner dies is taken over by the leader, marked, and expired', async () => {
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
    expect(states(world), 'though it leads no more').to.deep.equal([]);
    expect(world.reporterApi.objects.size).to.equal(0);
  });

  it('whose owner dies and whose Envoy comes back elsewhere costs no row a write', async () => {
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

describe('reporters that are lost together', () => {
  it('share what is marked and expired: a few rows do not wait for the thousands of another', async () => {
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
    expect(world.tunnelApi.stored.size + world.reporterApi.objects.size).to.equal(0);
    world.stop();
    await world.settle();
  });

  it('come in turn where there are more than are served at once, and those that are lost later behind them', async () => {
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
    expect(marked.size, 'reporters of which some rows are marked').to.equal(30);
    expect(Math.max(...marked.values())).to.be.at.most(60);
    world.stop();
    await world.settle();
  });
});

describe('a replica that may not write', () => {
  it('takes reports, writes nothing, and brings rows to the truth when it may again', async () => {
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
