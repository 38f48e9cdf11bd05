import { expect } from 'chai';

import type { ApiErrorKind } from '../../src/core/kubernetes.ts';
import { manifestFor } from '../../src/core/tunnel-object.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { apiFailure, connectionFailure, type TunnelApiCall } from '../support/memory-api.ts';
import { createHarness, objectTexts, type ControllerHarness } from '../support/controller-harness.ts';
import { delta, fullPush, names, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const T1 = tunnel('node-1');
const T2 = tunnel('node-2');
const LATER = { ...T1, createdAt: '2026-11-23T06:00:00Z' };
const OTHER_TENANT = { ...T1, tenantID: 'beta' };
const OTHER_NODE = { ...T1, nodeID: 'node-one' };
const NAME = names.tunnelObjectName(RESPONDER, T1);

/** Returns the calls since the last time, by verb. */
function verbs({ api }: ControllerHarness): string[] {
  return api.calls.splice(0).map(({ verb }) => verb);
}

/** A harness in which the operator has been running, with an object for T1. */
async function holdingT1(): Promise<ControllerHarness> {
  const world = createHarness();
  await world.start();
  world.report(RESPONDER, fullPush(T1));
  await world.settle();
  expect(verbs(world)).to.deep.equal(['create']);
  return world;
}

/** Expects exactly the objects of these tunnels of RESPONDER. */
function expectRows({ api }: ControllerHarness, ...tunnels: (typeof T1)[]): void {
  const status = { state: 'Connected', conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }] };
  const wanted = tunnels.map((of) => {
    const { name, labels, spec } = manifestFor(names, RESPONDER, of);
    return { metadata: { name, labels, uid: '', resourceVersion: '' }, spec, status };
  });
  expect(objectTexts(api.stored.values())).to.deep.equal(objectTexts(wanted));
}

describe('an object write', () => {
  it('is one POST for a new tunnel, and one DELETE for a removed one', async () => {
    const world = await holdingT1();
    expectRows(world, T1);
    world.report(RESPONDER, delta([], ['node-1']));
    await world.settle();
    expect(verbs(world)).to.deep.equal(['delete']);
    expectRows(world);
  });

  it('is one PATCH for a changed, removed or added createdAt, which keeps the object', async () => {
    const world = await holdingT1();
    const before = world.object(RESPONDER, T1)?.metadata.uid;
    for (const next of [LATER, { ...T1, createdAt: undefined }, T1]) {
      world.report(RESPONDER, delta([next], ['node-1']));
      await world.settle();
      expect(verbs(world)).to.deep.equal(['patch']);
      expectRows(world, next);
    }
    expect(world.object(RESPONDER, T1)?.metadata.uid).to.equal(before);
  });

  it('is a DELETE and then a POST for another identity, with or without another name', async () => {
    const world = await holdingT1();
    for (const next of [OTHER_TENANT, OTHER_NODE, T1]) {
      world.report(RESPONDER, delta([next], ['node-1']));
      await world.settle();
      expect(verbs(world)).to.deep.equal(['delete', 'create']);
      expectRows(world, next);
    }
  });

  it('does not occur without a change: for heartbeats, the same full push, the same tunnel', async () => {
    const world = await holdingT1();
    for (let time = 0; time < 3; time += 1) {
      world.report(RESPONDER, delta([]));
      world.report(RESPONDER, fullPush({ ...T1 }));
      world.report(RESPONDER, delta([{ ...T1 }]));
      world.report(RESPONDER, delta([{ ...T1 }], ['node-1']));
      world.report(RESPONDER, delta([], ['node-9']));
      await world.settle();
    }
    await world.advance(600_000);
    expect(verbs(world)).to.deep.equal([]);
  });

  it('does not occur for a tunnel that was added and removed before its turn', async () => {
    const world = createHarness();
    await world.start();
    world.workers.stop();
    world.report(RESPONDER, fullPush());
    world.report(RESPONDER, delta([T1]));
    world.report(RESPONDER, delta([], ['node-1']));
    world.workers.start();
    await world.settle();
    expect(verbs(world)).to.deep.equal([]);
  });

  it('is followed by only one more, whatever happened while it was in flight', async () => {
    const world = createHarness();
    await world.start();
    const answer = Promise.withResolvers<void>();
    world.api.after = () => answer.promise;
    world.report(RESPONDER, fullPush(T1));
    await world.settle();
    for (let second = 10; second < 30; second += 1) {
      world.report(RESPONDER, delta([{ ...T1, createdAt: `2026-11-23T06:00:${second}Z` }], ['node-1']));
    }
    world.report(RESPONDER, delta([], ['node-1']));
    world.report(RESPONDER, delta([LATER]));
    await world.settle();
    expect(verbs(world)).to.deep.equal(['create']);
    answer.resolve();
    await world.settle();
    expect(verbs(world)).to.deep.equal(['patch']);
    expectRows(world, LATER);
  });

  it('deletes an object whose tunnel was removed while the create was in flight', async () => {
    const world = createHarness();
    await world.start();
    const arrival = Promise.withResolvers<void>();
    world.api.before = () => arrival.promise;
    world.report(RESPONDER, fullPush(T1));
    await world.settle();
    world.report(RESPONDER, delta([], ['node-1']));
    arrival.resolve();
    await world.settle();
    expect(verbs(world)).to.deep.equal(['create', 'delete']);
    expectRows(world);
  });

  const removals = [
    { by: 'a delta', removal: () => delta([], ['node-1']) },
    { by: 'a full push', removal: () => fullPush(T2) },
  ];
  for (const { by, removal } of removals) {
    for (const isWatchLate of [false, true]) {
      const watch = isWatchLate ? 'the watch is late' : 'the watch has delivered the object';
      it(`deletes an object whose tunnel ${by} removed before the response to the create, if ${watch}`, async () => {
        const world = createHarness();
        await world.start();
        const settle = isWatchLate ? world.settleUnwatched : world.settle;
        const response = Promise.withResolvers<void>();
        world.api.after = () => response.promise;
        world.report(RESPONDER, fullPush(T1, T2));
        await settle();
        expectRows(world, T1, T2);
        world.report(RESPONDER, removal());
        await settle();
        expect(verbs(world), 'before the response').to.deep.equal(['create', 'create']);
        response.resolve();
        await settle();
        expect(verbs(world), 'after the response').to.deep.equal(['delete']);
        expectRows(world, T2);
        await world.advance(600_000);
        expect(verbs(world), 'after the watch has caught up').to.deep.equal([]);
        expectRows(world, T2);
      });
    }
  }

  it('gives every valid name an object that the API server accepts', async () => {
    const world = createHarness();
    await world.start();
    const strange = [
      '__proto__',
      'constructor',
      'a:b',
      'A/B',
      '-',
      '😀',
      '\ufffd',
      'x'.repeat(512),
      'é'.repeat(128),
      ' ',
    ].map((name) => tunnel(name, { nodeID: name.slice(0, 128), tenantID: name.slice(0, 128) }));
    world.report(RESPONDER, fullPush(...strange));
    await world.settle();
    await world.advance(60_000);
    expect(world.api.stored.size).to.equal(strange.length);
    expect(verbs(world).filter((verb) => verb !== 'create')).to.deep.equal([]);
  });
});

