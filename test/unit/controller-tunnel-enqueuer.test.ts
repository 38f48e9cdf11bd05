import { expect } from 'chai';

import { manifestFor } from '../../src/core/tunnel-object.ts';
import { reporterKey, type ReporterId, type Tunnel } from '../../src/core/tunnel.ts';
import { apiFailure, MemoryTunnelApi, connectionFailure, type ManualEdit } from '../support/memory-api.ts';
import { flushEventLoop } from '../support/fake-time.ts';
import {
  createHarness,
  NONE_REJECTED,
  objectTexts,
  type ControllerHarness,
} from '../support/controller-harness.ts';
import { delta, fullPush, names, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const T1 = tunnel('node-1');
const T2 = tunnel('node-2');
const T3 = tunnel('node-3');
const NAME = names.tunnelObjectName(RESPONDER, T1);

/** Returns the sorted calls since the last time, as `verb name`. */
function calls({ api }: ControllerHarness): string[] {
  return api.calls
    .splice(0)
    .map(({ verb, name }) => `${verb} ${name}`)
    .toSorted();
}

function called(verb: string, reporter: ReporterId, ...tunnels: Tunnel[]): string[] {
  return tunnels.map((of) => `${verb} ${names.tunnelObjectName(reporter, of)}`).toSorted();
}

/** Returns the names of the tunnels of a reporter that have an object. */
function rowsOf({ api }: { readonly api: MemoryTunnelApi }, reporter: ReporterId): string[] {
  return [...api.stored.values()]
    .filter(({ spec }) => spec.reporter.cluster === reporter.cluster && spec.reporter.id === reporter.id)
    .map(({ spec }) => spec.tunnelName)
    .toSorted();
}

/** An API server with objects of a previous operator. */
function rowsFromBefore(of: readonly [ReporterId, Tunnel][]): MemoryTunnelApi {
  const api = new MemoryTunnelApi();
  for (const [reporter, each] of of) api.createManually(manifestFor(names, reporter, each));
  return api;
}

/** A harness in which T1 and T2 are reported and have objects. */
async function holding(): Promise<ControllerHarness> {
  const world = createHarness();
  await world.start();
  world.report(RESPONDER, fullPush(T1, T2));
  await world.settle();
  expect(calls(world)).to.deep.equal(called('create', RESPONDER, T1, T2));
  return world;
}

describe('after a restart', () => {
  const before: [ReporterId, Tunnel][] = [
    [RESPONDER, T1],
    [RESPONDER, T2],
    [RESPONDER, T3],
    [OTHER_RESPONDER, T1],
    [{ cluster: 'core', id: RESPONDER.id }, T1],
  ];

  it('a full push that equals the objects causes no call', async () => {
    const world = createHarness({ api: rowsFromBefore(before) });
    await world.start();
    world.report(RESPONDER, fullPush(T1, T2, T3));
    await world.advance(600_000);
    expect(calls(world)).to.deep.equal([]);
  });

  it('a full push deletes the objects of its reporter that it does not list, and no others', async () => {
    const world = createHarness({ api: rowsFromBefore(before) });
    await world.start();
    world.report(RESPONDER, fullPush(T2));
    await world.advance(600_000);
    expect(calls(world)).to.deep.equal(called('delete', RESPONDER, T1, T3));
    expect(world.api.stored.size).to.equal(3);
  });

  it('an empty full push deletes all of them', async () => {
    const world = createHarness({ api: rowsFromBefore(before) });
    await world.start();
    world.report(RESPONDER, fullPush());
    await world.settle();
    expect(calls(world)).to.deep.equal(called('delete', RESPONDER, T1, T2, T3));
  });

  it('a full push before the list of objects has the same effect once they are listed', async () => {
    const world = createHarness({ api: rowsFromBefore(before) });
    world.report(RESPONDER, fullPush(T2));
    await world.settle();
    expect(calls(world)).to.deep.equal([]);
    await world.start();
    await world.advance(600_000);
    expect(calls(world)).to.deep.equal(called('delete', RESPONDER, T1, T3));
  });

  it('objects of reporters that have not reported are unchanged, even edited ones', async () => {
    const api = rowsFromBefore(before);
    api.editManually(NAME, { labels: { 'reverse-tunnel.io/tenant': 'mine' } });
    const world = createHarness({ api });
    await world.start();
    api.editManually(NAME, { labels: { 'reverse-tunnel.io/tenant': 'mine-too' } });
    await world.advance(600_000);
    expect(calls(world)).to.deep.equal([]);
  });

  it('a delta deletes what it removes, creates what it adds, and changes nothing else', async () => {
    const world = createHarness({ api: rowsFromBefore(before) });
    await world.start();
    const T4 = tunnel('node-4');
    world.report(RESPONDER, delta([T4, T2], ['node-1', 'node-2']));
    await world.advance(600_000);
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-2', 'node-3', 'node-4']);
    expect(calls(world)).to.deep.equal(
      [...called('create', RESPONDER, T4), ...called('delete', RESPONDER, T1)].toSorted(),
    );
  });

  it('a full push after that deletes the stale objects', async () => {
    const world = createHarness({ api: rowsFromBefore(before) });
    await world.start();
    world.report(RESPONDER, delta([]));
    await world.settle();
    world.report(RESPONDER, fullPush(T1));
    await world.settle();
    expect(calls(world)).to.deep.equal(called('delete', RESPONDER, T2, T3));
  });

  it('external changes during the downtime are reverted at the first full push', async () => {
    const api = rowsFromBefore(before);
    api.editManually(NAME, { labels: { 'reverse-tunnel.io/tenant': null }, createdAt: null });
    const world = createHarness({ api });
    await world.start();
    world.report(RESPONDER, fullPush(T1, T2, T3));
    await world.settle();
    expect(calls(world)).to.deep.equal(called('patch', RESPONDER, T1));
    expect(world.object(RESPONDER, T1)?.spec.createdAt).to.equal(T1.createdAt);
  });

  it('every one of 1,000 objects keeps its uid and version across a restart', async () => {
    const tunnels = Array.from({ length: 1000 }, (_, index) => tunnel(`node-${index}`));
    const api = rowsFromBefore(tunnels.map((each) => [RESPONDER, each]));
    const rows = [...api.stored.values()];
    const world = createHarness({ api });
    await world.start();
    world.report(RESPONDER, fullPush(...tunnels));
    await world.advance(60_000);
    expect(calls(world)).to.deep.equal([]);
    expect([...api.stored.values()]).to.deep.equal(rows);
  });
});

describe('a manual edit of an object', () => {
  it('is reverted immediately if it deletes the object', async () => {
    const world = await holding();
    world.api.deleteManually(NAME);
    await world.settle();
    expect(calls(world)).to.deep.equal(called('create', RESPONDER, T1));
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1', 'node-2']);
  });

  const ready = { type: 'Ready', status: 'True', reason: 'Reported' };
  const edits: [what: string, edit: ManualEdit, verb: 'patch' | 'patchStatus'][] = [
    ['another label value', { labels: { 'reverse-tunnel.io/node': 'mine' } }, 'patch'],
    ['a removed label', { labels: { 'app.kubernetes.io/managed-by': null } }, 'patch'],
    ['another createdAt', { createdAt: '2020-01-01T00:00:00Z' }, 'patch'],
    ['a removed createdAt', { createdAt: null }, 'patch'],
    ['the same time in another format', { createdAt: '2026-11-23T06:00:00.123456+01:00' }, 'patch'],
    ['another state', { status: { state: 'Unknown' } }, 'patchStatus'],
    [
      'Ready Unknown',
      { status: { conditions: [{ ...ready, status: 'Unknown', reason: 'Mine' }] } },
      'patchStatus',
    ],
    [
      'an additional condition',
      { status: { conditions: [ready, { ...ready, type: 'Stalled' }] } },
      'patchStatus',
    ],
  ];
  for (const [what, edit, verb] of edits) {
    it(`${what}: is reverted by one ${verb}, and the object is kept`, async () => {
      const world = await holding();
      const before = objectTexts(world.api.stored.values());
      const uid = world.object(RESPONDER, T1)?.metadata.uid;
      world.api.editManually(NAME, edit);
      expect(objectTexts(world.api.stored.values())).not.to.deep.equal(before);
      await world.settle();
      expect(calls(world)).to.deep.equal([`${verb} ${NAME}`]);
      expect(objectTexts(world.api.stored.values())).to.deep.equal(before);
      expect(world.object(RESPONDER, T1)?.metadata.uid).to.equal(uid);
      await world.advance(600_000);
      expect(calls(world)).to.deep.equal([]);
    });
  }

  it('is reverted by two writes if it changes everything', async () => {
    const world = await holding();
    const before = objectTexts(world.api.stored.values());
    world.api.editManually(NAME, {
      labels: { 'reverse-tunnel.io/tenant': 'mine' },
      createdAt: null,
      status: { state: 'Unknown' },
    });
    await world.settle();
    expect(calls(world)).to.deep.equal([`patch ${NAME}`, `patchStatus ${NAME}`]);
    expect(objectTexts(world.api.stored.values())).to.deep.equal(before);
  });

  it('has its time in whole seconds in the reverted status', async () => {
    const world = await holding();
    world.api.editManually(NAME, { status: { state: 'Unknown' } });
    await world.settle();
    expect(world.object(RESPONDER, T1)?.status?.conditions).to.deep.equal([
      { ...ready, lastTransitionTime: new Date(world.clock.wallMs()).toISOString().replace('.000Z', 'Z') },
    ]);
  });

  it('is kept if it adds another label, even when the object is written', async () => {
    const world = await holding();
    world.api.editManually(NAME, { labels: { team: 'network' } });
    await world.advance(60_000);
    expect(calls(world)).to.deep.equal([]);
    world.report(RESPONDER, delta([{ ...T1, createdAt: undefined }], ['node-1']));
    await world.settle();
    expect(world.object(RESPONDER, T1)?.metadata.labels).to.include({ team: 'network' });
  });

  it('is deleted if it creates a second object of a tunnel, and the first one is kept', async () => {
    const world = await holding();
    const uid = world.object(RESPONDER, T1)?.metadata.uid;
    world.api.createManually({ ...manifestFor(names, RESPONDER, T1), name: 'mine' });
    await world.settle();
    expect(calls(world)).to.deep.equal(['delete mine']);
    expect(world.object(RESPONDER, T1)?.metadata.uid).to.equal(uid);
  });

  it('is deleted if it creates an object for a tunnel that is not reported; of an unknown reporter, it is kept', async () => {
    const world = await holding();
    world.api.createManually({ ...manifestFor(names, RESPONDER, T3), name: 'mine' });
    world.api.createManually(manifestFor(names, RESPONDER, tunnel('node-4')));
    world.api.createManually(manifestFor(names, OTHER_RESPONDER, T3));
    await world.settle();
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1', 'node-2']);
    expect(rowsOf(world, OTHER_RESPONDER)).to.deep.equal(['node-3']);
  });

  it('is reverted with one POST per object if it deletes all 500 objects', async () => {
    const world = createHarness();
    await world.start();
    const tunnels = Array.from({ length: 500 }, (_, index) => tunnel(`node-${index}`));
    world.report(RESPONDER, fullPush(...tunnels));
    await world.settle();
    calls(world);
    for (const name of world.api.stored.keys()) world.api.deleteManually(name);
    await world.advance(1000);
    expect(calls(world)).to.deep.equal(called('create', RESPONDER, ...tunnels));
  });
});

describe('the watch', () => {
  const adds = async ({ metrics }: ControllerHarness): Promise<number> =>
    (await metrics.workqueueAdds.get()).values.find(({ labels }) => labels.name === 'tunnels')?.value ?? 0;

  it('enqueues no key for own writes, before or after their responses', async () => {
    for (const order of ['slower', 'quicker'] as const) {
      const world = await holding();
      const before = await adds(world);
      if (order === 'quicker') {
        world.api.after = ({ verb }) => {
          if (verb !== 'read') world.api.deliver(world.cache);
        };
      }
      world.report(RESPONDER, delta([T3, { ...T1, createdAt: undefined }], ['node-1', 'node-2']));
      await world.advance(1000);
      expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1', 'node-3']);
      expect((await adds(world)) - before, order).to.equal(3);
    }
  });

  it('enqueues no key for objects of reporters that have not reported', async () => {
    const api = rowsFromBefore([T1, T2, T3].map((each) => [RESPONDER, each]));
    const world = createHarness({ api });
    await world.start();
    for (const name of api.stored.keys())
      api.editManually(name, { labels: { 'reverse-tunnel.io/tenant': 'mine' } });
    await world.settle();
    expect(await adds(world)).to.equal(0);
  });

  it('treats the first half of a change of identity as an own write before its response', async () => {
    const world = await holding();
    world.api.after = ({ verb }) => {
      if (verb === 'delete') world.api.deliver(world.cache);
    };
    for (const tenantID of ['beta', 'acme', 'beta', 'acme', 'beta', 'acme']) {
      world.report(RESPONDER, delta([{ ...T1, tenantID }], ['node-1']));
      await world.advance(100);
      expect(world.object(RESPONDER, T1)?.spec.tenantID).to.equal(tenantID);
    }
    world.api.editManually(NAME, { labels: { 'reverse-tunnel.io/node': 'mine' } });
    await world.settle();
    expect(world.object(RESPONDER, T1)?.metadata.labels).to.include({ 'reverse-tunnel.io/node': 'node-1' });
  });
});

describe('an external controller that keeps changing an object', () => {
  /** Edits the object after each revert; returns the number of reverts. */
  function fightOver(world: ControllerHarness): () => number {
    let fought = 0;
    world.api.after = ({ name, verb }) => {
      if (name !== NAME || verb === 'read') return;
      fought += 1;
      world.api.editManually(NAME, { labels: { 'reverse-tunnel.io/node': `mine-${fought}` } });
    };
    world.api.editManually(NAME, { labels: { 'reverse-tunnel.io/node': 'mine' } });
    return () => fought;
  }

  it('is reverted with increasing delays of up to 5 minutes, and delays no other tunnel', async () => {
    const world = await holding();
    const fought = fightOver(world);
    await world.advance(3_600_000);
    expect(fought()).to.be.within(12, 24);
    world.report(RESPONDER, delta([T3]));
    await world.settle();
    expect(rowsOf(world, RESPONDER)).to.include('node-3');
  });

  it('does not win: the object is reverted once the changes stop', async () => {
    const world = await holding();
    fightOver(world);
    await world.advance(60_000);
    world.api.after = () => {};
    await world.advance(120_000);
    expect(world.object(RESPONDER, T1)?.metadata.labels).to.include({ 'reverse-tunnel.io/node': 'node-1' });
  });

  it('does not delay the write of a report', async () => {
    const world = await holding();
    const fought = fightOver(world);
    await world.advance(600_000);
    const before = fought();
    world.report(RESPONDER, delta([{ ...T1, createdAt: '2026-11-23T07:00:00Z' }], ['node-1']));
    await world.settle();
    expect(fought()).to.be.above(before);
    expect(world.object(RESPONDER, T1)?.spec.createdAt).to.equal('2026-11-23T07:00:00Z');
  });

  it('is reverted with the same delays if it deletes the object repeatedly', async () => {
    const world = await holding();
    let made = 0;
    world.api.after = ({ name, verb }) => {
      if (name !== NAME || verb !== 'create') return;
      made += 1;
      world.api.deleteManually(NAME);
    };
    world.api.deleteManually(NAME);
    await world.advance(3_600_000);
    expect(made).to.be.within(12, 24);
    world.api.after = () => {};
    await world.advance(300_000);
    expect(world.object(RESPONDER, T1)).not.to.equal(undefined);
  });

  it('is not assumed after one edit in many steps: a later edit is reverted soon', async () => {
    const world = await holding();
    // The first edit is reverted immediately; the others fall into the delay of 1 s that the second one starts.
    for (let step = 0; step < 12; step += 1) {
      world.api.editManually(NAME, { labels: { 'reverse-tunnel.io/node': `mine-${step}` } });
      await world.advance(20);
    }
    await world.advance(1000);
    expect(world.object(RESPONDER, T1)?.metadata.labels).to.include({ 'reverse-tunnel.io/node': 'node-1' });
    await world.advance(60_000);
    world.api.editManually(NAME, { labels: { 'reverse-tunnel.io/node': 'mine' } });
    await world.advance(4000);
    expect(world.object(RESPONDER, T1)?.metadata.labels).to.include({ 'reverse-tunnel.io/node': 'node-1' });
  });
});

describe('an API server after an outage', () => {
  it('gets the changes that were reported meanwhile within 3 s, with few additional writes', async () => {
    const world = await holding();
    const tunnels = Array.from({ length: 300 }, (_, index) => tunnel(`new-${index}`));
    await world.advance(10);
    world.api.before = () => {
      throw connectionFailure();
    };
    world.report(RESPONDER, delta([...tunnels, { ...T1, createdAt: undefined }], ['node-1', 'node-2']));
    await world.advance(60_000);
    expect(rowsOf(world, RESPONDER), 'loses no object because of the outage').to.deep.equal([
      'node-1',
      'node-2',
    ]);
    expect(calls(world).length).to.be.below(60);
    world.api.before = () => {};
    await world.advance(3000);
    expect(rowsOf(world, RESPONDER)).to.have.length(301);
    expect(rowsOf(world, RESPONDER)).not.to.include('node-2');
    expect(calls(world)).to.have.length(302);
  });

  it('gets the objects again if the namespace was deleted and recreated', async () => {
    for (const awayMs of [5000, 600_000]) {
      const world = await holding();
      world.api.before = () => {
        throw apiFailure('namespace_not_found', { status: 404 });
      };
      for (const name of world.api.stored.keys()) world.api.deleteManually(name);
      await world.advance(awayMs);
      expect(world.api.stored.size).to.equal(0);
      world.api.before = () => {};
      await world.advance(300_000);
      expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1', 'node-2']);
    }
  });

  it('gets the current objects if etcd was restored to an older state', async () => {
    const world = await holding();
    const restore = world.api.backup();
    world.report(RESPONDER, delta([T3, { ...T1, createdAt: undefined }], ['node-1', 'node-2']));
    await world.settle();
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1', 'node-3']);
    const texts = objectTexts(world.api.stored.values());
    restore();
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1', 'node-2']);
    world.api.relist(world.cache);
    await world.advance(5000);
    expect(objectTexts(world.api.stored.values())).to.deep.equal(texts);
  });
});

describe('the limit of tunnels per reporter', () => {
  function limited(): ControllerHarness {
    return createHarness({ maxTunnelsPerReporter: 3 });
  }

  it('rejects a whole full push that exceeds it: the previous tunnels stay', async () => {
    const world = limited();
    await world.start();
    world.report(RESPONDER, fullPush(T1));
    await world.settle();
    calls(world);
    const over = { ...fullPush(T2, T3, tunnel('node-4'), tunnel('node-5')), ...NONE_REJECTED };
    expect(world.intake.accept(RESPONDER, over, 0)).to.deep.equal({
      limit: 'tunnelsPerReporter',
      count: 4,
      max: 3,
    });
    await world.settle();
    expect(calls(world)).to.deep.equal([]);
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1']);
  });

  it('rejects a delta that would exceed it, and accepts another one', async () => {
    const world = limited();
    await world.start();
    world.report(RESPONDER, fullPush(T1, T2));
    const over = { ...delta([T3, tunnel('node-4')]), ...NONE_REJECTED };
    expect(world.intake.accept(RESPONDER, over, 0)).to.deep.equal({
      limit: 'tunnelsPerReporter',
      count: 4,
      max: 3,
    });
    expect(world.ledger.totalTunnelCount()).to.equal(2);
    world.report(RESPONDER, delta([T3]));
    world.report(RESPONDER, delta([], ['node-1']));
    await world.settle();
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-2', 'node-3']);
  });

  it('is separate for each reporter', async () => {
    const world = limited();
    await world.start();
    world.report(RESPONDER, fullPush(T1, T2, T3));
    world.report(OTHER_RESPONDER, fullPush(T1, T2, T3));
    await world.settle();
    expect(world.api.stored.size).to.equal(6);
  });
});

describe('a reporter without a stream', () => {
  async function left(): Promise<ControllerHarness> {
    const world = createHarness();
    await world.start();
    world.report(RESPONDER, fullPush(T1, T2));
    await world.settle();
    world.intake.reporterDisconnected(RESPONDER, 'StreamEnded');
    return world;
  }

  it('has its previous reports written', async () => {
    const world = createHarness();
    world.report(RESPONDER, fullPush(T1));
    world.intake.reporterDisconnected(RESPONDER, 'StreamEnded');
    await world.start();
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1']);
  });

  it('has its reports from before the list written, including removed tunnels', async () => {
    for (const report of [delta([], ['node-1']), fullPush(T2)]) {
      const { api } = await left();
      const world = createHarness({ api });
      world.report(RESPONDER, report);
      world.intake.reporterDisconnected(RESPONDER, 'StreamEnded');
      await world.start();
      expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-2']);
    }
  });

  it('keeps its objects, and manually deleted ones are not recreated until it reports again', async () => {
    const world = await left();
    world.api.deleteManually(NAME);
    await world.advance(600_000);
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-2']);
    // An identical full push: only the object is missing.
    world.report(RESPONDER, fullPush(T1, T2));
    await world.settle();
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1', 'node-2']);
  });
});

describe('a full push of more tunnels than one batch', () => {
  const many = Array.from({ length: 9000 }, (_, i) => tunnel(`node-${i}`));

  it('is applied immediately, does not block others, and is written completely', async () => {
    const world = createHarness({ maxTunnelsPerReporter: 10_000 });
    await world.start();
    world.report(RESPONDER, fullPush(...many));
    let looked = false;
    void world.enqueuer.drained().then(() => (looked = true));
    world.report(OTHER_RESPONDER, fullPush(T1));
    // In this batch: a part of the large push, and the complete small one.
    expect(world.queue.depth).to.be.below(9000);
    expect(world.queue.isActive(reporterKey(OTHER_RESPONDER), T1.name)).to.equal(true);
    await flushEventLoop();
    expect(looked).to.equal(false);
    await world.advance(10);
    expect(looked).to.equal(true);
    await world.advance(1000);
    expect(rowsOf(world, RESPONDER)).to.have.length(9000);
    await world.enqueuer.drained();
  });

  it('ends with the last report if most of it is removed before it was enqueued', async () => {
    const world = createHarness({ maxTunnelsPerReporter: 10_000 });
    await world.start();
    world.report(RESPONDER, fullPush(...many));
    world.report(RESPONDER, fullPush(T1));
    await world.advance(10);
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1']);
  });
});

describe('the write authorizer', () => {
  /** Records external changes; a test sets `open`. */
  function recordingGate() {
    const gate = {
      open: false,
      foreign: 0,
      owns: () => gate.open,
      externalChange: () => void (gate.foreign += 1),
    };
    return gate;
  }

  it('is notified of external changes while it denies writes', async () => {
    const gate = recordingGate();
    const world = createHarness({ ownership: gate });
    world.connect(RESPONDER);
    await world.start();
    world.api.createManually(manifestFor(names, RESPONDER, T1));
    await world.settle();
    expect(gate.foreign).to.equal(1);
  });

  it('is notified again after the read that follows a conflict, which is newer than any previous read', async () => {
    const gate = recordingGate();
    gate.open = true;
    const world = createHarness({ ownership: gate });
    await world.start();
    world.api.createManually(manifestFor(names, RESPONDER, T1));
    // The watch has not returned it, so the create conflicts with it.
    world.report(RESPONDER, fullPush(T1));
    let duringRead = 0;
    world.api.after = ({ verb }) => {
      if (verb === 'read') duringRead = gate.foreign;
    };
    await flushEventLoop();
    expect(duringRead).to.equal(1);
    expect(gate.foreign).to.equal(2);
  });

  it('delays and logs only the reporter whose object cannot be read', async () => {
    const world = createHarness({ ownership: { permission: () => 'verify' }, concurrency: 1 });
    const read = world.reporterApi.read.bind(world.reporterApi);
    world.reporterApi.read = (name) =>
      name === names.reporterObjectName(RESPONDER)
        ? Promise.reject(apiFailure('rejected', { status: 403 }))
        : read(name);
    await world.start();
    world.report(RESPONDER, fullPush(T1, T2));
    world.report(OTHER_RESPONDER, fullPush(T1));
    await world.settle();
    expect(rowsOf(world, OTHER_RESPONDER)).to.deep.equal(['node-1']);
    expect(rowsOf(world, RESPONDER)).to.deep.equal([]);
    expect(world.logged.map(({ verb }) => verb)).to.include('get');
  });
});
