import { expect } from 'chai';

import { SliceCache } from '../../src/controller/slice-cache.ts';
import { sliceManifest, type SliceObject } from '../../src/core/slice-object.ts';
import { Drift } from '../../src/core/tunnel-object.ts';
import { reporterKey, type ReporterId, type Tunnel } from '../../src/core/tunnel.ts';
import { internalSizes } from '../support/internal-sizes.ts';
import { names, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);
const CONNECTED = {
  state: 'Connected',
  conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
};
const NAME = sliceName(0);

function sliceName(ordinal: number): string {
  return names.sliceObjectName(RESPONDER, 'acme', ordinal);
}

interface Stored {
  readonly version: number;
  readonly ordinal?: number;
  readonly uid?: string;
  readonly reporter?: ReporterId;
  readonly unknown?: readonly string[];
  readonly deletionTimestamp?: string;
}

/** Returns a slice as the API server returns it. */
function stored(tunnels: readonly (string | Tunnel)[], options: Stored): SliceObject {
  const { version, ordinal = 0, uid = `uid-${ordinal}`, reporter = RESPONDER, deletionTimestamp } = options;
  const entries = tunnels.map((of) => (typeof of === 'string' ? tunnel(of) : of));
  const { name, labels, spec } = sliceManifest(names, reporter, 'acme', ordinal, entries);
  const unknown = (options.unknown ?? []).map((entry) => ({ name: entry, state: 'Unknown' }));
  return {
    metadata: {
      name,
      labels,
      uid,
      resourceVersion: String(version),
      ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
    },
    spec,
    status: { ...CONNECTED, ...(unknown.length === 0 ? {} : { tunnels: unknown }) },
  };
}

/** A cache that has listed nothing at version 10, and what it reports. */
function createScene(reported: readonly Tunnel[] = []) {
  const cache = new SliceCache(names, {
    tunnel: (key, name) => (key === KEY ? reported.find((of) => of.name === name) : undefined),
  });
  cache.replaceBegin();
  cache.replaceEnd('10');
  let events: string[] = [];
  cache.addEventHandler({
    onSliceChanged: (_, name) => events.push(`changed ${name.slice(-1)}`),
    onSliceObserved: (_, name, slice) =>
      events.push(`slice ${name.slice(-1)}: ${slice?.entries.size ?? 'gone'}`),
    onTunnelObserved: (_, before, after) =>
      events.push(`${(after ?? before)?.tunnel.name}: ${before?.drift ?? '-'} to ${after?.drift ?? '-'}`),
    onListed: () => events.push('listed'),
  });
  return {
    cache,
    /** Returns what was reported since the last call. */
    events: (): string[] => {
      const recent = events;
      events = [];
      return recent;
    },
    /** Returns the names of the tunnels in each slice. */
    content: (): Record<string, string[]> =>
      Object.fromEntries(
        [...cache.slices(KEY)].map(({ name, entries }) => [name.slice(-1), [...entries.keys()]]),
      ),
  };
}

