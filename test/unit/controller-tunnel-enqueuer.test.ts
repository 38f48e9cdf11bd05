import { expect } from 'chai';

import { manifestFor } from '../../src/core/tunnel-object.ts';
import { reporterKey, type ReporterId, type Tunnel } from '../../src/core/tunnel.ts';
import {
  apiFailure,
  MemoryTunnelApi,
  connectionFailure,
  type ManualEdit,
} from '../support/memory-tunnel-api.ts';
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

/** The calls since the last time, as `verb name`, in the order of their text. */
function calls({ api }: ControllerHarness): string[] {
  return api.calls
    .splice(0)
    .map(({ verb, name }) => `${verb} ${name}`)
    .toSorted();
}

function called(verb: string, reporter: ReporterId, ...tunnels: Tunnel[]): string[] {
  return tunnels.map((of) => `${verb} ${names.tunnelObjectName(reporter, of)}`).toSorted();
}

/** Which tunnels of a reporter have a row, by name. */
function rowsOf({ api }: { readonly api: MemoryTunnelApi }, reporter: ReporterId): string[] {
  return [...api.stored.values()]
    .filter(({ spec }) => spec.reporter.cluster === reporter.cluster && spec.reporter.id === reporter.id)
    .map(({ spec }) => spec.tunnelName)
    .toSorted();
}

/** An API server with rows from an operator that is no more. */
function rowsFromBefore(of: readonly [ReporterId, Tunnel][]): MemoryTunnelApi {
  const api = new MemoryTunnelApi();
  for (const [reporter, each] of of) api.createManually(manifestFor(names, reporter, each));
  return api;
}

