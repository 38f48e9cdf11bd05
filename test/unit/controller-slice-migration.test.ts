import { expect } from 'chai';
import * as fc from 'fast-check';
import type { Representation } from '../../src/core/representation.ts';
import type { Tunnel } from '../../src/core/tunnel.ts';
import { apiFailure, connectionFailure } from '../support/memory-api.ts';
import { assertHolds } from '../support/property-runs.ts';
import { delta, fullPush, RESPONDER, tunnel } from '../support/sample-tunnels.ts';
import {
  BATCH_MS,
  collectGaps,
  countVerbs,
  namesInObjects,
  namesInSlices,
  representAllAs,
  sortedNames,
  startWithSlices,
  tunnelRange,
  type SliceWorld,
} from '../support/slice-world.ts';

const ALL = tunnelRange(1, 150);

/** Starts with policies that represent all tunnels in one form, and waits until all are shown. */
async function startAs(representation: Representation): Promise<SliceWorld> {
  const world = await startWithSlices({ representation: 'objects' });
  world.authorizer.onPoliciesChanged(representAllAs(representation));
  world.report(RESPONDER, fullPush(...ALL));
  await world.advance(BATCH_MS);
  return world;
}

describe('a change of the representation', () => {
  it('moves all tunnels from objects to slices, and at no moment one is in neither form', async () => {
    const world = await startAs('objects');
    expect(namesInObjects(world)).to.deep.equal(sortedNames(ALL));
    const gaps = collectGaps(world, () => ALL);
    world.authorizer.onPoliciesChanged(representAllAs('slices'));
    await world.advance(1000);
    expect(namesInObjects(world)).to.be.empty;
    expect(namesInSlices(world)).to.deep.equal(sortedNames(ALL));
    expect(gaps).to.be.empty;
    expect(countVerbs(world.sliceApi)).to.deep.equal({ create: 2 });
  });

  it('moves all tunnels from slices to objects, and at no moment one is in neither form', async () => {
    const world = await startAs('slices');
    expect(namesInSlices(world)).to.deep.equal(sortedNames(ALL));
    const gaps = collectGaps(world, () => ALL);
    world.authorizer.onPoliciesChanged(representAllAs('objects'));
    await world.advance(1000);
    expect(namesInObjects(world)).to.deep.equal(sortedNames(ALL));
    expect(namesInSlices(world)).to.be.empty;
    expect(gaps).to.be.empty;
    expect(countVerbs(world.api)).to.deep.equal({ create: ALL.length });
  });

  it('takes place at the next start if it is that of the setting', async () => {
    const before = await startWithSlices({ representation: 'objects' });
    before.report(RESPONDER, fullPush(...ALL));
    await before.advance(BATCH_MS);
    const world = await startWithSlices({ api: before.api, sliceApi: before.sliceApi });
    const gaps = collectGaps(world, () => ALL);
    expect(namesInObjects(world)).to.deep.equal(sortedNames(ALL));
    world.report(RESPONDER, fullPush(...ALL));
    await world.advance(1000);
    expect(namesInObjects(world)).to.be.empty;
    expect(namesInSlices(world)).to.deep.equal(sortedNames(ALL));
    expect(gaps).to.be.empty;
  });

  it('back to objects before the first slice is written creates the objects', async () => {
    const world = await startWithSlices({ representation: 'objects' });
    world.authorizer.onPoliciesChanged(representAllAs('slices'));
    world.report(RESPONDER, fullPush(...ALL.slice(0, 20)));
    await world.settle();
    world.authorizer.onPoliciesChanged(representAllAs('objects'));
    await world.advance(1000);
    expect(namesInObjects(world)).to.deep.equal(sortedNames(ALL.slice(0, 20)));
    expect(world.sliceApi.writes).to.equal(0);
  });

  it('keeps the objects up to date as long as slices are rejected, and delays no other write', async () => {
    const world = await startAs('objects');
    world.sliceApi.before = () => {
      throw apiFailure('no_kind_match');
    };
    world.authorizer.onPoliciesChanged(representAllAs('slices'));
    await world.advance(1000);
    world.report(RESPONDER, delta([tunnel('node-1', { createdAt: '2026-11-23T08:00:00Z' })]));
    world.report(RESPONDER, delta([], ['node-2']));
    await world.advance(1000);
    expect(world.object(RESPONDER, tunnel('node-1'))?.spec.createdAt).to.equal('2026-11-23T08:00:00Z');
    expect(namesInObjects(world)).to.deep.equal(sortedNames(ALL.filter(({ name }) => name !== 'node-2')));
  });

  it('keeps the other form while a removal without a response may still take effect', async () => {
    const world = await startAs('objects');
    const gaps = collectGaps(world, () => ALL);
    const delayed: string[] = [];
    world.api.before = ({ verb, name }) => {
      if (verb !== 'delete' || delayed.length > 0) return;
      delayed.push(name);
      world.authorizer.onPoliciesChanged(representAllAs('objects'));
      throw connectionFailure();
    };
    world.authorizer.onPoliciesChanged(representAllAs('slices'));
    await world.advance(30_000);
    expect(delayed).to.have.lengthOf(1);
    for (const name of delayed) world.api.deleteManually(name);
    await world.advance(90_000);
    expect(gaps).to.be.empty;
    expect(namesInObjects(world)).to.deep.equal(sortedNames(ALL));
    expect(namesInSlices(world)).to.be.empty;
  });

  it('removes the other form once a removal without a response can no longer take effect', async () => {
    const world = await startAs('slices');
    let isLost = false;
    world.sliceApi.before = ({ verb }) => {
      if (isLost || (verb !== 'delete' && verb !== 'patch')) return;
      isLost = true;
      world.authorizer.onPoliciesChanged(representAllAs('slices'));
      throw connectionFailure();
    };
    world.authorizer.onPoliciesChanged(representAllAs('objects'));
    await world.advance(90_000);
    expect(isLost).to.equal(true);
    expect(namesInSlices(world)).to.deep.equal(sortedNames(ALL));
    expect(namesInObjects(world)).to.be.empty;
  });

  it('counts a tunnel once while it is in both forms', async () => {
    const world = await startAs('objects');
    const counts: number[] = [];
    const observe = (): void => {
      const names = [...world.mirrored.snapshot()].map(([, { tunnel }]) => tunnel.name);
      counts.push(names.length, new Set(names).size);
    };
    let observed = ALL.length;
    world.mirrored.addEventHandler({
      onTunnelObserved(_key, before, after) {
        observed += (after === undefined ? 0 : 1) - (before === undefined ? 0 : 1);
        counts.push(observed);
      },
    });
    world.api.onChange = observe;
    world.sliceApi.onChange = observe;
    world.authorizer.onPoliciesChanged(representAllAs('slices'));
    await world.advance(1000);
    expect(namesInObjects(world)).to.be.empty;
    expect(new Set(counts)).to.deep.equal(new Set([ALL.length]));
  });
});