describe('a conflict', () => {
  it('with an older version of a known object causes a relist, because etcd was restored', async () => {
    const world = createHarness();
    await world.start();
    world.report(RESPONDER, fullPush(T1));
    await world.settle();
    const stored = world.object(RESPONDER, T1);
    if (stored === undefined) throw new Error('object not created');
    // Unknown to the restored etcd.
    const labels = { ...stored.metadata.labels, 'reverse-tunnel.io/tenant': 'mine' };
    const metadata = { ...stored.metadata, labels, resourceVersion: '100000' };
    world.cache.event('MODIFIED', { ...stored, metadata });
    await world.advance(1000);
    expect([world.queue.depth, world.queue.delayedCount]).to.deep.equal([0, 0]);
    const [known] = world.cache.objects(reporterKey(RESPONDER), T1.name);
    expect(known?.resourceVersion).to.equal(stored.metadata.resourceVersion);
  });

  it('with an edit that the watch has not returned yet causes a read and another write', async () => {
    const world = await holdingT1();
    world.api.editManually(NAME, { labels: { team: 'network' } });
    world.report(RESPONDER, delta([LATER], ['node-1']));
    await world.settle();
    expect(verbs(world)).to.deep.equal(['patch', 'read', 'patch']);
    expect(world.object(RESPONDER, T1)?.spec.createdAt).to.equal(LATER.createdAt);
    expect(world.object(RESPONDER, T1)?.metadata.labels).to.include({ team: 'network' });
  });

  it('of a DELETE with an external edit causes a read, and the object is still deleted', async () => {
    const world = await holdingT1();
    world.api.editManually(NAME, { labels: { team: 'network' } });
    world.report(RESPONDER, delta([], ['node-1']));
    await world.settle();
    expect(verbs(world)).to.deep.equal(['delete', 'read', 'delete']);
    expectRows(world);
  });

  it('causes no further write if the external change has the intended result', async () => {
    const world = await holdingT1();
    world.api.editManually(NAME, { createdAt: LATER.createdAt });
    world.report(RESPONDER, delta([LATER], ['node-1']));
    await world.settle();
    expect(verbs(world)).to.deep.equal(['patch', 'read']);
    expectRows(world, LATER);
  });

  it('with a manual deletion recreates the object', async () => {
    const world = await holdingT1();
    world.api.deleteManually(NAME);
    world.report(RESPONDER, delta([LATER], ['node-1']));
    await world.settle();
    expect(verbs(world)).to.deep.equal(['patch', 'create']);
    expectRows(world, LATER);
  });

  it('recreates the object if the read does not find it', async () => {
    const world = await holdingT1();
    world.api.editManually(NAME, { labels: { team: 'network' } });
    world.api.deliver = () => 0;
    world.api.before = ({ verb }: TunnelApiCall) => {
      if (verb === 'read') world.api.deleteManually(NAME);
    };
    world.report(RESPONDER, delta([LATER], ['node-1']));
    await world.settle();
    expect(verbs(world)).to.deep.equal(['patch', 'read', 'create']);
    expectRows(world, LATER);
  });

  it('with a manual deletion and creation continues with the new object', async () => {
    const world = await holdingT1();
    world.api.deleteManually(NAME);
    world.api.createManually(manifestFor(names, RESPONDER, T1));
    world.report(RESPONDER, delta([LATER], ['node-1']));
    await world.settle();
    expect(verbs(world)).to.deep.equal(['patch', 'read', 'patch']);
    expectRows(world, LATER);
  });

  it('is retried if the read fails', async () => {
    const world = await holdingT1();
    world.api.editManually(NAME, { labels: { team: 'network' } });
    let reads = 0;
    world.api.before = ({ verb }: TunnelApiCall) => {
      if (verb === 'read' && (reads += 1) === 1) throw apiFailure('throttled', { retryAfterMs: 1000 });
    };
    world.report(RESPONDER, delta([LATER], ['node-1']));
    await world.advance(2000);
    expect(world.object(RESPONDER, T1)?.spec.createdAt).to.equal(LATER.createdAt);
    await world.advance(600_000);
    verbs(world);
    expect(world.queue.delayedCount).to.equal(0);
  });
});