/** A world in which T1 and T2 are held and have their rows. */
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

  it('a full push of what the rows say costs no call', async () => {
    const world = createHarness({ api: rowsFromBefore(before) });
    await world.start();
    world.report(RESPONDER, fullPush(T1, T2, T3));
    await world.advance(600_000);
    expect(calls(world)).to.deep.equal([]);
  });

  it('a full push deletes the rows of its reporter that it does not list, and no others', async () => {
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

  it('a full push that comes before the rows are listed does the same once they are', async () => {
    const world = createHarness({ api: rowsFromBefore(before) });
    world.report(RESPONDER, fullPush(T2));
    await world.settle();
    expect(calls(world)).to.deep.equal([]);
    await world.start();
    await world.advance(600_000);
    expect(calls(world)).to.deep.equal(called('delete', RESPONDER, T1, T3));
  });

  it('rows of reporters that have not reported stay as they are, also edited ones', async () => {
    const api = rowsFromBefore(before);
    api.editManually(NAME, { labels: { 'reverse-tunnel.io/tenant': 'mine' } });
    const world = createHarness({ api });
    await world.start();
    api.editManually(NAME, { labels: { 'reverse-tunnel.io/tenant': 'mine-too' } });
    await world.advance(600_000);
    expect(calls(world)).to.deep.equal([]);
  });

  it('a delta first deletes what it removes, adds what it adds, and nothing else', async () => {
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

  it('a full push after that collects the rest', async () => {
    const world = createHarness({ api: rowsFromBefore(before) });
    await world.start();
    world.report(RESPONDER, delta([]));
    await world.settle();
    world.report(RESPONDER, fullPush(T1));
    await world.settle();
    expect(calls(world)).to.deep.equal(called('delete', RESPONDER, T2, T3));
  });

  it('rows that somebody else changed meanwhile are put right with the first full push', async () => {
    const api = rowsFromBefore(before);
    api.editManually(NAME, { labels: { 'reverse-tunnel.io/tenant': null }, createdAt: null });
    const world = createHarness({ api });
    await world.start();
    world.report(RESPONDER, fullPush(T1, T2, T3));
    await world.settle();
    expect(calls(world)).to.deep.equal(called('patch', RESPONDER, T1));
    expect(world.object(RESPONDER, T1)?.spec.createdAt).to.equal(T1.createdAt);
  });

  it('every row keeps uid and version through a restart, also of 1,000', async () => {
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

describe('what somebody does to a row by hand', () => {
  it('deleting it: it comes back at once', async () => {
    const world = await holding();
    world.api.deleteManually(NAME);
    await world.settle();
    expect(calls(world)).to.deep.equal(called('create', RESPONDER, T1));
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1', 'node-2']);
  });

  const ready = { type: 'Ready', status: 'True', reason: 'Reported' };
  const edits: [what: string, edit: ManualEdit, verb: 'patch' | 'patchStatus'][] = [
    ['another label value', { labels: { 'reverse-tunnel.io/node': 'mine' } }, 'patch'],
    ['a label taken off', { labels: { 'app.kubernetes.io/managed-by': null } }, 'patch'],
    ['another createdAt', { createdAt: '2020-01-01T00:00:00Z' }, 'patch'],
    ['createdAt taken out', { createdAt: null }, 'patch'],
    ['the same instant, written another way', { createdAt: '2026-11-23T06:00:00.123456+01:00' }, 'patch'],
    ['another state', { status: { state: 'Unknown' } }, 'patchStatus'],
    [
      'Ready Unknown',
      { status: { conditions: [{ ...ready, status: 'Unknown', reason: 'Mine' }] } },
      'patchStatus',
    ],
    ['a condition more', { status: { conditions: [ready, { ...ready, type: 'Stalled' }] } }, 'patchStatus'],
  ];
  for (const [what, edit, verb] of edits) {
    it(`${what}: put right by one ${verb}, and it stays the same object`, async () => {
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

  it('all of it at once: put right by two writes', async () => {
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

  it('a restored status says when it changed, in whole seconds', async () => {
    const world = await holding();
    world.api.editManually(NAME, { status: { state: 'Unknown' } });
    await world.settle();
    expect(world.object(RESPONDER, T1)?.status?.conditions).to.deep.equal([
      { ...ready, lastTransitionTime: new Date(world.clock.wallMs()).toISOString().replace('.000Z', 'Z') },
    ]);
  });

  it('a label of their own: left alone, also when something else is written', async () => {
    const world = await holding();
    world.api.editManually(NAME, { labels: { team: 'network' } });
    await world.advance(60_000);
    expect(calls(world)).to.deep.equal([]);
    world.report(RESPONDER, delta([{ ...T1, createdAt: undefined }], ['node-1']));
    await world.settle();
    expect(world.object(RESPONDER, T1)?.metadata.labels).to.include({ team: 'network' });
  });

  it('another row for a tunnel that has one: that one goes, the right one stays', async () => {
    const world = await holding();
    const uid = world.object(RESPONDER, T1)?.metadata.uid;
    world.api.createManually({ ...manifestFor(names, RESPONDER, T1), name: 'mine' });
    await world.settle();
    expect(calls(world)).to.deep.equal(['delete mine']);
    expect(world.object(RESPONDER, T1)?.metadata.uid).to.equal(uid);
  });

  it('a row for a tunnel that a reporter does not hold goes; of a reporter that nobody knows it stays', async () => {
    const world = await holding();
    world.api.createManually({ ...manifestFor(names, RESPONDER, T3), name: 'mine' });
    world.api.createManually(manifestFor(names, RESPONDER, tunnel('node-4')));
    world.api.createManually(manifestFor(names, OTHER_RESPONDER, T3));
    await world.settle();
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1', 'node-2']);
    expect(rowsOf(world, OTHER_RESPONDER)).to.deep.equal(['node-3']);
  });

  it('deleting all of 500 rows: all come back, each by one POST', async () => {
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
    (await metrics.workqueueAdds.get()).values.reduce((sum, { value }) => sum + value, 0);

  it('puts no key into the queue for own writes, whether it is slower or quicker than their answers', async () => {
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

  it('puts no key into the queue for rows of reporters that have not reported', async () => {
    const api = rowsFromBefore([T1, T2, T3].map((each) => [RESPONDER, each]));
    const world = createHarness({ api });
    await world.start();
    for (const name of api.stored.keys())
      api.editManually(name, { labels: { 'reverse-tunnel.io/tenant': 'mine' } });
    await world.settle();
    expect(await adds(world)).to.equal(0);
  });

  it("that shows the first half of a change of identity before it is answered takes it for nobody's deed", async () => {
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

describe('somebody who wants a row to differ', () => {
  /** Edits the row whenever the operator has put it right; gives how often. */
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

  it('is answered ever more rarely, to once in 5 minutes, and delays no other tunnel', async () => {
    const world = await holding();
    const fought = fightOver(world);
    await world.advance(3_600_000);
    expect(fought()).to.be.within(12, 24);
    world.report(RESPONDER, delta([T3]));
    await world.settle();
    expect(rowsOf(world, RESPONDER)).to.include('node-3');
  });

  it('does not win: left alone, the row is put right', async () => {
    const world = await holding();
    fightOver(world);
    await world.advance(60_000);
    world.api.after = () => {};
    await world.advance(120_000);
    expect(world.object(RESPONDER, T1)?.metadata.labels).to.include({ 'reverse-tunnel.io/node': 'node-1' });
  });

  it('does not keep a report from being written at once', async () => {
    const world = await holding();
    const fought = fightOver(world);
    await world.advance(600_000);
    const before = fought();
    world.report(RESPONDER, delta([{ ...T1, createdAt: '2026-11-23T07:00:00Z' }], ['node-1']));
    await world.settle();
    expect(fought()).to.be.above(before);
    expect(world.object(RESPONDER, T1)?.spec.createdAt).to.equal('2026-11-23T07:00:00Z');
  });

  it('by deleting it again and again is answered as rarely', async () => {
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

  it('once, in many steps, is no fight: a later accident is put right soon', async () => {
    const world = await holding();
    // The first is put right at once; the others fall into the wait of 1 s that the second one begins.
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

describe('an API server that was away', () => {
  it('finds what was reported meanwhile, within 3 s, by the writes that this needs and hardly more', async () => {
    const world = await holding();
    const tunnels = Array.from({ length: 300 }, (_, index) => tunnel(`new-${index}`));
    await world.advance(10);
    world.api.before = () => {
      throw connectionFailure();
    };
    world.report(RESPONDER, delta([...tunnels, { ...T1, createdAt: undefined }], ['node-1', 'node-2']));
    await world.advance(60_000);
    expect(rowsOf(world, RESPONDER), 'nothing is deleted because of the outage').to.deep.equal([
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

  it('and came back without the rows, as its namespace was deleted and made again, has them again soon', async () => {
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

  it('and was restored to an older state gets its rows back as they are to be', async () => {
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

describe('the limit of tunnels a reporter may hold', () => {
  function limited(): ControllerHarness {
    return createHarness({ maxTunnelsPerReporter: 3 });
  }

  it('refuses a full push that is over it, whole: what was held before stays', async () => {
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

  it('refuses a delta that leads over it, and takes one that does not', async () => {
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

  it("is each reporter's own", async () => {
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

  it('has what it said before still written', async () => {
    const world = createHarness();
    world.report(RESPONDER, fullPush(T1));
    world.intake.reporterDisconnected(RESPONDER, 'StreamEnded');
    await world.start();
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1']);
  });

  it('has what it said before the rows were listed still written, also that a tunnel is gone', async () => {
    for (const report of [delta([], ['node-1']), fullPush(T2)]) {
      const { api } = await left();
      const world = createHarness({ api });
      world.report(RESPONDER, report);
      world.intake.reporterDisconnected(RESPONDER, 'StreamEnded');
      await world.start();
      expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-2']);
    }
  });

  it('keeps its rows, and has none that somebody deletes brought back, until it reports again', async () => {
    const world = await left();
    world.api.deleteManually(NAME);
    await world.advance(600_000);
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-2']);
    // An identical full push: nothing is new in it, but for the row.
    world.report(RESPONDER, fullPush(T1, T2));
    await world.settle();
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1', 'node-2']);
  });
});

describe('a full push of more tunnels than are looked at in one go', () => {
  const many = Array.from({ length: 9000 }, (_, i) => tunnel(`node-${i}`));

  it('is taken at once, leaves room for others, and is written whole', async () => {
    const world = createHarness({ maxTunnelsPerReporter: 10_000 });
    await world.start();
    world.report(RESPONDER, fullPush(...many));
    let looked = false;
    void world.enqueuer.drained().then(() => (looked = true));
    world.report(OTHER_RESPONDER, fullPush(T1));
    // In this turn: some of the large one, and the small one whole.
    expect(world.queue.depth).to.be.below(9000);
    expect(world.queue.isActive(reporterKey(OTHER_RESPONDER), T1.name)).to.equal(true);
    await world.settle();
    expect(looked).to.equal(false);
    await world.advance(10);
    expect(looked).to.equal(true);
    expect(rowsOf(world, RESPONDER)).to.have.length(9000);
    await world.enqueuer.drained();
  });

  it('that takes back most of itself before it was looked at ends as the last one says', async () => {
    const world = createHarness({ maxTunnelsPerReporter: 10_000 });
    await world.start();
    world.report(RESPONDER, fullPush(...many));
    world.report(RESPONDER, fullPush(T1));
    await world.advance(10);
    expect(rowsOf(world, RESPONDER)).to.deep.equal(['node-1']);
  });
});

describe('a gate in front of the rows', () => {
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

  it('that is closed is told of rows that somebody changes meanwhile', async () => {
    const gate = recordingGate();
    const world = createHarness({ ownership: gate });
    world.connect(RESPONDER);
    await world.start();
    world.api.createManually(manifestFor(names, RESPONDER, T1));
    await world.settle();
    expect(gate.foreign).to.equal(1);
  });

  it('is told again when a conflict was read again: what that shows is newer than any read before', async () => {
    const gate = recordingGate();
    gate.open = true;
    const world = createHarness({ ownership: gate });
    await world.start();
    world.api.createManually(manifestFor(names, RESPONDER, T1));
    // The watch has not brought it: the create meets it.
    world.report(RESPONDER, fullPush(T1));
    let duringRead = 0;
    world.api.after = ({ verb }) => {
      if (verb === 'read') duringRead = gate.foreign;
    };
    await flushEventLoop();
    expect(duringRead).to.equal(1);
    expect(gate.foreign).to.equal(2);
  });

  it('that may not be read holds up its own reporter, and says so, but nobody else', async () => {
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