describe('a slice cache that follows the watch', () => {
  it('indexes slices by reporter and name, and tunnels by name, and reports each change', () => {
    const { cache, events } = createScene();
    cache.event('ADDED', stored(['a', 'b'], { version: 11 }));
    cache.event('ADDED', stored(['a'], { version: 12, reporter: OTHER_RESPONDER, uid: 'other' }));
    expect(events()).to.deep.equal([
      'slice 0: 2',
      'a: - to 0',
      'b: - to 0',
      'changed 0',
      'slice 0: 1',
      'a: - to 0',
      'changed 0',
    ]);
    expect([cache.size, cache.sliceCount, cache.tunnelCount(KEY), cache.sliceCountOf(KEY)]).to.deep.equal([
      3, 2, 2, 1,
    ]);
    expect([...cache.tunnelNames(KEY)]).to.deep.equal(['a', 'b']);
    expect([...cache.reporterKeys()]).to.deep.equal([KEY, reporterKey(OTHER_RESPONDER)]);
    expect(cache.slicesOf(KEY, 'b').map(({ name }) => name)).to.deep.equal([NAME]);
    expect(cache.slicesOf(KEY, 'c')).to.deep.equal([]);
    expect(cache.tunnel(KEY, 'b')?.tunnel).to.deep.equal(tunnel('b'));
    const prior = cache.priorState(KEY);
    expect([prior.size, prior.tunnel('a'), prior.tunnel('c')]).to.deep.equal([2, tunnel('a'), undefined]);
    expect([...prior.tunnels()]).to.deep.equal([tunnel('a'), tunnel('b')]);
  });

  it('reports only the tunnels that changed', () => {
    const { cache, events } = createScene();
    cache.event('ADDED', stored(['a', 'b', 'c'], { version: 11 }));
    events();
    cache.event(
      'MODIFIED',
      stored(['a', tunnel('b', { nodeID: 'x' }), 'd'], { version: 12, unknown: ['d'] }),
    );
    expect(events()).to.deep.equal(['slice 0: 3', 'b: 0 to 0', 'c: 0 to -', 'd: - to 20', 'changed 0']);
    cache.event('MODIFIED', stored(['a', tunnel('b', { nodeID: 'x' }), 'd'], { version: 13 }));
    expect(events()).to.deep.equal(['slice 0: 3', 'd: 20 to 0', 'changed 0']);
    cache.event('DELETED', stored(['a', 'b', 'd'], { version: 14 }));
    expect(events()).to.deep.equal(['slice 0: gone', 'a: 0 to -', 'b: 0 to -', 'd: 0 to -', 'changed 0']);
    expect([cache.size, cache.sliceCount]).to.deep.equal([0, 0]);
    expect(internalSizes(cache)).to.include({ '#byReporter': 0 });
  });

  it('reports a tunnel in two slices once, and prefers the slice that is not being deleted', () => {
    const { cache, events } = createScene();
    cache.event('ADDED', stored(['a'], { version: 11 }));
    cache.event('ADDED', stored(['a'], { version: 12, ordinal: 1 }));
    expect(events().filter((line) => line.startsWith('a:'))).to.deep.equal(['a: - to 0', 'a: 0 to 0']);
    expect([cache.size, cache.slicesOf(KEY, 'a').length]).to.deep.equal([1, 2]);
    cache.event('MODIFIED', stored(['a'], { version: 13, deletionTimestamp: '2026-11-23T05:00:00Z' }));
    expect(cache.tunnel(KEY, 'a')).to.include({ name: sliceName(1), drift: 0 });
    cache.event('DELETED', stored(['a'], { version: 14 }));
    expect(events()).not.to.include('a: 0 to -');
    expect(cache.slicesOf(KEY, 'a').map(({ name }) => name)).to.deep.equal([sliceName(1)]);
    cache.event(
      'MODIFIED',
      stored(['a'], { version: 15, ordinal: 1, deletionTimestamp: '2026-11-23T05:00:00Z' }),
    );
    expect(events()).to.include(`a: 0 to ${Drift.terminating}`);
  });

  it('ignores events that are older than what is known, and those of deleted predecessors', () => {
    const { cache, events, content } = createScene();
    cache.applyWrite(stored(['a', 'b'], { version: 20 }));
    events();
    cache.event('MODIFIED', stored(['a'], { version: 19 }));
    cache.event('DELETED', stored(['a'], { version: 18, uid: 'former' }));
    expect(events()).to.deep.equal([]);
    const slice = cache.slice(KEY, NAME);
    if (slice === undefined) throw new Error('it exists');
    cache.applyDelete(slice);
    cache.event('MODIFIED', stored(['a', 'b'], { version: 21 }));
    expect(content(), 'the deletion was answered before this event').to.deep.equal({});
    cache.event('DELETED', stored(['a', 'b'], { version: 22 }));
    cache.event('ADDED', stored(['a'], { version: 23, uid: 'next' }));
    expect(content()).to.deep.equal({ 0: ['a'] });
  });

  it('recognizes the event of an own write once', () => {
    const { cache, content } = createScene();
    cache.applyWrite(stored(['a'], { version: 11 }));
    expect([cache.acknowledgeOwnWrite('11'), cache.acknowledgeOwnWrite('11')]).to.deep.equal([true, false]);
    expect(cache.latestResourceVersion).to.equal('11');
    cache.event('MODIFIED', stored(['a', 'b'], { version: 12 }));
    cache.applyWrite(stored(['a', 'b'], { version: 12 }));
    expect(cache.acknowledgeOwnWrite('12'), 'the watch was faster').to.equal(false);
    cache.applyWrite(stored(['c'], { version: 11 }));
    expect(content()).to.deep.equal({ 0: ['a', 'b'] });
  });

  it('shares the tunnels of the ledger, and keeps those that another replica writes', () => {
    const reported = [tunnel('a')];
    const { cache } = createScene(reported);
    cache.event('ADDED', stored(['a', 'b'], { version: 11 }));
    expect(cache.tunnel(KEY, 'a')?.tunnel).to.equal(reported[0]);
    const kept = cache.tunnel(KEY, 'b')?.tunnel;
    cache.event('MODIFIED', stored(['a', 'b', 'c'], { version: 12 }));
    expect(cache.tunnel(KEY, 'b')?.tunnel).to.equal(kept);
  });
});