describe('a lost response to an executed write', () => {
  const situations: [
    write: string,
    report: () => ReturnType<typeof delta>,
    then: (typeof T1)[],
    calls: string[],
  ][] = [
    ['a POST', () => delta([T2]), [T1, T2], ['create', 'create', 'read']],
    ['a PATCH', () => delta([LATER], ['node-1']), [LATER], ['patch', 'patch', 'read']],
    ['a DELETE', () => delta([], ['node-1']), [], ['delete', 'delete']],
  ];
  for (const [write, report, then, calls] of situations) {
    it(`of ${write} is detected, and nothing is repeated`, async () => {
      const world = await holdingT1();
      const deliver = world.api.deliver.bind(world.api);
      // The watch is idle too.
      world.api.deliver = () => 0;
      world.api.after = () => {
        world.api.after = () => {};
        throw connectionFailure();
      };
      world.report(RESPONDER, report());
      await world.advance(5000);
      expect(verbs(world)).to.deep.equal(calls);
      expectRows(world, ...then);
      world.api.deliver = deliver;
      await world.advance(600_000);
      expect(verbs(world)).to.deep.equal([]);
      expectRows(world, ...then);
    });
  }

  it('is replaced by the watch event of the write', async () => {
    const world = await holdingT1();
    world.api.after = () => {
      world.api.after = () => {};
      throw connectionFailure();
    };
    world.report(RESPONDER, delta([T2]));
    await world.advance(600_000);
    expect(verbs(world)).to.deep.equal(['create']);
    expectRows(world, T1, T2);
  });
});

/** Returns the rejected tunnels by reason. */
async function rejections({ metrics }: ControllerHarness): Promise<[unknown, number][]> {
  const { values } = await metrics.tunnelRejections.get();
  return values.map(({ labels, value }) => [labels.reason, value]);
}

