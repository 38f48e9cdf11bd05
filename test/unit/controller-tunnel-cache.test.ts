import { expect } from 'chai';
import * as fc from 'fast-check';

import { TunnelCache } from '../../src/controller/tunnel-cache.ts';
import {
  observeTunnel,
  manifestFor,
  type ObservedTunnel,
  type TunnelObject,
} from '../../src/core/tunnel-object.ts';
import { reporterKey, type Tunnel } from '../../src/core/tunnel.ts';
import { heapBytes } from '../support/heap.ts';
import { MemoryTunnelApi } from '../support/memory-tunnel-api.ts';
import { internalSizes } from '../support/internal-sizes.ts';
import { names, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);
const T1 = tunnel('node-1');
const T2 = tunnel('node-2');

/** A cache, the rows of an API server, and whom the cache told of a change. */
function createScene(held: (key: string, name: string) => Tunnel | undefined = () => undefined) {
  const told: string[] = [];
  const cache = new TunnelCache(names, { tunnel: held });
  cache.addEventHandler({ onTunnelObjectChanged: (key, tunnelName) => told.push(`${key}/${tunnelName}`) });
  const api = new MemoryTunnelApi();
  return {
    api,
    cache,
    /** What was told since the last time this was asked. */
    told: (): string[] => told.splice(0),
    /** The only row of a tunnel. */
    only: (of: Tunnel): ObservedTunnel => {
      const [row, ...others] = cache.objects(KEY, of.name);
      if (row === undefined || others.length > 0) throw new Error(`${others.length + 1} rows, or none`);
      return row;
    },
    make: (of: Tunnel, reporter = RESPONDER): TunnelObject =>
      api.createManually(manifestFor(names, reporter, of)),
  };
}

function told(...tunnels: Tunnel[]): string[] {
  return tunnels.map((of) => `${KEY}/${of.name}`);
}

/** What a cache says about rows, compared with what is stored. */
function texts(rows: Iterable<ObservedTunnel>): string[] {
  return [...rows].map((row) => JSON.stringify(row)).toSorted();
}