describe('a slice cache that lists', () => {
  it('replaces the slices without comparing versions, except for newer own writes', () => {
    const { cache, events, content } = createScene();
    cache.event('ADDED', stored(['a', 'b'], { version: 20 }));
    cache.event('ADDED', stored(['c'], { version: 21, ordinal: 1 }));
    cache.event('ADDED', stored(['d'], { version: 22, ordinal: 2 }));
    events();
    cache.replaceBegin();
    // Restored: the version is older, and another slice has the same version with other content.
    cache.replaceItem(stored(['a'], { version: 15 }));
    cache.replaceItem(stored(['x'], { version: 21, ordinal: 1 }));
    cache.applyWrite(stored(['e'], { version: 31, ordinal: 3 }));
    cache.replaceEnd('30');
    expect(content()).to.deep.equal({ 0: ['a'], 1: ['x'], 3: ['e'] });
    const lines = events();
    expect(lines.at(-1)).to.equal('listed');
    expect(lines).to.include.members(['changed 0', 'changed 1', 'changed 2', 'b: 0 to -', 'd: 0 to -']);
    expect(lines).not.to.include('changed 3');
  });

  it('reports nothing for a list that shows what is known', () => {
    const { cache, events } = createScene();
    cache.event('ADDED', stored(['a', 'b'], { version: 20 }));
    events();
    cache.replaceBegin();
    cache.replaceItem(stored(['a', 'b'], { version: 20 }));
    cache.replaceEnd('30');
    expect(events().filter((line) => !line.startsWith('slice'))).to.deep.equal(['listed']);
  });

  it('does not restore a slice whose deletion was answered during the list', () => {
    const { cache, content } = createScene();
    cache.event('ADDED', stored(['a'], { version: 20 }));
    const slice = cache.slice(KEY, NAME);
    if (slice === undefined) throw new Error('it exists');
    cache.replaceBegin();
    cache.applyDelete(slice);
    cache.replaceItem(stored(['a'], { version: 20 }));
    cache.replaceEnd('30');
    expect(content()).to.deep.equal({});
  });

  it('has synced without slices if the API server does not serve the kind', () => {
    const cache = new SliceCache(names, { tunnel: () => undefined });
    const listed: string[] = [];
    cache.addEventHandler({ onListed: () => listed.push('listed') });
    expect(cache.hasSynced).to.equal(false);
    cache.onKindMissing();
    cache.onKindMissing();
    expect([cache.hasSynced, listed]).to.deep.equal([true, ['listed']]);
  });
});