describe('an object name that is taken', () => {
  it('by an object of another tunnel of the same reporter: the tunnel is rejected', async () => {
    const world = createHarness();
    await world.start();
    // It is not known yet that this reporter does not have node-9.
    world.report(RESPONDER, delta([]));
    const foreign = world.api.createManually({
      ...manifestFor(names, RESPONDER, tunnel('node-9')),
      name: NAME,
    });
    world.report(RESPONDER, delta([T1]));
    await world.advance(1000);
    expect(verbs(world)).to.deep.equal(['create', 'read']);
    expect(world.api.stored.get(NAME)).to.deep.equal(foreign);
    expect(await rejections(world)).to.deep.equal([['name_collision', 1]]);
  });

  it('by an object of another tunnel: the tunnel is rejected, counted and logged, and that object is never written', async () => {
    const world = createHarness();
    const foreign = world.api.createManually({
      ...manifestFor(names, { cluster: 'core', id: 'unknown' }, tunnel('node-9')),
      name: NAME,
    });
    await world.start();
    world.report(RESPONDER, fullPush(T1, T2));
    await world.advance(600_000);
    expect(world.api.stored.get(NAME)).to.deep.equal(foreign);
    expect(world.object(RESPONDER, T2)).not.to.equal(undefined);
    const calls = world.api.calls.filter(({ name }) => name === NAME).map(({ verb }) => verb);
    expect(new Set(calls)).to.deep.equal(new Set(['create', 'read']));
    expect(calls.length, 'retried slowly').to.be.below(20);
    const [[reason, times] = ['', 0], ...others] = await rejections(world);
    expect([reason, others]).to.deep.equal(['name_collision', []]);
    expect(times).to.equal(calls.length / 2);
    expect(world.logged.some(({ object, tunnel: of }) => object === NAME && of === 'node-1')).to.equal(true);

    world.api.deleteManually(NAME);
    await world.advance(300_000);
    expectRows(world, T1, T2);
  });

  it('by a manually created object of the same tunnel: it is adopted and corrected', async () => {
    const world = createHarness();
    await world.start();
    const made = world.api.createManually({ ...manifestFor(names, RESPONDER, LATER), labels: {} });
    world.report(RESPONDER, fullPush(T1));
    await world.settle();
    expect(verbs(world)).to.deep.equal(['create', 'read', 'patch']);
    expectRows(world, T1);
    expect(world.object(RESPONDER, T1)?.metadata.uid).to.equal(made.metadata.uid);
  });

  it('by an object of the same tunnel with another identity: that object is deleted', async () => {
    const world = createHarness();
    await world.start();
    world.api.createManually(manifestFor(names, RESPONDER, OTHER_TENANT));
    world.report(RESPONDER, fullPush(T1));
    await world.advance(1000);
    expectRows(world, T1);
    await world.advance(600_000);
    expect(verbs(world)).to.deep.equal(['create', 'read', 'delete', 'create']);
  });

  it('by an object that is being deleted: it is retried until the name is free', async () => {
    const world = await holdingT1();
    world.api.addFinalizer(NAME);
    const before = world.object(RESPONDER, T1)?.metadata.uid;
    world.api.deleteManually(NAME);
    await world.advance(120_000);
    const tries = verbs(world).filter((verb) => verb === 'create').length;
    expect(tries).to.be.within(3, 20);
    expect(world.object(RESPONDER, T1)?.metadata.uid).to.equal(before);
    world.api.removeFinalizer(NAME);
    await world.advance(30_000);
    expectRows(world, T1);
    expect(world.object(RESPONDER, T1)?.metadata.uid).not.to.equal(before);
  });

  it('by its own object, which a finalizer keeps after the tunnel was removed and added', async () => {
    const world = await holdingT1();
    world.api.addFinalizer(NAME);
    world.report(RESPONDER, delta([], ['node-1']));
    await world.settle();
    world.report(RESPONDER, delta([LATER]));
    await world.advance(10_000);
    expect(world.object(RESPONDER, T1)?.metadata.deletionTimestamp).not.to.equal(undefined);
    world.api.removeFinalizer(NAME);
    await world.advance(30_000);
    expectRows(world, LATER);
    await world.advance(600_000);
    expectRows(world, LATER);
  });
});