describe('a row cache that follows the watch', () => {
  it('shows each row under its reporter and tunnel name, and tells of each change', () => {
    const { api, cache, told: toldNow, make, only } = createScene();
    const made = make(T1);
    make(T1, OTHER_RESPONDER);
    api.deliver(cache);
    expect(toldNow()).to.deep.equal([`${KEY}/node-1`, `${reporterKey(OTHER_RESPONDER)}/node-1`]);
    expect(cache.size).to.equal(2);
    expect(only(T1)).to.deep.equal(observeTunnel(names, made));

    api.editManually(made.metadata.name, { labels: { 'reverse-tunnel.io/tenant': 'mine' } });
    api.deliver(cache);
    expect(only(T1).drift).not.to.equal(0);
    expect(toldNow()).to.deep.equal(told(T1));

    api.deleteManually(made.metadata.name);
    api.deliver(cache);
    expect(cache.objects(KEY, 'node-1')).to.deep.equal([]);
    expect(toldNow()).to.deep.equal(told(T1));
    expect(cache.size).to.equal(1);
  });

  it('takes no notice of an event that is older than what is known, and tells nobody', () => {
    const { api, cache, told: toldNow, make, only } = createScene();
    const { metadata } = make(T1);
    api.editManually(metadata.name, { createdAt: '2026-11-23T06:00:00Z' });
    const newest = api.editManually(metadata.name, { createdAt: '2026-11-23T07:00:00Z' });
    cache.applyWrite(newest);
    expect(api.deliver(cache)).to.equal(3);
    expect(only(T1).resourceVersion).to.equal(newest.metadata.resourceVersion);
    expect(toldNow()).to.deep.equal([]);
  });

  it('remembers own writes and deletions for the watch, but not without end while it shows nothing', () => {
    const { cache } = createScene();
    const [object] = [manifestFor(names, RESPONDER, T1)].map(({ name, labels, spec }): TunnelObject => ({
      metadata: { name, labels, uid: 'uid', resourceVersion: '' },
      spec,
    }));
    if (object === undefined) throw new Error('there is one');
    cache.replaceBegin();
    cache.replaceEnd('1');
    for (let write = 0; write < 20_100; write += 1) {
      const uid = `uid-${write}`;
      const metadata = { ...object.metadata, uid, resourceVersion: String(100_000 + write) };
      cache.applyWrite({ ...object, metadata });
      const [row] = cache.objects(KEY, 'node-1');
      if (row !== undefined) cache.applyDelete(KEY, 'node-1', row);
    }
    expect(internalSizes(cache)).to.include({ '#pendingOwnWrites': 20_000, '#deletedUids': 20_000 });
    expect(cache.acknowledgeOwnWrite(String(100_000 + 20_099)), 'the newest is known').to.equal(true);
  });

  it('knows the echo of an own write, once, and not what came before or was listed', () => {
    const { api, cache, make, only } = createScene();
    const made = make(T1);
    cache.applyWrite(made, manifestFor(names, RESPONDER, T1));
    expect(only(T1)).to.deep.equal(observeTunnel(names, made));
    expect(cache.acknowledgeOwnWrite(made.metadata.resourceVersion)).to.equal(true);
    expect(cache.acknowledgeOwnWrite(made.metadata.resourceVersion)).to.equal(false);
    // Somebody changed it: that is no echo, and seen.
    const edited = api.editManually(made.metadata.name, { labels: { 'reverse-tunnel.io/tenant': 'mine' } });
    expect(cache.acknowledgeOwnWrite(edited.metadata.resourceVersion)).to.equal(false);
    api.deliver(cache);
    expect(only(T1).drift).not.to.equal(0);
    // The watch was quicker than the answer.
    const other = make(T2);
    api.deliver(cache);
    cache.applyWrite(other);
    expect(cache.acknowledgeOwnWrite(other.metadata.resourceVersion)).to.equal(false);
    // Written while a list was on its way, and in it: the watch begins after it.
    cache.replaceBegin();
    const third = make(tunnel('node-3'));
    cache.applyWrite(third);
    const { items, version } = api.list();
    for (const item of items) cache.replaceItem(item);
    cache.replaceEnd(version);
    expect(cache.acknowledgeOwnWrite(third.metadata.resourceVersion)).to.equal(false);
  });

  it('sees what somebody made of an own write on its way into the store', () => {
    const { cache, make, only } = createScene();
    const sent = manifestFor(names, RESPONDER, T1);
    const stored = make(T1);
    const spec = { ...stored.spec, tenantID: 'changed-by-a-webhook' };
    cache.applyWrite({ ...stored, spec }, sent);
    expect(only(T1)).to.deep.equal(observeTunnel(names, { ...stored, spec }));
    expect(only(T1).drift).not.to.equal(0);
  });

  it('compares versions as numbers: 99 is older than 100', () => {
    const { api, cache, make, only } = createScene();
    const made = make(T1);
    api.deliver(cache);
    expect(Number(made.metadata.resourceVersion)).to.be.below(100);
    for (let time = 0; time < 10; time += 1) {
      const edited = api.editManually(made.metadata.name, { labels: { n: `n${time}` } });
      api.deliver(cache);
      expect(only(T1).resourceVersion).to.equal(edited.metadata.resourceVersion);
    }
    expect(Number(only(T1).resourceVersion)).to.be.above(100);
  });

  it('keeps both rows of one tunnel, where somebody made a second by hand, whichever goes first', () => {
    for (const first of ['own', 'hand-made'] as const) {
      const { api, cache, make, told: toldNow } = createScene();
      const own = make(T1).metadata.name;
      api.createManually({ ...manifestFor(names, RESPONDER, T1), name: 'hand-made' });
      api.createManually({ ...manifestFor(names, RESPONDER, T1), name: 'hand-made-too' });
      api.deliver(cache);
      expect(cache.objects(KEY, 'node-1').map(({ name }) => name)).to.have.members([
        own,
        'hand-made',
        'hand-made-too',
      ]);
      expect(cache.size).to.equal(3);
      toldNow();

      api.deleteManually(first === 'own' ? own : 'hand-made');
      api.deliver(cache);
      expect(cache.objects(KEY, 'node-1').map(({ name }) => name)).to.have.members([
        first === 'own' ? 'hand-made' : own,
        'hand-made-too',
      ]);
      expect(toldNow()).to.deep.equal(told(T1));
      expect(cache.size).to.equal(2);
    }
  });
});

