import { setImmediate } from 'node:timers/promises';
import { expect } from 'chai';

import { reporterManifest } from '../../src/core/reporter-object.ts';
import { reporterKey } from '../../src/core/tunnel.ts';

import { flushEventLoop } from '../support/fake-time.ts';
import { apiFailure } from '../support/memory-api.ts';
import { createMultiReplicaHarness, type MultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { delta, fullPush, names, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const NAME = names.reporterObjectName(RESPONDER);
const KEY = reporterKey(RESPONDER);
const T1 = tunnel('node-1');

describe('calls for a reporter', () => {
  let world: MultiReplicaHarness;
  let replica: ReturnType<MultiReplicaHarness['replica']>;
  let calls: string[];

  beforeEach(() => {
    world = createMultiReplicaHarness();
    replica = world.replica('a');
    ({ calls } = world.reporterApi);
    // Each read takes an iteration of the event loop, so that an endless loop of calls does not block the test.
    const read = world.reporterApi.read.bind(world.reporterApi);
    world.reporterApi.read = async (name) => {
      const answer = await read(name);
      await flushEventLoop();
      return answer;
    };
  });
  afterEach(async () => {
    world.stop();
    await world.settle();
  });

  const count = (verb: string): number => calls.filter((call) => call === `${verb} ${NAME}`).length;

  async function turns(): Promise<void> {
    for (let turn = 0; turn < 200; turn += 1) await world.settle();
  }

  it('are not repeated without a delay when each claim conflicts', async () => {
    world.reporterApi.patchStatus = () => Promise.reject(apiFailure('conflict'));
    replica.connect(RESPONDER, fullPush(T1));
    await turns();
    expect(count('read'), 'without any time passing').to.be.within(2, 3);
    await world.advance(60_000);
    expect(count('read')).to.be.within(8, 20);
  });

  it('include a read before pending status writes once one of these has shown that the object was deleted', async () => {
    const others = Array.from({ length: 60 }, (_, index) => ({ cluster: 'edge', id: `other-${index}` }));
    for (const reporter of [...others, RESPONDER]) replica.connect(reporter, fullPush(T1));
    await world.advance(20_000);
    replica.state.watchesReporters = false;
    world.reporterApi.deleteManually(NAME);
    calls.length = 0;
    const patchStatus = world.reporterApi.patchStatus.bind(world.reporterApi);
    world.reporterApi.patchStatus = async (...request) => {
      await setImmediate();
      return await patchStatus(...request);
    };
    // More status writes than workers. That of the deleted object is the first.
    for (const reporter of [RESPONDER, ...others]) replica.disconnect(reporter);
    await turns();
    await world.advance(1000);
    // The read overtakes the status writes that were still waiting when the first one failed.
    expect(calls).to.have.lengthOf.above(60);
    expect(calls.indexOf(`read ${NAME}`)).to.be.within(0, 30);
  });

  it('record the disconnection also if the stream ends while its claim is in flight', async () => {
    replica.hold();
    replica.connect(RESPONDER, fullPush(T1));
    await world.settle();
    replica.disconnect(RESPONDER);
    replica.release();
    await world.settle();
    await world.advance(1000);
    expect(world.condition(RESPONDER, 'Connected')).to.equal('False StreamEnded');
    expect(world.events).to.deep.equal(['a connected responder-0', 'a disconnected responder-0']);
  });

  it('write changed counts once, when the objects have been written', async () => {
    replica.connect(RESPONDER, fullPush(T1));
    await world.advance(20_000);
    calls.length = 0;
    replica.report(RESPONDER, delta([tunnel('node-2')]));
    await world.advance(1000);
    const status = world.reporterApi.stored.get(NAME)?.status;
    expect(status?.tunnels).to.deep.equal({ reported: 2, applied: 2, rejected: 0 });
    await world.advance(60_000);
    expect(calls).to.deep.equal([`patchStatus ${NAME}`]);
  });

  it('write the status once per change also while rejected tunnels keep the reporter from being in sync', async () => {
    const rejected = { count: 1, first: [{ message: 'name: empty' }] };
    const condition = (): string | undefined => world.condition(RESPONDER, 'Synced');
    replica.connect(RESPONDER, fullPush(T1), rejected);
    await world.advance(20_000);
    expect(condition()).to.equal('False TunnelsRejected');
    calls.length = 0;
    for (let change = 1; change <= 3; change += 1) {
      replica.report(RESPONDER, delta([tunnel(`added-${change}`)]));
      await world.advance(20_000);
      expect(condition()).to.equal('False TunnelsRejected');
      expect(calls).to.have.lengthOf(change);
    }
    world.tunnelApi.create = () => new Promise(() => undefined);
    replica.report(RESPONDER, delta([tunnel('late')]));
    await world.advance(9000);
    expect(condition()).to.equal('False TunnelsRejected');
    await world.advance(3000);
    expect(condition(), 'once the write has waited for long').to.equal('False SyncInProgress');
  });

  for (const withFlapping of [false, true]) {
    const also = withFlapping ? 'also next to a flapping tunnel' : 'without a flapping tunnel';
    it(`report waiting writes, and not that all is in sync, once no tunnel is rejected any longer, ${also}`, async () => {
      const rejected = { count: 1, first: [{ message: 'name: empty' }] };
      const shown = new Set<string | undefined>();
      const advance = async (ms: number): Promise<void> => {
        for (let step = 0; step < ms; step += 500) {
          await world.advance(500);
          shown.add(world.condition(RESPONDER, 'Synced'));
        }
      };
      const flapping = tunnel('flapping');
      replica.connect(RESPONDER, fullPush(T1), rejected);
      const drops = withFlapping ? 8 : 0;
      for (let drop = 0; drop < drops; drop += 1) {
        replica.report(RESPONDER, delta([flapping]));
        await world.advance(3000);
        replica.report(RESPONDER, delta([], ['flapping']));
        await world.advance(3000);
      }
      await world.advance(60_000);
      expect(world.condition(RESPONDER, 'Synced')).to.equal('False TunnelsRejected');
      world.tunnelApi.create = () => new Promise(() => undefined);
      if (withFlapping) replica.report(RESPONDER, delta([flapping]));
      const others = withFlapping ? [flapping] : [];
      replica.report(RESPONDER, fullPush(T1, tunnel('node-2'), ...others));
      await advance(15_000);
      expect([...shown]).to.deep.equal(['False TunnelsRejected', 'False SyncInProgress']);
    });
  }

  it('write counts that keep changing every 10 s, and those of 100 reporters within a budget', async () => {
    // 50 writes at once, then 2 per second.
    for (const [reporterCount, expectedWrites] of [
      [10, 120],
      [100, 290],
    ] as const) {
      const reporters = Array.from({ length: reporterCount }, (_, index) => ({
        cluster: `of-${reporterCount}`,
        id: `one-of-${index}`,
      }));
      for (const reporter of reporters) replica.connect(reporter, fullPush(T1));
      await world.advance(30_000);
      calls.length = 0;
      for (let second = 0; second < 120; second += 1) {
        for (const reporter of reporters) replica.report(reporter, delta([tunnel(`added-${second}`)]));
        await world.advance(1000);
      }
      const writes = calls.filter((call) => call.startsWith('patchStatus ')).length;
      expect(writes).to.be.closeTo(expectedWrites, 15);
      await world.advance(60_000);
      for (const reporter of reporters) {
        const status = world.reporterApi.stored.get(names.reporterObjectName(reporter))?.status;
        expect(status?.tunnels?.applied).to.equal(121);
        replica.disconnect(reporter);
      }
      // The objects expire.
      await world.advance(400_000);
    }
  });

  it('write counts also while a write for a flapping tunnel always waits', async () => {
    const flapping = tunnel('flapping');
    replica.connect(RESPONDER, fullPush(T1));
    let added = 1;
    for (let step = 0; step < 60; step += 1) {
      const isUp = step % 2 === 0;
      added += 1;
      const others = tunnel(`added-${step}`);
      replica.report(RESPONDER, isUp ? delta([others, flapping]) : delta([others], ['flapping']));
      await world.advance(5000);
      const { tunnels } = world.reporterApi.stored.get(NAME)?.status ?? {};
      // 45 s: the interval of 30 s for such a reporter, one of 10 s between comparisons, and one report.
      expect(tunnels?.reported, `step ${step}`).to.be.at.least(added - 9);
    }
    expect(world.condition(RESPONDER, 'Flapping')).to.equal('True TunnelsFlapping');
  });

  it('report writes that wait for long after 10 s, also if the first status write is rejected', async () => {
    const reporters = Array.from({ length: 50 }, (_, index) => ({ cluster: 'edge', id: `one-of-${index}` }));
    for (const reporter of reporters) replica.connect(reporter, fullPush(T1));
    await world.advance(3000);
    world.tunnelApi.create = () => new Promise(() => undefined);
    for (const reporter of reporters) replica.report(reporter, delta([tunnel('node-2')]));
    await world.advance(9000);
    const inSync = (): number =>
      reporters.filter((reporter) => world.condition(reporter, 'Synced') === 'True UpToDate').length;
    expect(inSync()).to.equal(50);
    const patchStatus = world.reporterApi.patchStatus.bind(world.reporterApi);
    const rejected = new Set<string>();
    world.reporterApi.patchStatus = async (...request) => {
      const [name] = request;
      if (rejected.has(name)) return await patchStatus(...request);
      rejected.add(name);
      throw apiFailure('conflict');
    };
    await world.advance(3000);
    expect(rejected.size).to.equal(50);
    expect(inSync()).to.equal(0);
  });

  it('report the writes of at most 50 reporters that wait for long at once, then of 20 every 10 s', async () => {
    const reporters = Array.from({ length: 150 }, (_, index) => ({ cluster: 'edge', id: `one-of-${index}` }));
    for (const reporter of reporters) replica.connect(reporter, fullPush(T1));
    await world.advance(30_000);
    calls.length = 0;
    let answer = (): void => undefined;
    const create = world.tunnelApi.create.bind(world.tunnelApi);
    const isAnswered = new Promise<void>((resolve) => (answer = resolve));
    world.tunnelApi.create = async (...request) => {
      await isAnswered;
      return await create(...request);
    };
    for (const reporter of reporters) replica.report(reporter, delta([tunnel('node-2')]));
    const late = (): number =>
      reporters.filter((reporter) => world.condition(reporter, 'Synced') === 'False SyncInProgress').length;
    await world.advance(9900);
    expect(late()).to.equal(0);
    await world.advance(200);
    expect(late()).to.equal(50);
    await world.advance(20_000);
    expect(late()).to.equal(90);
    expect(calls).to.have.lengthOf(90);
    const waiting = reporters.filter((reporter) => world.condition(reporter, 'Synced') === 'True UpToDate');
    const rejected = { count: 1, first: [{ message: 'name: empty' }] };
    for (const reporter of waiting) replica.report(reporter, delta([]), rejected);
    await world.advance(10_000);
    expect(late()).to.equal(110);
    const rejecting = reporters.filter(
      (reporter) => world.condition(reporter, 'Synced') === 'False TunnelsRejected',
    );
    expect(rejecting, 'another reason').to.have.lengthOf(40);
    for (const reporter of waiting) replica.report(reporter, fullPush(T1, tunnel('node-2')));
    calls.length = 0;
    answer();
    await world.advance(1000);
    expect(late(), 'when the objects have been written').to.equal(0);
    await world.advance(60_000);
    // Those that are in sync again.
    expect(calls).to.have.lengthOf(150);
    world.tunnelApi.create = () => new Promise(() => undefined);
    for (const reporter of reporters) replica.report(reporter, delta([tunnel('node-3')]));
    await world.advance(62_000);
    expect(late()).to.equal(150);
  });

  for (const phaseS of [1, 4, 7]) {
    it(`report such writes of a reporter with a flapping tunnel as well, ${phaseS} s after its status`, async () => {
      replica.connect(RESPONDER, fullPush(T1));
      const flapping = tunnel('flapping');
      for (let drop = 0; drop < 8; drop += 1) {
        replica.report(RESPONDER, delta([flapping]));
        await world.advance(3000);
        replica.report(RESPONDER, delta([], ['flapping']));
        await world.advance(3000);
      }
      const before = calls.length;
      // Its write waits for its slot from now on, and other counts change.
      replica.report(RESPONDER, delta([flapping, tunnel('node-2')]));
      while (calls.length === before) await world.advance(100);
      await world.advance(phaseS * 1000);
      expect(world.condition(RESPONDER, 'Synced')).to.equal('True UpToDate');
      world.tunnelApi.create = () => new Promise(() => undefined);
      replica.report(RESPONDER, delta([tunnel('node-3')]));
      await world.advance(12_000);
      expect(world.condition(RESPONDER, 'Synced')).to.equal('False SyncInProgress');
    });
  }

  it('are rare while a foreign object has that name', async () => {
    await world.reporterApi.create(reporterManifest(NAME, OTHER_RESPONDER));
    await world.settle();
    calls.length = 0;
    replica.connect(RESPONDER, fullPush(T1));
    await turns();
    expect(calls).to.deep.equal([`create ${NAME}`, `read ${NAME}`]);
    await world.advance(60_000);
    expect(calls.length).to.be.within(8, 20);
    const { values } = await world.metrics.claims.get();
    expect(values.some(({ labels, value }) => labels.outcome === 'name_taken' && value > 0)).to.equal(true);
    world.reporterApi.deleteManually(NAME);
    await world.advance(11_000);
    expect(world.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
  });

  it('delete an object with a finalizer only once, and claim it when its Envoy reconnects', async () => {
    replica.connect(RESPONDER, fullPush(T1));
    await world.advance(2000);
    world.reporterApi.addFinalizer(NAME);
    replica.disconnect(RESPONDER);
    await world.advance(400_000);
    expect(count('delete')).to.equal(1);
    calls.length = 0;
    replica.connect(RESPONDER, fullPush(T1));
    await turns();
    expect([count('create'), count('read')]).to.deep.equal([0, 0]);
    expect(world.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
    world.reporterApi.removeFinalizer(NAME);
    await world.advance(2000);
    expect(world.condition(RESPONDER, 'Connected')).to.equal('True StreamOpen');
    expect([count('create'), world.tunnelNames(RESPONDER)]).to.deep.equal([1, ['node-1']]);
  });

  it('remove a reporter once the finalizer of its object is removed', async () => {
    replica.connect(RESPONDER, fullPush(T1));
    await world.advance(2000);
    world.reporterApi.addFinalizer(NAME);
    replica.disconnect(RESPONDER);
    await world.advance(400_000);
    expect([...replica.registry.entries()]).to.have.length(1);
    world.reporterApi.removeFinalizer(NAME);
    await world.advance(2000);
    expect([...replica.registry.entries()]).to.deep.equal([]);
  });

  it('do not treat a read that was sent before the creation as a deletion', async () => {
    let answer = (): void => {};
    const answered = new Promise<void>((resolve) => (answer = resolve));
    const { reporterApi } = world;
    const read = reporterApi.read.bind(reporterApi);
    reporterApi.read = async (name) => {
      const found = await read(name);
      if (found === undefined) await answered;
      return found;
    };
    const create = reporterApi.create.bind(reporterApi);
    reporterApi.create = async (manifest) => {
      await flushEventLoop();
      return await create(manifest);
    };
    replica.connect(RESPONDER, fullPush(T1));
    void replica.writeAuthorizer.liveRead(KEY);
    await world.advance(2000);
    expect(world.owner(RESPONDER)).to.equal('a');
    answer();
    await turns();
    expect([count('create'), count('read')]).to.deep.equal([1, 1]);
    expect(replica.writeAuthorizer.canWrite(KEY)).to.equal(true);
  });

  it('include another read if the pending one was sent before the ownership became uncertain', async () => {
    replica.connect(RESPONDER, fullPush(T1));
    await world.advance(2000);
    let answer = (): void => {};
    const answered = new Promise<void>((resolve) => (answer = resolve));
    const read = world.reporterApi.read.bind(world.reporterApi);
    world.reporterApi.read = async (name) => {
      world.reporterApi.read = read;
      const found = await read(name);
      await answered;
      return found;
    };
    calls.length = 0;
    void replica.writeAuthorizer.liveRead(KEY);
    await world.settle();
    // The outcome of this write, which removes the condition, is unknown.
    replica.state.dropsResponses = true;
    world.reporterApi.editManually(NAME, { conditions: [] });
    await world.settle();
    replica.state.dropsResponses = false;
    expect(replica.writeAuthorizer.canWrite(KEY)).to.equal(false);
    answer();
    await world.advance(2000);
    expect(count('read')).to.equal(2);
    expect(replica.writeAuthorizer.canWrite(KEY)).to.equal(true);
  });

  it('accept an older version, because etcd was restored, and relist', async () => {
    const b = world.replica('b');
    b.connect(RESPONDER, fullPush(T1));
    await world.advance(2000);
    const restore = world.reporterApi.backup();
    replica.connect(RESPONDER, fullPush(T1));
    await world.advance(500);
    expect(replica.writeAuthorizer.canWrite(KEY)).to.equal(true);
    restore();
    await replica.writeAuthorizer.liveRead(KEY);
    expect(replica.writeAuthorizer.canWrite(KEY), 'the object names b').to.equal(false);
    expect(replica.state.relists).to.equal(1);
    for (let reports = 0; reports < 4; reports += 1) {
      replica.report(RESPONDER, delta([]));
      await world.advance(1000);
    }
    expect(world.owner(RESPONDER)).to.equal('a');
    expect([replica.writeAuthorizer.canWrite(KEY), replica.state.relists]).to.deep.equal([true, 1]);
  });

  it('delete an object only as often as a rejected write is retried', async () => {
    replica.connect(RESPONDER, fullPush());
    await world.advance(2000);
    let deletions = 0;
    world.reporterApi.delete = () => {
      deletions += 1;
      return Promise.reject(apiFailure('rejected'));
    };
    replica.disconnect(RESPONDER);
    await world.advance(305_000);
    deletions = 0;
    await world.advance(60_000);
    expect(deletions).to.be.within(5, 12);
  });
});