describe('a rejected write', () => {
  const refusals: ApiErrorKind[] = ['rejected', 'expired', 'resource_version_too_large'];
  for (const consequence of refusals) {
    it(`as ${consequence} is retried slowly, delays no other tunnel, and succeeds once the cause is resolved`, async () => {
      const world = createHarness({ concurrency: 1 });
      await world.start();
      world.api.before = ({ name }: TunnelApiCall) => {
        if (name === NAME) throw apiFailure(consequence);
      };
      world.report(RESPONDER, fullPush(T1, T2));
      await world.settle();
      expectRows(world, T2);
      await world.advance(600_000);
      const tries = world.api.calls.filter(({ name }) => name === NAME).length;
      expect(tries).to.be.within(5, 12);
      world.api.before = () => {};
      await world.advance(300_000);
      expectRows(world, T1, T2);
    });
  }

  const blocks: ApiErrorKind[] = [
    'unauthorized',
    'no_kind_match',
    'namespace_not_found',
    'terminating',
    'not_found',
  ];
  for (const consequence of blocks) {
    it(`as ${consequence}, which affects all writes: one key probes, and all succeed within 2 s after the cause is resolved`, async () => {
      const world = createHarness();
      await world.start();
      world.api.before = () => {
        throw apiFailure(consequence);
      };
      world.report(RESPONDER, fullPush(T1, T2));
      await world.advance(600_000);
      expect(world.api.calls.length).to.be.within(280, 420);
      expect(world.logged.length, 'log lines').to.be.below(70);
      world.api.before = () => {};
      await world.advance(2000);
      expectRows(world, T1, T2);
    });
  }

  it('is no longer counted once the tunnel is removed', async () => {
    const world = createHarness();
    await world.start();
    world.api.before = () => {
      throw apiFailure('rejected');
    };
    world.report(RESPONDER, fullPush(T1));
    await world.advance(1000);
    world.report(RESPONDER, delta([], ['node-1']));
    await world.settle();
    verbs(world);
    await world.advance(600_000);
    expect(verbs(world)).to.deep.equal([]);
  });

  it('is counted by verb and outcome', async () => {
    const world = createHarness();
    await world.start();
    world.api.failNext(apiFailure('rejected'));
    world.report(RESPONDER, fullPush(T1));
    await world.advance(60_000);
    const text = await world.metrics.registry.getSingleMetricAsString('reverse_tunnel_api_writes_total');
    expect(text.split('\n').filter((line) => /^[^#]/.test(line))).to.deep.equal([
      'reverse_tunnel_api_writes_total{resource="reversetunnels",verb="create",outcome="rejected"} 1',
      'reverse_tunnel_api_writes_total{resource="reversetunnels",verb="create",outcome="ok"} 1',
    ]);
  });
});

describe('a write that may be retried soon', () => {
  const failures: [
    situation: string,
    failure: ReturnType<typeof apiFailure>,
    withinMs: number,
    leastMs: number,
  ][] = [
    ['429 with Retry-After', apiFailure('throttled', { retryAfterMs: 1000 }), 1500, 1000],
    ['503 with Retry-After', apiFailure('throttled', { retryAfterMs: 5000, status: 503 }), 7500, 5000],
    ['500', apiFailure('unavailable', { status: 500 }), 100, 1],
    ['504, as with a paused etcd', apiFailure('unavailable', { status: 504 }), 100, 1],
    ['a response that is not from an API server', apiFailure('unexpected_response', { status: 502 }), 100, 1],
    ['no answer', connectionFailure(), 100, 1],
  ];
  for (const [situation, failure, withinMs, leastMs] of failures) {
    it(`${situation}: is retried in time`, async () => {
      const world = createHarness();
      await world.start();
      world.api.failNext(failure);
      world.report(RESPONDER, fullPush(T1));
      await world.advance(leastMs - 1);
      expectRows(world);
      await world.advance(withinMs - leastMs + 1);
      expectRows(world, T1);
      expect(verbs(world)).to.deep.equal(['create', 'create']);
    });
  }

  it('logs a response that is not from the API server, because the watch may work meanwhile', async () => {
    const world = createHarness();
    await world.start();
    world.api.failNext(apiFailure('unexpected_response', { status: 200 }));
    world.report(RESPONDER, fullPush(T1));
    await world.advance(1_000);
    expectRows(world, T1);
    expect(
      world.logged.filter(({ msg }) => String(msg).startsWith('ReverseTunnel write rejected')),
    ).to.have.length(1);
  });

  it('with 30 % failures causes at most twice the writes', async () => {
    const world = createHarness();
    await world.start();
    let calls = 0;
    world.api.before = () => {
      calls += 1;
      if (calls % 10 < 3) throw apiFailure('throttled', { retryAfterMs: 1000 });
    };
    world.report(RESPONDER, fullPush(...Array.from({ length: 500 }, (_, index) => tunnel(`t${index}`))));
    await world.advance(60_000);
    expect(world.api.stored.size).to.equal(500);
    expect(calls).to.be.at.most(1000);
  });

  it('is not delayed for a tunnel whose reporter the ledger does not know', async () => {
    const world = createHarness();
    world.api.createManually(manifestFor(names, OTHER_RESPONDER, T1));
    await world.start();
    world.queue.add(reporterKey(OTHER_RESPONDER), 'node-1', 0);
    world.workers.onReady();
    await world.settle();
    expect(verbs(world)).to.deep.equal([]);
    expect(world.api.stored.size).to.equal(1);
  });
});
