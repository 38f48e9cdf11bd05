import { expect } from 'chai';
import type { SlicePatch } from '../../src/core/slice-object.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { delta, fullPush, RESPONDER, tunnel } from '../support/sample-tunnels.ts';
import {
  BATCH_MS,
  countVerbs,
  namesInSlices,
  sortedNames,
  startWithSlices,
  storedSlices,
  tunnelRange,
  type SliceWorld,
} from '../support/slice-world.ts';

const KEY = reporterKey(RESPONDER);
/** Longer than the search for rejected entries, and their move to another slice. */
const MOVED_MS = 1000;

/** Returns true if a write contains a tunnel whose name starts with `bad`. */
function hasBad({ tunnels }: SlicePatch): boolean {
  return tunnels.some(({ name }) => name.startsWith('bad'));
}

function rejectedCount({ registry }: SliceWorld): number {
  return registry.entry(KEY)?.pendingWrites.rejectedCount ?? 0;
}

async function withTunnels(count: number): Promise<SliceWorld> {
  const world = await startWithSlices();
  if (count > 0) world.report(RESPONDER, fullPush(...tunnelRange(1, count)));
  await world.advance(BATCH_MS);
  world.startControllers();
  countVerbs(world.sliceApi);
  return world;
}

describe('an entry of a slice that the API server rejects', () => {
  const cases: [title: string, resident: number, bad: number, good: number, removed: number][] = [
    ['in a new slice', 0, 1, 20, 0],
    ['in a slice with other tunnels', 50, 1, 20, 0],
    ['together with removals', 50, 1, 20, 10],
    ['with nothing but removals', 50, 1, 0, 10],
    ['in several slices', 50, 1, 250, 0],
    ['ten times', 50, 10, 100, 5],
    ['in a full slice', 100, 3, 20, 0],
  ];
  for (const [title, resident, bad, good, removed] of cases) {
    it(`delays no other change: ${title}`, async () => {
      const world = await withTunnels(resident);
      world.sliceApi.reject = hasBad;
      const badTunnels = Array.from({ length: bad }, (_, index) => tunnel(`bad-${index}`));
      const added = tunnelRange(resident + 1, resident + good);
      // Bad ones between good ones.
      const mixed = [...added.slice(0, good / 2), ...badTunnels, ...added.slice(good / 2)];
      world.report(
        RESPONDER,
        resident === 0
          ? fullPush(...mixed)
          : delta(mixed, sortedNames(tunnelRange(1, resident).slice(0, removed))),
      );
      await world.advance(MOVED_MS);
      expect(namesInSlices(world)).to.deep.equal(sortedNames(tunnelRange(removed + 1, resident + good)));
      expect(rejectedCount(world)).to.equal(bad);
    });
  }

  it('does not delay tunnels that are reported later', async () => {
    const world = await withTunnels(50);
    world.sliceApi.reject = hasBad;
    world.report(RESPONDER, delta([tunnel('bad')]));
    await world.advance(MOVED_MS);
    countVerbs(world.sliceApi);
    world.report(RESPONDER, delta(tunnelRange(51, 60)));
    await world.advance(BATCH_MS);
    expect(namesInSlices(world)).to.deep.equal(sortedNames(tunnelRange(1, 60)));
    expect(countVerbs(world.sliceApi)).to.deep.equal({ patch: 1 });
  });

  it('is reported like a rejected object', async () => {
    const world = await withTunnels(50);
    world.sliceApi.reject = hasBad;
    world.report(RESPONDER, delta([tunnel('bad-1'), tunnel('bad-2')]));
    await world.advance(MOVED_MS);
    expect(rejectedCount(world)).to.equal(2);
    expect(world.registry.entry(KEY)?.pendingWrites.blockedNames()).to.have.members(['bad-1', 'bad-2']);
    const line = world.logged.find(({ msg }) => String(msg).startsWith('entry of a ReverseTunnelSlice'));
    expect(line).to.include({ tunnel: 'bad-1', error: 'the API server responded: rejected' });
    expect(world.events.filter((event) => event.startsWith('writesRejected'))).to.have.lengthOf(1);
  });

  it('is tried again ever more rarely, and written once it is accepted', async () => {
    const world = await withTunnels(50);
    world.sliceApi.reject = hasBad;
    world.report(RESPONDER, delta([tunnel('bad')]));
    await world.advance(600_000);
    expect(world.sliceApi.writes).to.be.within(6, 24);
    world.sliceApi.reject = () => false;
    await world.advance(300_000);
    expect(namesInSlices(world)).to.deep.equal(sortedNames([...tunnelRange(1, 50), tunnel('bad')]));
    expect(rejectedCount(world)).to.equal(0);
    expect(world.queue.pending(KEY)).to.equal(0);
  });

  it('is tried again at once if its tunnel changes', async () => {
    const world = await withTunnels(50);
    world.sliceApi.reject = ({ tunnels }) => tunnels.some(({ nodeID }) => nodeID === 'denied');
    world.report(RESPONDER, delta([tunnel('moving', { nodeID: 'denied' })]));
    await world.advance(MOVED_MS);
    expect(rejectedCount(world)).to.equal(1);
    world.report(RESPONDER, delta([tunnel('moving', { nodeID: 'permitted' })]));
    await world.advance(MOVED_MS);
    expect(namesInSlices(world)).to.include('moving');
    expect(rejectedCount(world)).to.equal(0);
  });

  it('is no longer reported once its tunnel is down', async () => {
    const world = await withTunnels(50);
    world.sliceApi.reject = hasBad;
    world.report(RESPONDER, delta([tunnel('bad')]));
    await world.advance(MOVED_MS);
    world.report(RESPONDER, delta([], ['bad']));
    await world.advance(MOVED_MS);
    expect(rejectedCount(world)).to.equal(0);
    expect(world.queue.pending(KEY)).to.equal(0);
    expect(storedSlices(world).map(({ spec }) => spec.tunnelCount)).to.deep.equal([50]);
  });

  it('delays no other change if the rejected change is an update or a removal', async () => {
    const world = await withTunnels(50);
    const createdAt = '2026-11-23T06:00:00Z';
    world.sliceApi.reject = ({ tunnels }) => {
      const first = tunnels.find(({ name }) => name === 'node-1');
      return first?.createdAt === createdAt || !tunnels.some(({ name }) => name === 'node-2');
    };
    world.report(
      RESPONDER,
      delta([tunnel('node-1', { createdAt }), tunnel('node-51')], ['node-2', 'node-3']),
    );
    await world.advance(MOVED_MS);
    expect(namesInSlices(world)).to.deep.equal(
      sortedNames(tunnelRange(1, 51).filter(({ name }) => name !== 'node-3')),
    );
    expect(world.registry.entry(KEY)?.pendingWrites.blockedNames()).to.have.members(['node-1', 'node-2']);
  });
});

