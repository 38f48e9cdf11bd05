import { expect } from 'chai';
import { MAX_SLICE_TUNNELS, type SliceObject } from '../../src/core/slice-object.ts';
import { reporterKey, type ReporterId } from '../../src/core/tunnel.ts';
import { apiFailure, connectionFailure, type MemorySliceApi } from '../support/memory-api.ts';
import { delta, fullPush, RESPONDER, tunnel } from '../support/sample-tunnels.ts';
import {
  BATCH_MS,
  countVerbs,
  namesInObjects,
  namesInSlices,
  sortedNames,
  startWithSlices,
  storedSlices,
  tunnelRange,
  type SliceWorld,
} from '../support/slice-world.ts';

const KEY = reporterKey(RESPONDER);

describe('the slices of a reporter', () => {
  it('show a full push with one write per 100 tunnels', async () => {
    const world = await startWithSlices();
    const all = tunnelRange(1, 250);
    world.report(RESPONDER, fullPush(...all));
    await world.settle();
    await world.advance(BATCH_MS);
    expect(namesInSlices(world)).to.deep.equal(sortedNames(all));
    expect(countVerbs(world.sliceApi)).to.deep.equal({ create: 3 });
    expect(
      await world.metrics.registry.getSingleMetricAsString('reverse_tunnel_api_writes_total'),
    ).to.include('{resource="reversetunnelslices",verb="create",outcome="ok"} 3');
    expect(world.api.stored.size).to.equal(0);
    expect(storedSlices(world).map(({ spec }) => spec.tunnelCount)).to.have.members([
      MAX_SLICE_TUNNELS,
      MAX_SLICE_TUNNELS,
      50,
    ]);
  });

  it('are not written again for the same full push', async () => {
    const world = await startWithSlices();
    world.report(RESPONDER, fullPush(...tunnelRange(1, 150)));
    await world.advance(BATCH_MS);
    countVerbs(world.sliceApi);
    world.report(RESPONDER, fullPush(...tunnelRange(1, 150)));
    await world.advance(BATCH_MS);
    expect(countVerbs(world.sliceApi)).to.deep.equal({});
  });

  it('lose the entry of a removed tunnel with one write', async () => {
    const world = await startWithSlices();
    world.report(RESPONDER, fullPush(...tunnelRange(1, 150)));
    await world.advance(BATCH_MS);
    countVerbs(world.sliceApi);
    world.report(RESPONDER, delta([], ['node-7']));
    await world.advance(BATCH_MS);
    expect(namesInSlices(world)).to.deep.equal(
      sortedNames(tunnelRange(1, 150).filter(({ name }) => name !== 'node-7')),
    );
    expect(countVerbs(world.sliceApi)).to.deep.equal({ patch: 1 });
  });

  it('are written once for a burst of changes', async () => {
    const world = await startWithSlices();
    world.report(RESPONDER, fullPush(...tunnelRange(1, 50)));
    await world.advance(BATCH_MS);
    countVerbs(world.sliceApi);
    for (let index = 51; index <= 60; index += 1) world.report(RESPONDER, delta(tunnelRange(index, index)));
    await world.advance(BATCH_MS);
    expect(countVerbs(world.sliceApi)).to.deep.equal({ patch: 1 });
    expect(namesInSlices(world)).to.deep.equal(sortedNames(tunnelRange(1, 60)));
  });

  it('cost no write after a restart', async () => {
    const first = await startWithSlices();
    first.report(RESPONDER, fullPush(...tunnelRange(1, 150)));
    await first.advance(BATCH_MS);
    const { sliceApi } = first;
    countVerbs(sliceApi);
    const world = await startWithSlices({ sliceApi });
    world.report(RESPONDER, fullPush(...tunnelRange(1, 150)));
    await world.advance(BATCH_MS);
    expect(countVerbs(sliceApi)).to.deep.equal({});
  });

  it('are deleted when their last tunnel is removed', async () => {
    const world = await startWithSlices();
    world.report(RESPONDER, fullPush(...tunnelRange(1, 2)));
    await world.advance(BATCH_MS);
    world.report(RESPONDER, delta([], ['node-1', 'node-2']));
    await world.advance(BATCH_MS);
    expect(storedSlices(world)).to.be.empty;
    expect(world.queue.pending(KEY)).to.equal(0);
  });

  it('are written before a shutdown ends', async () => {
    const world = await startWithSlices();
    world.report(RESPONDER, fullPush(...tunnelRange(1, 2)));
    await world.drained();
    expect(namesInSlices(world)).to.deep.equal(['node-1', 'node-2']);
  });
});

