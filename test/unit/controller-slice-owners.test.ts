import { expect } from 'chai';
import { createMultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { delta, fullPush, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';
import {
  BATCH_MS,
  countVerbs,
  namesInSlices,
  sortedNames,
  storedSlices,
  tunnelRange,
} from '../support/slice-world.ts';

const ALL = tunnelRange(1, 150);

type World = ReturnType<typeof createMultiReplicaHarness>;
type Replica = ReturnType<World['replica']>;

/** Starts a replica to which a reporter is connected, and waits until its slices are written. */
async function startWithReporter(world: World): Promise<Replica> {
  const replica = world.replica('a', { representation: 'slices' });
  replica.state.leads = true;
  replica.connect(RESPONDER, fullPush(...ALL));
  await world.advance(BATCH_MS);
  expect(namesInSlices(world)).to.deep.equal(sortedNames(ALL));
  countVerbs(world.sliceApi);
  return replica;
}

describe('slices and the owner of their reporter', () => {
  it('are not written after a takeover if the reporter reports the same', async () => {
    const world = createMultiReplicaHarness();
    const first = await startWithReporter(world);
    const second = world.replica('b', { representation: 'slices' });
    first.crash();
    second.connect(RESPONDER, fullPush(...ALL));
    await world.advance(60_000);
    expect(world.owner(RESPONDER)).to.equal('b');
    expect(countVerbs(world.sliceApi)).to.deep.equal({});
  });

  it('are not written after a restart if the reporter reports the same', async () => {
    const world = createMultiReplicaHarness();
    const first = await startWithReporter(world);
    first.shutDown();
    const second = world.replica('a2', { representation: 'slices' });
    second.connect(RESPONDER, fullPush(...ALL));
    await world.advance(60_000);
    expect(world.owner(RESPONDER)).to.equal('a2');
    expect(countVerbs(world.sliceApi)).to.deep.equal({});
  });

  it('lose entries after a takeover only once the stream is confirmed fresh, and get new ones at once', async () => {
    const world = createMultiReplicaHarness();
    const first = await startWithReporter(world);
    const second = world.replica('b', { representation: 'slices' });
    first.crash();
    const after = tunnelRange(11, 160);
    second.connect(RESPONDER, fullPush(...after));
    await world.advance(BATCH_MS);
    expect(namesInSlices(world)).to.deep.equal(sortedNames(tunnelRange(1, 160)));
    await world.advance(5000);
    second.report(RESPONDER, delta([]));
    await world.advance(5000);
    expect(namesInSlices(world)).to.deep.equal(sortedNames(after));
  });

  it('become Unknown with one write each, and are deleted when the reporter has expired', async () => {
    const world = createMultiReplicaHarness();
    const replica = await startWithReporter(world);
    replica.connect(OTHER_RESPONDER, fullPush(...tunnelRange(1, 3)));
    await world.advance(BATCH_MS);
    countVerbs(world.sliceApi);
    replica.disconnect(RESPONDER);
    await world.advance(60_000);
    const states = storedSlices(world).map(({ spec, status }) => [spec.reporter.id, status?.state]);
    expect(states).to.have.deep.members([
      [RESPONDER.id, 'Unknown'],
      [RESPONDER.id, 'Unknown'],
      [OTHER_RESPONDER.id, 'Connected'],
    ]);
    expect(countVerbs(world.sliceApi)).to.deep.equal({ patchStatus: 2 });
    await world.advance(260_000);
    expect(storedSlices(world).map(({ spec }) => spec.reporter.id)).to.deep.equal([OTHER_RESPONDER.id]);
    expect([...world.reporterApi.stored.values()].map(({ spec }) => spec.id)).to.deep.equal([
      OTHER_RESPONDER.id,
    ]);
  });

  it('become Connected again with one write each if the reporter returns', async () => {
    const world = createMultiReplicaHarness();
    const replica = await startWithReporter(world);
    replica.disconnect(RESPONDER);
    await world.advance(60_000);
    countVerbs(world.sliceApi);
    replica.connect(RESPONDER, fullPush(...ALL));
    await world.advance(1000);
    expect(storedSlices(world).map(({ status }) => status?.state)).to.deep.equal(['Connected', 'Connected']);
    expect(countVerbs(world.sliceApi)).to.deep.equal({ patchStatus: 2 });
  });

  it('are deleted by the leader if no reporter object exists', async () => {
    const world = createMultiReplicaHarness();
    const first = await startWithReporter(world);
    first.crash();
    for (const name of world.reporterApi.stored.keys()) world.reporterApi.deleteManually(name);
    const leader = world.replica('b');
    leader.state.leads = true;
    await world.advance(120_000);
    expect(storedSlices(world)).to.be.empty;
    expect(world.reporterApi.stored.size).to.equal(0);
  });

  it('do not exist if the API server does not serve them, and replace the objects when it does', async () => {
    const world = createMultiReplicaHarness();
    const replica = world.replica('a', { representation: 'slices', withoutSlices: true });
    replica.connect(RESPONDER, fullPush(...ALL));
    await world.advance(1000);
    expect(world.tunnelNames(RESPONDER)).to.deep.equal(sortedNames(ALL));
    expect(world.sliceApi.calls).to.be.empty;
    replica.installSlices();
    await world.advance(5000);
    expect(namesInSlices(world)).to.deep.equal(sortedNames(ALL));
    await world.advance(60_000);
    expect(world.tunnelNames(RESPONDER)).to.be.empty;
  });

  for (const [title, missingMs] of [
    ['at once', 1000],
    ['for long', 900_000],
  ] as const) {
    it(`are created again when their CRD is, and tell that they are not until then: missing ${title}`, async () => {
      const world = createMultiReplicaHarness();
      const replica = await startWithReporter(world);
      world.sliceApi.uninstall();
      await world.advance(BATCH_MS);
      replica.uninstallSlices();
      replica.report(RESPONDER, delta(tunnelRange(151, 160), ['node-1']));
      await world.advance(missingMs);
      expect(world.condition(RESPONDER, 'Synced')).to.equal('False WritesRejected');
      expect(world.tunnelNames(RESPONDER), 'no objects instead').to.be.empty;
      world.sliceApi.install();
      replica.installSlices();
      await world.advance(2000);
      expect(namesInSlices(world)).to.deep.equal(sortedNames(tunnelRange(2, 160)));
      await world.advance(30_000);
      expect(world.condition(RESPONDER, 'Synced')).to.equal('True UpToDate');
    });
  }

  it('are created again if their CRD was missing at first, installed, deleted and created again', async () => {
    const world = createMultiReplicaHarness();
    world.sliceApi.uninstall();
    const replica = world.replica('a', { representation: 'slices', withoutSlices: true });
    replica.connect(RESPONDER, fullPush(...ALL));
    await world.advance(1000);
    for (let time = 0; time < 2; time += 1) {
      world.sliceApi.install();
      replica.installSlices();
      await world.advance(60_000);
      expect(namesInSlices(world), `installation ${time}`).to.deep.equal(sortedNames(ALL));
      expect(world.tunnelNames(RESPONDER)).to.be.empty;
      world.sliceApi.uninstall();
      await world.advance(BATCH_MS);
      replica.uninstallSlices();
      await world.advance(300_000);
    }
  });

  it('are created again if they were deleted while the replica was fenced', async () => {
    const world = createMultiReplicaHarness();
    const replica = await startWithReporter(world);
    replica.state.writes = false;
    for (const api of [world.sliceApi, world.reporterApi])
      for (const name of api.stored.keys()) api.deleteManually(name);
    await world.advance(1000);
    replica.state.writes = true;
    replica.report(RESPONDER, delta([]));
    await world.advance(5000);
    replica.report(RESPONDER, delta([]));
    await world.advance(5000);
    expect(namesInSlices(world)).to.deep.equal(sortedNames(ALL));
  });

  it('keep the reporter synced while changes arrive all the time', async () => {
    const world = createMultiReplicaHarness();
    const replica = world.replica('a', { representation: 'slices' });
    const all = Array.from({ length: 50 }, (_, index) =>
      tunnel(`node-${index}`, { tenantID: `tenant-${index}` }),
    );
    replica.connect(RESPONDER, fullPush(...all));
    await world.advance(20_000);
    expect(world.condition(RESPONDER, 'Synced')).to.equal('True UpToDate');
    const conditions = new Set<string>();
    for (let change = 0; change < 600; change += 1) {
      const { name, tenantID } = all[change % all.length] ?? tunnel('none');
      const createdAt = new Date(Date.parse('2026-11-23T07:00:00Z') + change * 1000).toISOString();
      replica.report(RESPONDER, delta([tunnel(name, { tenantID, createdAt })]));
      await world.advance(50);
      conditions.add(world.condition(RESPONDER, 'Synced'));
    }
    expect([...conditions]).to.deep.equal(['True UpToDate']);
  });

  it('show a held tunnel as Connected again when it returns after its reporter', async () => {
    const world = createMultiReplicaHarness({ holdMs: 30_000, thresholdPercent: 50, maxImmediate: 10 });
    const replica = await startWithReporter(world);
    replica.disconnect(RESPONDER);
    await world.advance(60_000);
    replica.connect(RESPONDER, fullPush(...ALL.slice(0, 20)));
    await world.advance(5000);
    replica.report(RESPONDER, delta(ALL.slice(20)));
    await world.advance(1000);
    const states = storedSlices(world).map(({ status }) => [status?.state, status?.tunnels]);
    expect(states).to.deep.equal([
      ['Connected', undefined],
      ['Connected', undefined],
    ]);
  });

  it('are reported as synced, and counted as applied, in the status of the reporter', async () => {
    const world = createMultiReplicaHarness();
    await startWithReporter(world);
    await world.advance(20_000);
    const [reporter] = [...world.reporterApi.stored.values()];
    expect(reporter?.status?.tunnels).to.include({ reported: 150, applied: 150, rejected: 0 });
    expect(world.condition(RESPONDER, 'Synced')).to.equal('True UpToDate');
  });
});