describe('a slice that the API server rejects as a whole', () => {
  it('does not get tunnels that another slice accepts', async () => {
    const world = await withTunnels(150);
    const [full, open] = storedSlices(world).toSorted(
      (a, b) => (b.spec.tunnelCount ?? 0) - (a.spec.tunnelCount ?? 0),
    );
    expect([full?.spec.tunnelCount, open?.spec.tunnelCount]).to.deep.equal([100, 50]);
    world.sliceApi.reject = (_, name) => name === open?.metadata.name;
    world.report(RESPONDER, delta(tunnelRange(151, 160)));
    await world.advance(MOVED_MS);
    expect(namesInSlices(world)).to.deep.equal(sortedNames(tunnelRange(1, 160)));
    expect(rejectedCount(world)).to.equal(0);
    countVerbs(world.sliceApi);
    world.report(RESPONDER, delta(tunnelRange(161, 170)));
    await world.advance(MOVED_MS);
    expect(namesInSlices(world)).to.deep.equal(sortedNames(tunnelRange(1, 170)));
    expect(countVerbs(world.sliceApi)).to.deep.equal({ patch: 1 });
  });

  it('gets tunnels again some minutes later', async () => {
    const world = await withTunnels(50);
    const [slice] = storedSlices(world);
    world.sliceApi.reject = (_, name) => name === slice?.metadata.name;
    world.report(RESPONDER, delta(tunnelRange(51, 51)));
    await world.advance(MOVED_MS);
    expect(storedSlices(world)).to.have.lengthOf(2);
    world.sliceApi.reject = () => false;
    world.report(RESPONDER, delta([], ['node-51']));
    await world.advance(320_000);
    expect(storedSlices(world)).to.have.lengthOf(1);
    world.report(RESPONDER, delta(tunnelRange(51, 51)));
    await world.advance(BATCH_MS);
    expect(storedSlices(world).map(({ spec }) => spec.tunnelCount)).to.deep.equal([51]);
  });

  it('leaves its tunnels to the places of others if no slice can be created', async () => {
    const world = await withTunnels(100);
    const [first] = storedSlices(world);
    world.sliceApi.reject = (_, name) => name !== first?.metadata.name;
    world.report(RESPONDER, delta([tunnel('late')]));
    await world.advance(MOVED_MS);
    expect(rejectedCount(world)).to.equal(1);
    world.report(RESPONDER, delta([], ['node-1']));
    await world.advance(60_000);
    expect(namesInSlices(world)).to.deep.equal(sortedNames([...tunnelRange(2, 100), tunnel('late')]));
    expect(rejectedCount(world)).to.equal(0);
  });

  it('costs few writes if nothing can be created, and is created once that is possible', async () => {
    const world = await withTunnels(0);
    world.sliceApi.reject = () => true;
    world.report(RESPONDER, fullPush(...tunnelRange(1, 300)));
    await world.advance(MOVED_MS);
    expect(world.sliceApi.writes).to.be.at.most(3 * 30);
    expect(rejectedCount(world)).to.be.at.least(3);
    await world.advance(600_000);
    world.sliceApi.reject = () => false;
    await world.advance(320_000);
    expect(namesInSlices(world)).to.deep.equal(sortedNames(tunnelRange(1, 300)));
    expect(rejectedCount(world)).to.equal(0);
    expect(world.queue.pending(KEY)).to.equal(0);
  });

  it('keeps a tunnel that a merge would move to a slice that rejects it', async () => {
    const world = await withTunnels(200);
    const removed = tunnelRange(1, 200).filter((_, index) => index % 4 !== 0);
    world.report(RESPONDER, delta([], sortedNames(removed)));
    await world.advance(BATCH_MS);
    const kept = namesInSlices(world);
    expect(storedSlices(world).map(({ spec }) => spec.tunnelCount)).to.deep.equal([25, 25]);
    world.sliceApi.reject = ({ tunnels }) => tunnels.length > 25;
    await world.advance(120_000);
    expect(namesInSlices(world)).to.deep.equal(kept);
    expect(rejectedCount(world)).to.equal(0);
  });
});