describe('an external change of a slice', () => {
  async function withSlices(): Promise<SliceWorld & { readonly name: string }> {
    const world = await startWithSlices();
    world.report(RESPONDER, fullPush(...tunnelRange(1, 100)));
    await world.advance(BATCH_MS);
    countVerbs(world.sliceApi);
    return { ...world, name: storedSlices(world)[0]?.metadata.name ?? '' };
  }

  const edits: [title: string, edit: (api: MemorySliceApi, name: string) => void][] = [
    ['a deletion', (api, name) => api.deleteManually(name)],
    ['a removed entry', (api, name) => void api.editManually(name, removeFirst(api, name))],
    [
      'an added entry',
      (api, name) => void api.editManually(name, replaceFirst(api, name, { name: 'other' })),
    ],
    ['an edited entry', (api, name) => void api.editManually(name, replaceFirst(api, name, { nodeID: 'x' }))],
    [
      'a removed label',
      (api, name) =>
        void api.editManually(name, { metadata: { labels: { 'reverse-tunnel.io/tenant': null } } }),
    ],
    [
      'an edited status',
      (api, name) => void api.editManually(`${name}/status`, { status: { state: 'Unknown' } }),
    ],
  ];

  function removeFirst(api: MemorySliceApi, name: string): object {
    const rest = api.stored.get(name)?.spec.tunnels?.slice(1) ?? [];
    return { spec: { tunnels: rest, tunnelCount: rest.length } };
  }

  function replaceFirst(api: MemorySliceApi, name: string, change: object): object {
    const [first, ...rest] = api.stored.get(name)?.spec.tunnels ?? [];
    return { spec: { tunnels: [{ ...first, ...change }, ...rest] } };
  }

  for (const [title, edit] of edits) {
    it(`is reverted with one write: ${title}`, async () => {
      const world = await withSlices();
      const text = ({ metadata, spec, status }: SliceObject): unknown => [
        metadata.name,
        metadata.labels,
        [...(spec.tunnels ?? [])].toSorted((a, b) => a.name.localeCompare(b.name)),
        status?.state,
      ];
      const before = storedSlices(world).map(text);
      edit(world.sliceApi, world.name);
      await world.advance(BATCH_MS);
      expect(storedSlices(world).map(text)).to.deep.equal(before);
      expect(Object.values(countVerbs(world.sliceApi))).to.deep.equal([1]);
    });
  }
});