describe('a row cache that runs ahead of the watch', () => {
  it('shows an own create at once; its event changes nothing and tells nobody', () => {
    const { api, cache, told: toldNow, make, only } = createScene();
    cache.applyWrite(make(T1));
    const known = only(T1);
    api.deliver(cache);
    expect(only(T1)).to.equal(known);
    expect(cache.size).to.equal(1);
    expect(toldNow()).to.deep.equal([]);
  });

  it('takes no notice of an answer that the watch has overtaken', () => {
    const { api, cache, make, only } = createScene();
    const made = make(T1);
    api.editManually(made.metadata.name, { labels: { 'reverse-tunnel.io/tenant': 'mine' } });
    api.deliver(cache);
    const known = only(T1);
    cache.applyWrite(made);
    expect(only(T1)).to.equal(known);
  });

  it('does not bring a deleted row back for events that come late', () => {
    const { api, cache, told: toldNow, make, only } = createScene();
    const { metadata } = make(T1);
    api.editManually(metadata.name, { createdAt: '2026-11-23T06:00:00Z' });
    cache.applyWrite(make(T2));
    api.deliver(cache, 1);
    const known = only(T1);
    api.deleteManually(metadata.name);
    cache.applyDelete(KEY, 'node-1', known);
    expect(cache.size).to.equal(1);
    toldNow();
    while (api.deliver(cache, 1) > 0) expect(cache.objects(KEY, 'node-1')).to.deep.equal([]);
    expect(toldNow()).to.deep.equal([]);
    expect(cache.size).to.equal(1);
  });

  it('knows the next row of a name from the one before, also when all events come late', () => {
    const { api, cache, told: toldNow, make, only } = createScene();
    const { metadata } = make(T1);
    api.deliver(cache);
    api.editManually(metadata.name, { createdAt: '2026-11-23T06:00:00Z' });
    cache.applyDelete(KEY, 'node-1', only(T1));
    api.deleteManually(metadata.name);
    const next = make(T1);
    expect(next.metadata.name).to.equal(metadata.name);
    cache.applyWrite(next);
    toldNow();
    while (api.deliver(cache, 1) > 0) expect(only(T1).uid).to.equal(next.metadata.uid);
    expect(toldNow()).to.deep.equal([]);
    expect(cache.size).to.equal(1);
  });

  it('knows the next row of a name also when somebody else deleted and made it', () => {
    const { api, cache, make, only } = createScene();
    const { metadata } = make(T1);
    api.deliver(cache);
    api.deleteManually(metadata.name);
    const next = make({ ...T1, createdAt: '2026-11-23T06:00:00Z' });
    // Read again after a conflict, before the watch has shown any of it.
    cache.applyWrite(next);
    expect(only(T1).uid).to.equal(next.metadata.uid);
    api.deliver(cache);
    expect(only(T1).uid).to.equal(next.metadata.uid);
    expect(cache.size).to.equal(1);
  });

  it('forgets a deletion that the watch had shown already, so that nothing is left behind', () => {
    const { api, cache, make, only } = createScene();
    const { metadata } = make(T1);
    api.deliver(cache);
    const known = only(T1);
    api.deleteManually(metadata.name);
    api.deliver(cache);
    cache.applyDelete(KEY, 'node-1', known);
    const next = make(T1);
    api.deliver(cache);
    expect(only(T1).uid).to.equal(next.metadata.uid);
  });

  it('does not show a row again whose deletion overtook the answer to its own creation', () => {
    const { api, cache, make } = createScene();
    const made = make(T1);
    api.deleteManually(made.metadata.name);
    expect(api.deliver(cache)).to.equal(2);
    cache.applyWrite(made);
    expect(cache.objects(KEY, 'node-1')).to.deep.equal([]);
    expect(cache.size).to.equal(0);
  });

  it('does not show a row again whose deletion overtook the answer to a patch', () => {
    const { api, cache, make } = createScene();
    const { metadata } = make(T1);
    api.deliver(cache);
    const patched = api.editManually(metadata.name, { createdAt: '2026-11-23T06:00:00Z' });
    api.deleteManually(metadata.name);
    api.deliver(cache);
    cache.applyWrite(patched);
    expect(cache.objects(KEY, 'node-1')).to.deep.equal([]);
  });
});

