/** Which form of a tunnel counts while it is in both, by the caches of objects and slices. */
import { expect } from 'chai';
import * as fc from 'fast-check';
import { MirroredTunnels } from '../../src/controller/mirrored-tunnels.ts';
import { SliceCache } from '../../src/controller/slice-cache.ts';
import { TunnelCache } from '../../src/controller/tunnel-cache.ts';
import { sliceManifest, type SliceObject } from '../../src/core/slice-object.ts';
import { Drift, manifestFor, type ObservedTunnel, type TunnelObject } from '../../src/core/tunnel-object.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);
const NAMES = ['a', 'b', 'c'] as const;
const DELETED_AT = '2026-11-23T05:00:00Z';
const CONNECTED = {
  state: 'Connected',
  conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
};

type State = 'absent' | 'live' | 'terminating';

/** The caches of both forms, and the tunnels that count by the events. */
function createScene() {
  const objects = new TunnelCache(names, { tunnel: () => undefined });
  const slices = new SliceCache(names, { tunnel: () => undefined });
  const mirrored = new MirroredTunnels(objects, slices);
  const counted = new Map<string, number>();
  let version = 10;
  for (const cache of [objects, slices]) {
    cache.replaceBegin();
    cache.replaceEnd('10');
  }
  const count = (of: ObservedTunnel | undefined, change: number): void => {
    if (of === undefined) return;
    const value = (counted.get(describeForm(of)) ?? 0) + change;
    if (value === 0) counted.delete(describeForm(of));
    else counted.set(describeForm(of), value);
  };
  mirrored.addEventHandler({
    onTunnelObserved(_key, before, after) {
      count(before, -1);
      count(after, 1);
    },
  });
  const metadata = (uid: string, state: State) => ({
    uid,
    resourceVersion: String((version += 1)),
    ...(state === 'terminating' ? { deletionTimestamp: DELETED_AT } : {}),
  });
  return {
    objects,
    slices,
    mirrored,
    counted,

    /** Brings the object of a tunnel into a state. */
    setObject(name: string, state: State): void {
      const { name: objectName, labels, spec } = manifestFor(names, RESPONDER, tunnel(name));
      const object = {
        metadata: { name: objectName, labels, ...metadata(`object-${name}`, state) },
        spec,
        status: CONNECTED,
      } as TunnelObject;
      objects.event(state === 'absent' ? 'DELETED' : 'MODIFIED', object);
    },

    /** Brings a slice into a state. */
    setSlice(ordinal: number, tunnelNames: readonly string[], state: State): void {
      const entries = tunnelNames.map((name) => tunnel(name));
      const { name, labels, spec } = sliceManifest(names, RESPONDER, 'acme', ordinal, entries);
      const slice = {
        metadata: { name, labels, ...metadata(`slice-${ordinal}`, state) },
        spec,
        status: CONNECTED,
      } as SliceObject;
      slices.event(state === 'absent' ? 'DELETED' : 'MODIFIED', slice);
    },
  };
}

function describeForm({ tunnel: { name }, uid, drift }: ObservedTunnel): string {
  return `${name} ${uid.split('-')[0]}${(drift & Drift.terminating) === 0 ? '' : ' terminating'}`;
}

/** Returns how often a snapshot contains each tunnel. */
function countSnapshot(snapshot: ReturnType<MirroredTunnels['snapshot']>): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const [, of] of snapshot) counts[describeForm(of)] = (counts[describeForm(of)] ?? 0) + 1;
  return counts;
}

describe('a tunnel in both forms', () => {
  const cases: readonly [object: State, slice: State, counted: string][] = [
    ['live', 'absent', 'a object'],
    ['terminating', 'absent', 'a object terminating'],
    ['absent', 'live', 'a slice'],
    ['absent', 'terminating', 'a slice terminating'],
    ['live', 'live', 'a object'],
    ['live', 'terminating', 'a object'],
    ['terminating', 'live', 'a slice'],
    ['terminating', 'terminating', 'a object terminating'],
  ];
  for (const [object, slice, counted] of cases) {
    it(`counts as "${counted}" if its object is ${object} and its slice ${slice}`, () => {
      const scene = createScene();
      scene.setObject('a', 'live');
      scene.setSlice(0, ['a'], 'live');
      scene.setObject('a', object);
      scene.setSlice(0, ['a'], slice);
      const { mirrored } = scene;
      expect(Object.fromEntries(scene.counted)).to.deep.equal({ [counted]: 1 });
      expect(countSnapshot(mirrored.snapshot())).to.deep.equal({ [counted]: 1 });
      expect(mirrored.forms(KEY, 'a').map(describeForm)[0]).to.equal(counted);
      expect(mirrored.priorState(KEY).tunnel('a')).to.deep.equal(tunnel('a'));
    });
  }

  it('counts in the same form by events and by a snapshot, whatever happens', () => {
    const state = fc.constantFrom<State>('absent', 'live', 'live', 'terminating');
    const step = fc.oneof(
      fc.record({ name: fc.constantFrom(...NAMES), state }),
      fc.record({ ordinal: fc.constantFrom(0, 1), content: fc.subarray([...NAMES]), state }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const scene = createScene();
        for (const next of steps) {
          if ('name' in next) scene.setObject(next.name, next.state);
          else scene.setSlice(next.ordinal, next.content, next.state);
          expect(countSnapshot(scene.mirrored.snapshot())).to.deep.equal(Object.fromEntries(scene.counted));
        }
      }),
    );
  });
});

describe('a snapshot of the tunnels', () => {
  it('contains what existed when it was taken, whatever changes while it is read', () => {
    const scene = createScene();
    const { mirrored } = scene;
    scene.setObject('a', 'live');
    scene.setObject('b', 'live');
    scene.setSlice(0, ['b', 'c'], 'live');
    const snapshot = mirrored.snapshot();
    scene.setObject('b', 'absent');
    scene.setSlice(0, ['c', 'd'], 'terminating');
    scene.setObject('e', 'live');
    expect(countSnapshot(snapshot)).to.deep.equal({ 'a object': 1, 'b object': 1, 'c slice': 1 });
    expect(countSnapshot(mirrored.snapshot())).to.deep.equal({
      'a object': 1,
      'e object': 1,
      'c slice terminating': 1,
      'd slice terminating': 1,
    });
  });
});