/** What happens between two moments at which everything is at rest. */
type Step =
  | { readonly type: 'represent'; readonly as: Representation }
  | { readonly type: 'report'; readonly from: number; readonly to: number }
  | { readonly type: 'remove'; readonly index: number }
  | {
      readonly type: 'fail';
      readonly api: 'objects' | 'slices';
      readonly kind: 'conflict' | 'throttled' | 'lost';
    }
  | { readonly type: 'slow'; readonly ms: number }
  | { readonly type: 'wait'; readonly ms: number };

const STEP: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    type: fc.constant('represent' as const),
    as: fc.constantFrom('objects' as const, 'slices' as const),
  }),
  fc.record({
    type: fc.constant('report' as const),
    from: fc.integer({ min: 1, max: 8 }),
    to: fc.integer({ min: 4, max: 12 }),
  }),
  fc.record({ type: fc.constant('remove' as const), index: fc.integer({ min: 1, max: 12 }) }),
  fc.record({
    type: fc.constant('fail' as const),
    api: fc.constantFrom('objects' as const, 'slices' as const),
    kind: fc.constantFrom('conflict' as const, 'throttled' as const, 'lost' as const),
  }),
  fc.record({ type: fc.constant('slow' as const), ms: fc.integer({ min: 0, max: 400 }) }),
  fc.record({ type: fc.constant('wait' as const), ms: fc.integer({ min: 0, max: 600 }) }),
);

describe('any sequence of changes of the representation, reports and failures', () => {
  it('never leaves a reported tunnel in neither form, and ends with each tunnel in one', async function () {
    this.timeout(180_000);
    await assertHolds(
      fc.asyncProperty(fc.array(STEP, { minLength: 2, maxLength: 14 }), async (steps) => {
        const world = await startAs('objects');
        const { clock, api, sliceApi } = world;
        let representation: Representation = 'objects';
        let reported = new Map<string, Tunnel>();
        /** Tunnels that have been shown since they were reported. */
        const visible = new Set<string>();
        /** Tunnels that were removed: the write that removes one may be in flight when it is reported again. */
        const removed = new Set<string>();
        let delayMs = 0;
        const delay = async (): Promise<void> => {
          if (delayMs === 0) return;
          await new Promise<void>((resolve) => void clock.setTimer(delayMs, resolve));
        };
        api.before = delay;
        sliceApi.before = delay;
        const gaps: string[] = [];
        const check = (): void => {
          const shown = new Set([...namesInSlices(world), ...namesInObjects(world)]);
          for (const name of visible) if (!shown.has(name)) gaps.push(name);
          for (const name of shown) if (reported.has(name)) visible.add(name);
        };
        const report = (after: readonly Tunnel[], send: () => void): void => {
          reported = new Map(after.map((held) => [held.name, held]));
          for (const name of visible) if (!reported.has(name)) visible.delete(name);
          send();
        };
        report(tunnelRange(1, 6), () => world.report(RESPONDER, fullPush(...tunnelRange(1, 6))));
        await world.advance(60_000);
        api.onChange = check;
        sliceApi.onChange = check;
        check();
        for (const step of steps) {
          switch (step.type) {
            case 'represent':
              representation = step.as;
              world.authorizer.onPoliciesChanged(representAllAs(step.as));
              break;
            case 'report': {
              const added = tunnelRange(step.from, step.to).filter(({ name }) => !removed.has(name));
              report([...reported.values(), ...added], () => world.report(RESPONDER, delta(added)));
              break;
            }
            case 'remove': {
              removed.add(`node-${step.index}`);
              const rest = [...reported.values()].filter(({ name }) => name !== `node-${step.index}`);
              report(rest, () => world.report(RESPONDER, delta([], [`node-${step.index}`])));
              break;
            }
            case 'fail':
              (step.api === 'objects' ? api : sliceApi).failNext(
                step.kind === 'lost' ? connectionFailure() : apiFailure(step.kind),
                2,
              );
              break;
            case 'slow':
              delayMs = step.ms;
              break;
            case 'wait':
              await world.advance(step.ms);
          }
          await world.settle();
        }
        delayMs = 0;
        await world.advance(120_000);
        const names = [...reported.keys()].toSorted();
        expect(gaps).to.be.empty;
        expect(namesInObjects(world)).to.deep.equal(representation === 'objects' ? names : []);
        expect(namesInSlices(world)).to.deep.equal(representation === 'slices' ? names : []);
      }),
      { runs: 25, file: 'test/unit/controller-slice-migration.test.ts' },
    );
  });
});