describe('a list', () => {
  it('replaces what is known: rows that it does not hold are gone, and told of', () => {
    const { api, cache, told: toldNow, make } = createScene();
    const { metadata } = make(T1);
    make(T2);
    api.deliver(cache);
    toldNow();
    api.deleteManually(metadata.name);
    api.relist(cache);
    expect(toldNow()).to.deep.equal(told(T1));
    expect(cache.objects(KEY, 'node-1')).to.deep.equal([]);
    expect(cache.objects(KEY, 'node-2')).to.have.length(1);
    expect(cache.size).to.equal(1);
  });

  it('tells only of rows that are not what they were', () => {
    const { api, cache, told: toldNow, make } = createScene();
    make(T1);
    const { metadata } = make(T2);
    api.relist(cache);
    expect(toldNow()).to.have.members(told(T1, T2));
    api.editManually(metadata.name, { labels: { team: 'x' } });
    api.relist(cache);
    expect(toldNow()).to.deep.equal(told(T2));
    api.relist(cache);
    expect(toldNow()).to.deep.equal([]);
  });

  it('of a store that was restored replaces rows by their older versions', () => {
    const { api, cache, make, only } = createScene();
    const made = make(T1);
    const restore = api.backup();
    api.editManually(made.metadata.name, { labels: { 'reverse-tunnel.io/tenant': 'mine' } });
    make(T2);
    api.deliver(cache);
    restore();
    api.relist(cache);
    expect(only(T1)).to.deep.equal(observeTunnel(names, made));
    expect(cache.objects(KEY, 'node-2')).to.deep.equal([]);

    // And the watch goes on from there, below the versions that were known before.
    const edited = api.editManually(made.metadata.name, { labels: { team: 'x' } });
    api.deliver(cache);
    expect(only(T1).resourceVersion).to.equal(edited.metadata.resourceVersion);
  });

  it('of a store that was restored, and came to the same version another way: tells of the row that is another there', () => {
    const { api, cache, told: toldNow, make, only } = createScene();
    const { metadata } = make(T1);
    make(T2);
    const restore = api.backup();
    const here = api.editManually(metadata.name, { labels: { team: 'x' } });
    api.relist(cache);
    toldNow();
    restore();
    const there = api.editManually(metadata.name, { labels: { 'reverse-tunnel.io/tenant': 'mine' } });
    expect(there.metadata.resourceVersion).to.equal(here.metadata.resourceVersion);
    api.relist(cache);
    expect(only(T1).drift).not.to.equal(0);
    expect(toldNow()).to.deep.equal(told(T1));
  });

  it('of a store that was restored does not bring back its version for what was written since', () => {
    const { api, cache, make, only } = createScene();
    const made = make(T1);
    const restore = api.backup();
    for (let time = 0; time < 20; time += 1)
      api.editManually(made.metadata.name, { labels: { n: `n${time}` } });
    api.deliver(cache);
    restore();
    api.relist(cache);
    const patched = api.editManually(made.metadata.name, { createdAt: '2026-11-23T06:00:00Z' });
    cache.applyWrite(patched);
    expect(only(T1).resourceVersion).to.equal(patched.metadata.resourceVersion);
    cache.applyWrite(make(T2));
    expect(cache.objects(KEY, 'node-2')).to.have.length(1);
  });

  it('that breaks off leaves what was known; the next one settles it', () => {
    const { api, cache, told: toldNow, make, only } = createScene();
    const first = make(T1).metadata.name;
    make(T2);
    api.deliver(cache);
    toldNow();
    const edited = api.editManually(first, { createdAt: '2026-11-23T06:00:00Z' });
    cache.replaceBegin();
    cache.replaceItem(edited);
    expect(cache.size).to.equal(2);
    expect(only(T1).resourceVersion).to.equal(edited.metadata.resourceVersion);
    expect(only(T2).drift).to.equal(0);
    expect(toldNow()).to.deep.equal(told(T1));

    api.deleteManually(first);
    api.relist(cache);
    expect(cache.objects(KEY, 'node-1')).to.deep.equal([]);
    expect(only(T2).drift).to.equal(0);
    expect(toldNow()).to.deep.equal(told(T1));
    expect(cache.size).to.equal(1);
  });

  it('does not sweep a row that was made while it ran, whether or not the list shows it', () => {
    const { api, cache, make } = createScene();
    make(T1);
    cache.replaceBegin();
    const list = api.list();
    cache.applyWrite(make(T2));
    for (const object of list.items) cache.replaceItem(object);
    cache.replaceEnd(list.version);
    expect(cache.objects(KEY, 'node-2')).to.have.length(1);
    api.deliver(cache);
    expect(cache.objects(KEY, 'node-1')).to.have.length(1);
    expect(cache.objects(KEY, 'node-2')).to.have.length(1);
    expect(cache.size).to.equal(2);
  });

  it('does not undo a patch that was answered while it ran', () => {
    const { api, cache, make, only } = createScene();
    const { metadata } = make(T1);
    api.deliver(cache);
    cache.replaceBegin();
    const list = api.list();
    const patched = api.editManually(metadata.name, { createdAt: '2026-11-23T06:00:00Z' });
    cache.applyWrite(patched);
    for (const object of list.items) cache.replaceItem(object);
    cache.replaceEnd(list.version);
    expect(only(T1).resourceVersion).to.equal(patched.metadata.resourceVersion);
  });

  it('does not bring back a row that was deleted while it ran, known before or not', () => {
    for (const knownBefore of [true, false]) {
      const { api, cache, make } = createScene();
      const made = make(T1);
      if (knownBefore) api.deliver(cache);
      cache.replaceBegin();
      const list = api.list();
      api.deleteManually(made.metadata.name);
      cache.applyDelete(KEY, 'node-1', observeTunnel(names, made));
      for (const object of list.items) cache.replaceItem(object);
      cache.replaceEnd(list.version);
      expect(cache.objects(KEY, 'node-1')).to.deep.equal([]);
      api.deliver(cache);
      expect(cache.size).to.equal(0);
      const next = make(T1);
      api.deliver(cache);
      expect(cache.objects(KEY, 'node-1').map(({ uid }) => uid)).to.deep.equal([next.metadata.uid]);
    }
  });

  it('shows what somebody did to a row after its own creation was answered, both while the list ran', () => {
    const { api, cache, make, only, told: toldNow } = createScene();
    cache.replaceBegin();
    cache.applyWrite(make(T1));
    const edited = api.editManually(names.tunnelObjectName(RESPONDER, T1), {
      labels: { 'reverse-tunnel.io/tenant': 'mine' },
    });
    const list = api.list();
    for (const object of list.items) cache.replaceItem(object);
    cache.replaceEnd(list.version);
    // The watch begins after the list, so nothing else will ever tell.
    expect(api.pendingEvents).to.equal(0);
    expect(only(T1).resourceVersion).to.equal(edited.metadata.resourceVersion);
    expect(toldNow()).to.deep.equal(told(T1));
  });

  it('sweeps a row that was made while it was on its way, and deleted by somebody before it was read', () => {
    for (const answered of ['before the list', 'after the list']) {
      const { api, cache, make } = createScene();
      make(T2);
      cache.replaceBegin();
      const made = make(T1);
      api.deleteManually(made.metadata.name);
      const list = api.list();
      if (answered === 'before the list') cache.applyWrite(made);
      for (const object of list.items) cache.replaceItem(object);
      cache.replaceEnd(list.version);
      if (answered === 'after the list') cache.applyWrite(made);
      expect(cache.objects(KEY, 'node-1'), answered).to.deep.equal([]);
      expect(cache.size).to.equal(1);
    }
  });

  it('sweeps both rows of one tunnel', () => {
    const { api, cache, make } = createScene();
    make(T1);
    api.createManually({ ...manifestFor(names, RESPONDER, T1), name: 'hand-made' });
    api.relist(cache);
    expect(cache.size).to.equal(2);
    for (const name of api.stored.keys()) api.deleteManually(name);
    api.relist(cache);
    expect(cache.size).to.equal(0);
    expect(cache.objects(KEY, 'node-1')).to.deep.equal([]);
  });
});

