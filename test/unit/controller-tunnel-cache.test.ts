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
import { MemoryTunnelApi } from '../support/memory-api.ts';
import { internalSizes } from '../support/internal-sizes.ts';
import { names, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);
const T1 = tunnel('node-1');
const T2 = tunnel('node-2');

/** A cache, the objects of an API server, and the changes that the cache reported. */
function createScene(held: (key: string, name: string) => Tunnel | undefined = () => undefined) {
  const told: string[] = [];
  const cache = new TunnelCache(names, { tunnel: held });
  cache.addEventHandler({ onTunnelObjectChanged: (key, tunnelName) => told.push(`${key}/${tunnelName}`) });
  const api = new MemoryTunnelApi();
  return {
    api,
    cache,
    /** Returns the changes since the last call. */
    told: (): string[] => told.splice(0),
    /** Returns the only object of a tunnel. */
    only: (of: Tunnel): ObservedTunnel => {
      const [row, ...others] = cache.objects(KEY, of.name);
      if (row === undefined || others.length > 0) throw new Error(`${others.length + 1} objects, or none`);
      return row;
    },
    make: (of: Tunnel, reporter = RESPONDER): TunnelObject =>
      api.createManually(manifestFor(names, reporter, of)),
  };
}

function told(...tunnels: Tunnel[]): string[] {
  return tunnels.map((of) => `${KEY}/${of.name}`);
}

/** Compares the contents of a cache with the stored objects. */
function texts(rows: Iterable<ObservedTunnel>): string[] {
  return [...rows].map((row) => JSON.stringify(row)).toSorted();
}