describe('slices of tunnels that change', () => {
  async function withTunnels(count: number): Promise<SliceWorld> {
    const world = await startWithSlices();
    world.report(RESPONDER, fullPush(...tunnelRange(1, count)));
    await world.advance(BATCH_MS);
    countVerbs(world.sliceApi);
    return world;
  }

  it('are patched once if a tunnel has another creation time or initiator', async () => {
    const world = await withTunnels(100);
    world.report(RESPONDER, delta([tunnel('node-3', { createdAt: '2026-11-23T06:00:00Z' })]));
    await world.advance(BATCH_MS);
    world.report(RESPONDER, delta([tunnel('node-4', { nodeID: 'moved', clusterID: 'eu-2' })]));
    await world.advance(BATCH_MS);
    expect(countVerbs(world.sliceApi)).to.deep.equal({ patch: 2 });
    const entries = storedSlices(world)[0]?.spec.tunnels ?? [];
    expect(entries.find(({ name }) => name === 'node-3')?.createdAt).to.equal('2026-11-23T06:00:00Z');
    expect(entries.find(({ name }) => name === 'node-4')?.nodeID).to.equal('moved');
  });

  it('move a tunnel to a slice of its new tenant', async () => {
    const world = await withTunnels(10);
    world.report(RESPONDER, delta([tunnel('node-3', { tenantID: 'globex' })]));
    await world.advance(2 * BATCH_MS);
    const byTenant = storedSlices(world).map(({ spec }) => [spec.tenantID, spec.tunnelCount]);
    expect(byTenant).to.have.deep.members([
      ['acme', 9],
      ['globex', 1],
    ]);
  });

  it('refill the places of removed tunnels', async () => {
    const world = await withTunnels(200);
    world.report(RESPONDER, delta([], ['node-5', 'node-150']));
    await world.advance(BATCH_MS);
    world.report(RESPONDER, delta(tunnelRange(201, 202)));
    await world.advance(BATCH_MS);
    expect(storedSlices(world).map(({ spec }) => spec.tunnelCount)).to.deep.equal([100, 100]);
  });

  it('are merged while nothing changes, if they are half-empty', async () => {
    const world = await withTunnels(200);
    const removed = tunnelRange(1, 200).filter((_, index) => index % 4 !== 0);
    world.report(RESPONDER, delta([], sortedNames(removed)));
    await world.advance(BATCH_MS);
    expect(storedSlices(world)).to.have.lengthOf(2);
    countVerbs(world.sliceApi);
    world.startControllers();
    await world.advance(30_000);
    expect(storedSlices(world).map(({ spec }) => spec.tunnelCount)).to.deep.equal([50]);
    expect(countVerbs(world.sliceApi)).to.deep.equal({ patch: 1, delete: 1 });
  });

  it('are merged for each reporter in its turn, however many slices others have', async () => {
    const world = await startWithSlices();
    const reporters = Array.from({ length: 11 }, (_, index) => ({ ...RESPONDER, id: `responder-${index}` }));
    const tenants = ['acme', 'globex'].map((tenantID) =>
      Array.from({ length: 101 }, (_, index) => tunnel(`${tenantID}-node-${index}`, { tenantID })),
    );
    for (const reporter of reporters) {
      world.report(reporter, fullPush(...tenants.flat()));
      await world.advance(BATCH_MS);
      world.report(reporter, delta([], sortedNames(tenants.flatMap((of) => of.slice(0, 95)))));
      await world.advance(BATCH_MS);
    }
    const slicesOf = (reporter: ReporterId): number => world.sliceCache.sliceCountOf(reporterKey(reporter));
    expect(new Set(reporters.map(slicesOf))).to.deep.equal(new Set([4]));
    world.startControllers();
    await world.advance(25_000);
    for (const reporter of reporters) expect(slicesOf(reporter), reporter.id).to.be.below(4);
  });

  it('are merged although a write for another tunnel of the reporter is rejected', async () => {
    const world = await withTunnels(200);
    world.report(RESPONDER, delta([], sortedNames(tunnelRange(1, 60))));
    await world.advance(BATCH_MS);
    world.report(RESPONDER, delta([], sortedNames(tunnelRange(101, 160))));
    await world.advance(BATCH_MS);
    world.sliceApi.before = ({ verb }) => {
      if (verb === 'create') throw apiFailure('rejected');
    };
    world.report(RESPONDER, delta([tunnel('node-globex', { tenantID: 'globex' })]));
    await world.advance(BATCH_MS);
    expect(storedSlices(world)).to.have.lengthOf(2);
    world.startControllers();
    await world.advance(25_000);
    expect(storedSlices(world).map(({ spec }) => spec.tunnelCount)).to.deep.equal([80]);
  });

  it('keep the entries of a held removal, and lose them when the hold ends', async () => {
    const world = await withTunnels(100);
    world.report(RESPONDER, fullPush(...tunnelRange(1, 20)));
    await world.advance(10_000);
    expect(namesInSlices(world)).to.have.lengthOf(100);
    await world.advance(25_000);
    expect(namesInSlices(world)).to.deep.equal(sortedNames(tunnelRange(1, 20)));
  });

  it('become Unknown with one write each, and Connected again', async () => {
    const world = await withTunnels(150);
    world.intake.reporterDisconnected(RESPONDER, 'StreamEnded');
    world.startControllers();
    await world.advance(60_000);
    expect(storedSlices(world).map(({ status }) => status?.state)).to.deep.equal(['Unknown', 'Unknown']);
    expect(countVerbs(world.sliceApi)).to.deep.equal({ patchStatus: 2 });
    world.report(RESPONDER, fullPush(...tunnelRange(1, 150)));
    world.resync(KEY);
    await world.advance(BATCH_MS);
    expect(storedSlices(world).map(({ status }) => status?.state)).to.deep.equal(['Connected', 'Connected']);
    expect(countVerbs(world.sliceApi)).to.deep.equal({ patchStatus: 2 });
  });

  it('cost a flapping tunnel one write per 30 s', async () => {
    const world = await withTunnels(100);
    for (let index = 0; index < 20; index += 1) {
      world.report(RESPONDER, index % 2 === 0 ? delta([], ['node-9']) : delta([tunnel('node-9')]));
      await world.advance(1000);
    }
    await world.advance(60_000);
    countVerbs(world.sliceApi);
    for (let index = 0; index < 60; index += 1) {
      world.report(RESPONDER, index % 2 === 0 ? delta([], ['node-9']) : delta([tunnel('node-9')]));
      await world.advance(1000);
    }
    expect(countVerbs(world.sliceApi)['patch'] ?? 0).to.be.within(1, 3);
  });
});