describe('what a row cache remembers of rows that are gone', () => {
  const deletions: [
    order: string,
    happens: (scene: ReturnType<typeof createScene>, row: ObservedTunnel) => void,
  ][] = [
    [
      'answered, then seen on the watch',
      ({ api, cache }, row) => {
        cache.applyDelete(KEY, 'node-1', row);
        api.deliver(cache);
      },
    ],
    [
      'seen on the watch, then answered',
      ({ api, cache }, row) => {
        api.deliver(cache);
        cache.applyDelete(KEY, 'node-1', row);
      },
    ],
    [
      'answered, then no longer in a list',
      ({ api, cache }, row) => {
        cache.applyDelete(KEY, 'node-1', row);
        api.relist(cache);
      },
    ],
  ];
  for (const [order, happens] of deletions) {
    it(`is nothing in the end, for deletions ${order}`, () => {
      const scene = createScene();
      const { api, cache, make, only } = scene;
      const comeAndGo = (times: number): void => {
        for (let time = 0; time < times; time += 1) {
          const { metadata } = make(T1);
          api.deliver(cache);
          const row = only(T1);
          api.deleteManually(metadata.name);
          happens(scene, row);
          scene.told();
        }
        expect(cache.size).to.equal(0);
      };
      comeAndGo(1000);
      const before = heapBytes();
      comeAndGo(30_000);
      expect(heapBytes() - before).to.be.below(1_000_000);
    });
  }
});