describe('a tunnel cache that follows the watch', () => {
  it('indexes each object by reporter and tunnel name, and reports each change', () => {
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

  it('ignores an event that is older than the known version, and reports nothing', () => {
    const { api, cache, told: toldNow, make, only } = createScene();
    const { metadata } = make(T1);
    api.editManually(metadata.name, { createdAt: '2026-11-23T06:00:00Z' });
    const newest = api.editManually(metadata.name, { createdAt: '2026-11-23T07:00:00Z' });
    cache.applyWrite(newest);
    expect(api.deliver(cache)).to.equal(3);
    expect(only(T1).resourceVersion).to.equal(newest.metadata.resourceVersion);
    expect(toldNow()).to.deep.equal([]);
  });

  it('remembers own writes and deletions for the watch, but a limited number while the watch is idle', () => {
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
    expect(internalSizes(cache, '#progress')).to.include({
      '#pendingOwnWrites': 20_000,
      '#deletedUids': 20_000,
    });
    expect(cache.acknowledgeOwnWrite(String(100_000 + 20_099)), 'the newest is known').to.equal(true);
  });

  it('recognizes the event of an own write once, but not earlier or listed versions', () => {
    const { api, cache, make, only } = createScene();
    const made = make(T1);
    cache.applyWrite(made, manifestFor(names, RESPONDER, T1));
    expect(only(T1)).to.deep.equal(observeTunnel(names, made));
    expect(cache.acknowledgeOwnWrite(made.metadata.resourceVersion)).to.equal(true);
    expect(cache.acknowledgeOwnWrite(made.metadata.resourceVersion)).to.equal(false);
    // An external change, which is not an own write.
    const edited = api.editManually(made.metadata.name, { labels: { 'reverse-tunnel.io/tenant': 'mine' } });
    expect(cache.acknowledgeOwnWrite(edited.metadata.resourceVersion)).to.equal(false);
    api.deliver(cache);
    expect(only(T1).drift).not.to.equal(0);
    // The watch event arrived before the response.
    const other = make(T2);
    api.deliver(cache);
    cache.applyWrite(other);
    expect(cache.acknowledgeOwnWrite(other.metadata.resourceVersion)).to.equal(false);
    // Written during a list and contained in it: the watch begins after it.
    cache.replaceBegin();
    const third = make(tunnel('node-3'));
    cache.applyWrite(third);
    const { items, version } = api.list();
    for (const item of items) cache.replaceItem(item);
    cache.replaceEnd(version);
    expect(cache.acknowledgeOwnWrite(third.metadata.resourceVersion)).to.equal(false);
  });

  it('recognizes the event of an own deletion once, and no other deletion', () => {
    const { api, cache, make, only } = createScene();
    const made = make(T1);
    cache.applyWrite(made);
    const { uid } = made.metadata;
    expect(cache.acknowledgeOwnDeletion(uid, '900'), 'not deleted').to.equal(false);
    const observed = only(T1);
    api.deliver(cache);
    cache.applyDelete(KEY, T1.name, observed);
    expect(cache.acknowledgeOwnDeletion('another', '901')).to.equal(false);
    expect(cache.acknowledgeOwnDeletion(uid, '902')).to.equal(true);
    expect(cache.latestResourceVersion).to.equal('902');
    expect(cache.acknowledgeOwnDeletion(uid, '902')).to.equal(false);
    expect(internalSizes(cache, '#progress')).to.include({ '#deletedUids': 0 });
  });

  it('detects that an own write was changed by admission', () => {
    const { cache, make, only } = createScene();
    const sent = manifestFor(names, RESPONDER, T1);
    const stored = make(T1);
    const spec = { ...stored.spec, tenantID: 'changed-by-a-webhook' };
    cache.applyWrite({ ...stored, spec }, sent);
    expect(only(T1)).to.deep.equal(observeTunnel(names, { ...stored, spec }));
    expect(only(T1).drift).not.to.equal(0);
  });

  it('compares versions as numbers, so 99 is older than 100', () => {
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

  it('keeps both objects of a tunnel after a manual create, whichever is deleted first', () => {
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

describe('a tunnel cache ahead of the watch', () => {
  it('contains an own create immediately; its event changes and reports nothing', () => {
    const { api, cache, told: toldNow, make, only } = createScene();
    cache.applyWrite(make(T1));
    const known = only(T1);
    api.deliver(cache);
    expect(only(T1)).to.equal(known);
    expect(cache.size).to.equal(1);
    expect(toldNow()).to.deep.equal([]);
  });

  it('ignores a response that the watch has overtaken', () => {
    const { api, cache, make, only } = createScene();
    const made = make(T1);
    api.editManually(made.metadata.name, { labels: { 'reverse-tunnel.io/tenant': 'mine' } });
    api.deliver(cache);
    const known = only(T1);
    cache.applyWrite(made);
    expect(only(T1)).to.equal(known);
  });

  it('does not restore a deleted object for late events', () => {
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

  it('distinguishes the next object of a name from the previous one when all events are late', () => {
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

  it('distinguishes the next object of a name when it was replaced externally', () => {
    const { api, cache, make, only } = createScene();
    const { metadata } = make(T1);
    api.deliver(cache);
    api.deleteManually(metadata.name);
    const next = make({ ...T1, createdAt: '2026-11-23T06:00:00Z' });
    // Read after a conflict, before the watch has returned any of it.
    cache.applyWrite(next);
    expect(only(T1).uid).to.equal(next.metadata.uid);
    api.deliver(cache);
    expect(only(T1).uid).to.equal(next.metadata.uid);
    expect(cache.size).to.equal(1);
  });

  it('forgets a deletion that the watch had already returned', () => {
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

  it('does not restore an object whose deletion overtook the response to its creation', () => {
    const { api, cache, make } = createScene();
    const made = make(T1);
    api.deleteManually(made.metadata.name);
    expect(api.deliver(cache)).to.equal(2);
    cache.applyWrite(made);
    expect(cache.objects(KEY, 'node-1')).to.deep.equal([]);
    expect(cache.size).to.equal(0);
  });

  it('does not restore an object whose deletion overtook the response to a patch', () => {
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
  it('replaces the contents: objects that are not in the list are removed and reported', () => {
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

  it('reports only changed objects', () => {
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

  it('replaces objects with older versions after a restore of etcd', () => {
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

    // The watch continues from there, below the versions that were known before.
    const edited = api.editManually(made.metadata.name, { labels: { team: 'x' } });
    api.deliver(cache);
    expect(only(T1).resourceVersion).to.equal(edited.metadata.resourceVersion);
  });

  it('reports an object with the same version but other contents after a restore of etcd', () => {
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

  it('does not replace later own writes with the versions of a restored etcd', () => {
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

  it('keeps the contents if it is incomplete; the next one replaces them', () => {
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

  it('does not remove an object that was created during the list', () => {
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

  it('does not revert a patch whose response arrived during the list', () => {
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

  it('does not restore an object that was deleted during the list, known before or not', () => {
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

  it('contains an external change after an own create, both during the list', () => {
    const { api, cache, make, only, told: toldNow } = createScene();
    cache.replaceBegin();
    cache.applyWrite(make(T1));
    const edited = api.editManually(names.tunnelObjectName(RESPONDER, T1), {
      labels: { 'reverse-tunnel.io/tenant': 'mine' },
    });
    const list = api.list();
    for (const object of list.items) cache.replaceItem(object);
    cache.replaceEnd(list.version);
    // The watch begins after the list, so there is no event.
    expect(api.pendingEvents).to.equal(0);
    expect(only(T1).resourceVersion).to.equal(edited.metadata.resourceVersion);
    expect(toldNow()).to.deep.equal(told(T1));
  });

  it('removes an object that was created during the list and deleted externally before it was read', () => {
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

  it('removes both objects of a tunnel', () => {
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

describe('the memory of deleted objects in a tunnel cache', () => {
  type Deletion = (cache: TunnelCache, row: ObservedTunnel, deleted: TunnelObject) => void;
  const deletions: Record<string, Deletion> = {
    'response, then watch event': (cache, row, deleted) => {
      cache.applyDelete(KEY, 'node-1', row);
      cache.event('DELETED', deleted);
    },
    'watch event, then response': (cache, row, deleted) => {
      cache.event('DELETED', deleted);
      cache.applyDelete(KEY, 'node-1', row);
    },
    'response, then not in a list': (cache, row, deleted) => {
      cache.applyDelete(KEY, 'node-1', row);
      cache.replaceBegin();
      cache.replaceEnd(deleted.metadata.resourceVersion);
    },
  };
  for (const [order, happens] of Object.entries(deletions)) {
    it(`is empty in the end, for deletions: ${order}`, () => {
      const { cache, make, only, told: toldNow } = createScene();
      const template = make(T1);
      let version = Number(template.metadata.resourceVersion);
      const nextVersion = (uid: string): TunnelObject => {
        version += 1;
        return { ...template, metadata: { ...template.metadata, uid, resourceVersion: String(version) } };
      };
      const comeAndGo = (times: number): void => {
        for (let time = 0; time < times; time += 1) {
          const uid = `uid-${version}`;
          cache.event('ADDED', nextVersion(uid));
          happens(cache, only(T1), nextVersion(uid));
          toldNow();
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

describe('the tunnels that the ledger gets from the objects', () => {
  it('are all tunnels of the reporter, and none of another', () => {
    const { api, cache, make } = createScene();
    make(T1);
    make(T2);
    make(tunnel('node-3'), OTHER_RESPONDER);
    api.deliver(cache);
    expect([...cache.priorState(KEY).tunnels()]).to.deep.equal([T1, T2]);
    expect(cache.priorState(KEY).tunnel('node-2')).to.deep.equal(T2);
    expect(cache.priorState(KEY).tunnel('node-3')).to.equal(undefined);
    expect([...cache.tunnelNames(KEY)]).to.deep.equal(['node-1', 'node-2']);
    expect([...cache.priorState('unknown').tunnels()]).to.deep.equal([]);
    expect([...cache.tunnelNames('unknown')]).to.deep.equal([]);
  });

  it('are shared with the ledger if they are equal, so that a tunnel is kept once', () => {
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

describe('a tunnel cache after any sequence of events', () => {
  const TUNNELS = [T1, T2];
  interface World {
    readonly api: MemoryTunnelApi;
    readonly cache: TunnelCache;
    /** Pending responses to own writes; they arrive in any order. */
    readonly answers: (() => void)[];
    /** A list in progress, during which the watch is idle; `items` are not delivered yet. */
    list: { read: ReturnType<MemoryTunnelApi['list']> | undefined } | undefined;
  }

  /** An event; an impossible event changes nothing. */
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
    // Only the known version of an object can be deleted.
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

  it('contains the stored objects once all responses and events have arrived', () => {
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