describe('a write of a slice that fails', () => {
  const failures: [title: string, fail: (api: MemorySliceApi) => void][] = [
    ['a conflict', (api) => api.failNext(apiFailure('conflict'))],
    ['a throttled request', (api) => api.failNext(apiFailure('throttled', { retryAfterMs: 1000 }), 3)],
    ['a lost connection', (api) => api.failNext(connectionFailure(), 5)],
    ['an unexpected response', (api) => api.failNext(apiFailure('unexpected_response'), 2)],
    ['a rejection', (api) => api.failNext(apiFailure('rejected'), 2)],
    [
      'a response that is lost',
      (api) => {
        let lost = false;
        api.after = () => {
          if (lost) return;
          lost = true;
          throw connectionFailure();
        };
      },
    ],
  ];
  for (const [title, fail] of failures) {
    it(`is repeated until the slices show all tunnels: ${title}`, async () => {
      const world = await startWithSlices();
      fail(world.sliceApi);
      world.report(RESPONDER, fullPush(...tunnelRange(1, 20)));
      await world.advance(60_000);
      world.report(RESPONDER, delta([], ['node-1']));
      await world.advance(60_000);
      expect(namesInSlices(world)).to.deep.equal(sortedNames(tunnelRange(2, 20)));
      expect(world.registry.entry(KEY)?.pendingWrites.rejectedCount).to.equal(0);
    });
  }

  it('uses another slice if the name belongs to another reporter', async () => {
    const world = await startWithSlices();
    const first = await startWithSlices();
    first.report(RESPONDER, fullPush(...tunnelRange(1, 1)));
    await first.advance(BATCH_MS);
    const [slice] = storedSlices(first);
    const spec = {
      reporter: { cluster: 'edge', id: 'foreign' },
      tenantID: 'acme',
      tunnelCount: 1,
      tunnels: slice?.spec.tunnels ?? [],
    };
    world.sliceApi.createManually({ name: slice?.metadata.name ?? '', labels: {}, spec });
    world.report(RESPONDER, fullPush(...tunnelRange(1, 20)));
    await world.advance(60_000);
    expect(
      storedSlices(world).map(({ spec: { reporter, tunnelCount } }) => [reporter.id, tunnelCount]),
    ).to.have.deep.members([
      ['foreign', 1],
      [RESPONDER.id, 20],
    ]);
  });

  it('moves the tunnels of a slice that a finalizer keeps to another one', async () => {
    const world = await startWithSlices();
    world.report(RESPONDER, fullPush(...tunnelRange(1, 20)));
    await world.advance(BATCH_MS);
    const name = storedSlices(world)[0]?.metadata.name ?? '';
    world.sliceApi.addFinalizer(name);
    world.sliceApi.deleteManually(name);
    await world.advance(60_000);
    const live = storedSlices(world).filter(({ metadata }) => metadata.deletionTimestamp === undefined);
    expect(live.map(({ spec }) => spec.tunnelCount)).to.deep.equal([20]);
    world.sliceApi.removeFinalizer(name);
    await world.advance(60_000);
    expect(namesInSlices(world)).to.deep.equal(sortedNames(tunnelRange(1, 20)));
  });
});