describe('what the ledger learns from the rows', () => {
  it('is every tunnel of the reporter, and none of another', () => {
    const { api, cache, make } = createScene();
    make(T1);
    make(T2);
    make(tunnel('node-3'), OTHER_RESPONDER);
    api.deliver(cache);
    expect([...cache.priorState(KEY).tunnels()]).to.deep.equal([T1, T2]);
    expect(cache.priorState(KEY).tunnel('node-2')).to.deep.equal(T2);
    expect(cache.priorState(KEY).tunnel('node-3')).to.equal(undefined);
    expect([...cache.tunnelNames(KEY)]).to.deep.equal(['node-1', 'node-2']);
    expect([...cache.priorState('nobody').tunnels()]).to.deep.equal([]);
    expect([...cache.tunnelNames('nobody')]).to.deep.equal([]);
  });

  it('is the same object that the ledger holds, where both say the same: a tunnel is kept once', () => {
    const { api, cache, make, only } = createScene((key, name) =>
      key === KEY && name === 'node-1' ? T1 : undefined,
    );
    const { metadata } = make({ ...T1 });
    make({ ...T2 });
    api.deliver(cache);
    expect(only(T1).tunnel === T1).to.equal(true);
    expect(only(T2).tunnel === T2).to.equal(false);
    api.editManually(metadata.name, { createdAt: null });
    api.deliver(cache);
    expect(only(T1).tunnel.createdAt).to.equal(undefined);
  });
});

function rowNow(api: MemoryTunnelApi, of: Tunnel): TunnelObject | undefined {
  return api.stored.get(names.tunnelObjectName(RESPONDER, of));
}

describe('a row cache after any course of events', () => {
  const TUNNELS = [T1, T2];
  interface World {
    readonly api: MemoryTunnelApi;
    readonly cache: TunnelCache;
    /** Answers to own writes, on their way; they arrive in any order. */
    readonly answers: (() => void)[];
    /** While it has begun the watch brings nothing; `items` are those that were not handed over yet. */
    list: { read: ReturnType<MemoryTunnelApi['list']> | undefined } | undefined;
  }

  /** One thing that happens; those that cannot happen now change nothing. */
  type Happening = (world: World) => void;

  const anyOf = fc.constantFrom(...TUNNELS);
  const ownWrite: fc.Arbitrary<Happening> = fc
    .tuple(anyOf, fc.integer({ min: 0, max: 59 }))
    .map(([of, second]) => {
      return ({ api, cache, answers }) => {
        const found = rowNow(api, of);
        const answer =
          found === undefined
            ? api.createManually(manifestFor(names, RESPONDER, of))
            : api.editManually(found.metadata.name, {
                createdAt: `2026-11-23T06:00:${String(second).padStart(2, '0')}Z`,
              });
        answers.push(() => cache.applyWrite(answer));
      };
    });
  const ownDelete: fc.Arbitrary<Happening> = anyOf.map((of) => ({ api, answers, cache }) => {
    // Only a row that is known as it stands can be deleted.
    const row = cache.objects(KEY, of.name).find(({ uid }) => uid === rowNow(api, of)?.metadata.uid);
    if (row === undefined || row.resourceVersion !== rowNow(api, of)?.metadata.resourceVersion) return;
    api.deleteManually(row.name);
    answers.push(() => cache.applyDelete(KEY, of.name, row));
  });
  const byHand: fc.Arbitrary<Happening> = fc.tuple(anyOf, fc.nat(9)).map(([of, n]) => ({ api }) => {
    const found = rowNow(api, of);
    if (found === undefined) api.createManually(manifestFor(names, RESPONDER, of));
    else if (n < 4) api.deleteManually(found.metadata.name);
    else api.editManually(found.metadata.name, { labels: { n: `n${n}` } });
  });
  const answerOne: fc.Arbitrary<Happening> = fc.nat(5).map((index) => ({ answers }) => {
    const [answer] = answers.splice(index % Math.max(1, answers.length), 1);
    answer?.();
  });
  const watch: fc.Arbitrary<Happening> = fc
    .integer({ min: 1, max: 4 })
    .map((most) => ({ api, cache, list }) => {
      if (list === undefined) api.deliver(cache, most);
    });
  const beginList: fc.Arbitrary<Happening> = fc.constant((world: World) => {
    world.cache.replaceBegin();
    world.list = { read: undefined };
  });
  const goOnListing: fc.Arbitrary<Happening> = fc.nat(3).map((items) => (world) => {
    const { list, api, cache } = world;
    if (list === undefined) return;
    if (list.read === undefined) {
      list.read = api.list();
      return;
    }
    for (const object of list.read.items.splice(0, items)) cache.replaceItem(object);
    if (list.read.items.length > 0) return;
    cache.replaceEnd(list.read.version);
    world.list = undefined;
  });
  const anyCourse = fc.array(
    fc.oneof(
      { weight: 3, arbitrary: ownWrite },
      { weight: 2, arbitrary: ownDelete },
      { weight: 3, arbitrary: byHand },
      { weight: 4, arbitrary: answerOne },
      { weight: 4, arbitrary: watch },
      { weight: 2, arbitrary: beginList },
      { weight: 6, arbitrary: goOnListing },
    ),
    { maxLength: 60, size: 'max' },
  );

  it('shows the rows as they are stored, once all answers and events have come', () => {
    fc.assert(
      fc.property(anyCourse, (course) => {
        const { api, cache } = createScene();
        const world: World = { api, cache, answers: [], list: undefined };
        for (const happens of course) happens(world);
        if (world.list !== undefined) {
          const { items, version } = world.list.read ?? api.list();
          for (const object of items) cache.replaceItem(object);
          cache.replaceEnd(version);
        }
        for (const arrives of world.answers) arrives();
        api.deliver(cache);

        const known = TUNNELS.flatMap((of) => cache.objects(KEY, of.name));
        expect(texts(known)).to.deep.equal(
          texts([...api.stored.values()].map((object) => observeTunnel(names, object))),
        );
        expect(cache.size).to.equal(api.stored.size);
      }),
      { numRuns: 2000 },
    );
  });
});