describe('an admission webhook that rewrites slices', () => {
  const rewrites: [title: string, admit: (object: SliceObject) => SliceObject][] = [
    ['labels', (object) => ({ ...object, metadata: { ...object.metadata, labels: { changed: 'yes' } } })],
    [
      'an entry',
      (object) => {
        const [, ...rest] = object.spec.tunnels ?? [];
        return { ...object, spec: { ...object.spec, tunnels: rest, tunnelCount: rest.length } };
      },
    ],
    [
      'an entry without a creation time',
      (object) => {
        const entries = (object.spec.tunnels ?? []).map(({ name, clusterID, nodeID }) => ({
          name,
          clusterID,
          nodeID,
          createdAt: '2026-11-23T07:00:00Z',
        }));
        return { ...object, spec: { ...object.spec, tunnels: entries } };
      },
    ],
  ];
  for (const [title, admit] of rewrites) {
    it(`is reported, and the write is repeated only every 5 minutes: ${title}`, async () => {
      const world = await startWithSlices();
      world.sliceApi.admit = admit;
      world.report(RESPONDER, fullPush(...tunnelRange(1, 20, { createdAt: undefined })));
      await world.advance(240_000);
      expect(world.sliceApi.writes).to.be.within(1, 3);
      expect(world.registry.entry(KEY)?.pendingWrites.rewritten.size).to.equal(1);
      expect(world.logged.map(({ msg }) => msg)).to.include('admission rewrote a ReverseTunnelSlice');
      countVerbs(world.sliceApi);
      await world.advance(900_000);
      expect(world.sliceApi.writes).to.be.within(1, 6);
      world.sliceApi.admit = undefined;
      await world.advance(400_000);
      expect(world.registry.entry(KEY)?.pendingWrites.rewritten.size).to.equal(0);
      expect(namesInSlices(world)).to.deep.equal(sortedNames(tunnelRange(1, 20)));
    });
  }
});

describe('an operator that represents tunnels by objects', () => {
  it('sends no request about slices', async () => {
    const world = await startWithSlices({ representation: 'objects' });
    world.report(RESPONDER, fullPush(...tunnelRange(1, 20)));
    await world.advance(1000);
    world.report(RESPONDER, delta([], ['node-1']));
    await world.advance(1000);
    expect(world.sliceApi.calls).to.be.empty;
    expect(namesInObjects(world)).to.deep.equal(sortedNames(tunnelRange(2, 20)));
    expect(countVerbs(world.api)).to.deep.equal({ create: 20, delete: 1 });
  });
});

describe('slices with manual edits', () => {
  it('use the place of a tunnel that was added manually', async () => {
    const world = await startWithSlices();
    world.report(RESPONDER, fullPush(...tunnelRange(1, 99)));
    await world.advance(BATCH_MS);
    const [slice] = storedSlices(world);
    const tunnels = [...(slice?.spec.tunnels ?? []), { name: 'manual', clusterID: 'c', nodeID: 'n' }];
    world.sliceApi.editManually(slice?.metadata.name ?? '', { spec: { tunnels, tunnelCount: 100 } });
    await world.advance(BATCH_MS);
    expect(namesInSlices(world)).to.deep.equal(sortedNames(tunnelRange(1, 99)));
    world.report(RESPONDER, delta(tunnelRange(100, 100)));
    await world.advance(BATCH_MS);
    expect(storedSlices(world).map(({ spec }) => spec.tunnelCount)).to.deep.equal([100]);
  });

  it('are reverted ever more slowly while another client keeps editing them', async () => {
    const world = await startWithSlices();
    world.report(RESPONDER, fullPush(...tunnelRange(1, 10)));
    await world.advance(BATCH_MS);
    const name = storedSlices(world)[0]?.metadata.name ?? '';
    countVerbs(world.sliceApi);
    for (let second = 0; second < 120; second += 1) {
      const tunnels = [{ name: 'manual', clusterID: 'c', nodeID: 'n' }];
      world.sliceApi.editManually(name, { spec: { tunnels, tunnelCount: 1 } });
      await world.advance(1000);
    }
    expect(world.sliceApi.writes).to.be.within(3, 12);
  });

  it('are not created twice if a slice with another name shows the tunnels', async () => {
    const world = await startWithSlices();
    world.report(RESPONDER, fullPush(...tunnelRange(1, 10)));
    await world.advance(BATCH_MS);
    const [slice] = storedSlices(world);
    if (slice === undefined) throw new Error('no slice');
    const { reporter, tenantID, tunnelCount = 0, tunnels = [] } = slice.spec;
    world.sliceApi.createManually({
      name: 'copy',
      labels: {},
      spec: { reporter, tenantID, tunnelCount, tunnels },
    });
    await world.advance(10_000);
    expect(storedSlices(world).map(({ metadata }) => metadata.name)).to.deep.equal([slice.metadata.name]);
  });
});
