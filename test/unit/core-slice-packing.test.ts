import { expect } from 'chai';
import * as fc from 'fast-check';

import { MAX_SLICE_TUNNELS } from '../../src/core/slice-object.ts';
import { Drift } from '../../src/core/tunnel-object.ts';
import { sameTunnel } from '../../src/core/tunnel.ts';
import { SliceFixture, type SliceWrite } from '../support/slice-fixture.ts';
import { tunnel } from '../support/sample-tunnels.ts';

const TENANTS = ['a', 'b'];

function range(from: number, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `n${from + index}`);
}

/** Returns the sizes of the slices by name. */
function sizes({ stored }: SliceFixture): Record<string, number> {
  return Object.fromEntries([...stored.values()].map(({ name, entries }) => [name, entries.size]));
}

/**
 * A packer that is as simple as possible: it fills the slices in any order, then new ones. Returns the number of slices
 * and the most writes that a burst of `added` tunnels of one tenant may cost.
 */
function packNaively(slices: readonly number[], added: number): { slices: number; maxWrites: number } {
  const filled = [...slices];
  const open = slices.filter((size) => size < MAX_SLICE_TUNNELS).length;
  for (let index = 0; index < added; index += 1) {
    const free = filled.findIndex((size) => size < MAX_SLICE_TUNNELS);
    if (free === -1) filled.push(1);
    else filled[free] = (filled[free] ?? 0) + 1;
  }
  return { slices: filled.length, maxWrites: Math.ceil(added / MAX_SLICE_TUNNELS) + open };
}

/** Checks that exactly the reported tunnels are in slices, each in one of its tenant, and that no slice is too large. */
function expectSettled({ stored, reported, held }: SliceFixture): void {
  const shown = new Set<string>();
  for (const { name, tenantID, entries, drift } of stored.values()) {
    if (entries.size < 1 || entries.size > MAX_SLICE_TUNNELS) expect.fail(`${name} has ${entries.size}`);
    if ((drift & Drift.terminating) !== 0) continue;
    for (const entry of entries.values()) {
      if (shown.has(entry.name)) expect.fail(`${entry.name} is in two slices`);
      shown.add(entry.name);
      if (held.has(entry.name)) continue;
      const desired = reported.get(entry.name);
      if (desired === undefined) expect.fail(`${entry.name} is still in ${name}`);
      if (!sameTunnel(entry, desired) || entry.tenantID !== tenantID) expect.fail(`${entry.name} in ${name}`);
    }
  }
  for (const name of reported.keys()) if (!shown.has(name)) expect.fail(`${name} is in no slice`);
}

/** Executes a write, and checks that it hides no tunnel that is reported or held. */
function executeChecked(fixture: SliceFixture, write: SliceWrite): void {
  const before = fixture.stored.get(write.sliceName)?.entries.keys() ?? [];
  const kept = [...before].filter(
    (name) =>
      !write.down.has(name) &&
      !fixture.lostManually.has(name) &&
      (fixture.reported.has(name) || fixture.held.has(name)),
  );
  fixture.execute(write);
  for (const name of kept) if (fixture.slicesOf(name).length === 0) expect.fail(`${name} was hidden`);
  const size = fixture.stored.get(write.sliceName)?.entries.size ?? 0;
  if (size > MAX_SLICE_TUNNELS) expect.fail(`${write.sliceName} has ${size}`);
}

function executeNext(fixture: SliceFixture, index = 0): void {
  const write = [...fixture.inFlight.values()][index % Math.max(1, fixture.inFlight.size)];
  if (write !== undefined) executeChecked(fixture, write);
}

function rejectNext(fixture: SliceFixture, index: number): void {
  const write = [...fixture.inFlight.values()][index % Math.max(1, fixture.inFlight.size)];
  if (write !== undefined) fixture.reject(write);
}

function moveNext(fixture: SliceFixture, index: number, canOpen: boolean): void {
  const sliceName = pickSlice(fixture, index);
  if (sliceName !== undefined) fixture.moveElsewhere(sliceName, canOpen);
}

function settleChecked(fixture: SliceFixture): void {
  for (let count = 0; fixture.plan() !== undefined || fixture.inFlight.size > 0; count += 1) {
    if (count > 1000) throw new Error('the writes do not end');
    executeNext(fixture);
  }
}

const from = fc.nat(350);
const count = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 5 }) },
  fc.integer({ min: 1, max: 230 }),
);
const tenant = fc.constantFrom(...TENANTS);
const pick = fc.nat(1000);
type Step = (fixture: SliceFixture) => void;

function pickSlice({ stored }: SliceFixture, index: number): string | undefined {
  return [...stored.keys()][index % Math.max(1, stored.size)];
}

/** What happens to the slices, apart from their writes. */
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .tuple(from, count, tenant)
      .map(([f, c, t]): Step => named(`add ${f} ${c} ${t}`, (x) => x.add(range(f, c), t))),
  },
  {
    weight: 5,
    arbitrary: fc
      .tuple(from, count)
      .map(([f, c]): Step => named(`remove ${f} ${c}`, (x) => x.remove(range(f, c)))),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(from, count)
      .map(([f, c]): Step => named(`hold ${f} ${c}`, (x) => x.hold(range(f, c)))),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(from, count, tenant)
      .map(([f, c, t]): Step => named(`move ${f} ${c} ${t}`, (x) => x.add(range(f, c), t, 'us-1'))),
  },
  { weight: 6, arbitrary: fc.constant(named('plan', (x: SliceFixture) => void x.plan())) },
  { weight: 6, arbitrary: pick.map((i): Step => named(`write ${i}`, (x) => executeNext(x, i))) },
  { weight: 3, arbitrary: fc.constant(named('settle', settleChecked)) },
  { weight: 2, arbitrary: pick.map((i): Step => named(`reject ${i}`, (x) => rejectNext(x, i))) },
  { weight: 1, arbitrary: fc.constant(named('reopen', (x: SliceFixture) => x.reopen())) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(pick, fc.boolean())
      .map(([i, canOpen]): Step => named(`elsewhere ${i} ${canOpen}`, (x) => moveNext(x, i, canOpen))),
  },
  { weight: 2, arbitrary: fc.constant(named('merge', (x: SliceFixture) => void x.merge())) },
  { weight: 1, arbitrary: fc.constant(named('restart', (x: SliceFixture) => x.restart())) },
  {
    weight: 3,
    arbitrary: fc.boolean().map((is): Step => named(`permit ${is}`, (x) => x.permitRemovals(is))),
  },
  {
    weight: 1,
    arbitrary: pick.map((i): Step =>
      named(`delete ${i}`, (x) => {
        const slice = x.stored.get(pickSlice(x, i) ?? '');
        if (slice !== undefined) x.editManually(slice, undefined);
      }),
    ),
  },
  {
    weight: 1,
    arbitrary: pick.map((i): Step =>
      named(`terminate ${i}`, (x) => {
        const slice = x.stored.get(pickSlice(x, i) ?? '');
        if (slice !== undefined) x.store({ ...slice, drift: slice.drift | Drift.terminating });
      }),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(pick, from, count, tenant).map(([i, f, c, t]): Step =>
      named(`edit ${i} ${f} ${c} ${t}`, (x) => {
        const slice = x.stored.get(pickSlice(x, i) ?? '');
        if (slice === undefined) return;
        const entries = new Map([...slice.entries].slice(0, i % 100));
        for (const name of range(f, c)) {
          if (entries.size < MAX_SLICE_TUNNELS)
            entries.set(name, x.reported.get(name) ?? tunnel(name, { tenantID: t }));
        }
        x.editManually(slice, entries);
      }),
    ),
  },
);

function named(name: string, act: Step): Step {
  return Object.assign((fixture: SliceFixture) => act(fixture), { [fc.toStringMethod]: () => name });
}

describe('packing of slices', () => {
  it('shows exactly what is reported after any changes, and no write hides a tunnel', function () {
    this.timeout(180_000);
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
        const fixture = new SliceFixture();
        for (const act of steps) act(fixture);
        fixture.permitRemovals(true);
        settleChecked(fixture);
        expectSettled(fixture);
        expect(fixture.settle(), 'writes without a change').to.equal(0);
        fixture.restart();
        expect(fixture.settle(), 'writes after a restart').to.equal(0);
        fixture.reopen();
        while (fixture.merge()) settleChecked(fixture);
        expectSettled(fixture);
        fixture.restart();
        expect(fixture.merge(), 'a merge that was not found before').to.equal(false);
      }),
      { numRuns: Number(process.env.FC_RUNS ?? 300) },
    );
  });

  it('costs at most ceil(n / 100) writes for n new tunnels, plus one per slice with a place', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 700 }),
        fc.array(fc.tuple(fc.nat(700), fc.integer({ min: 1, max: 90 })), { maxLength: 8 }),
        fc.integer({ min: 1, max: 450 }),
        (initial, removals, added) => {
          const fixture = new SliceFixture();
          fixture.add(range(0, initial));
          fixture.settle();
          for (const [first, size] of removals) fixture.remove(range(first, size));
          fixture.settle();
          const naive = packNaively(Object.values(sizes(fixture)), added);
          fixture.add(range(1000, added));
          expect(fixture.settle()).to.be.at.most(naive.maxWrites);
          expect(fixture.stored.size, 'slices').to.equal(naive.slices);
        },
      ),
    );
  });

  it('costs one write for a change of one tunnel, and one per slice for removals and additions together', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 400 }), fc.nat(399), fc.nat(399), (initial, first, replaced) => {
        const fixture = new SliceFixture();
        fixture.add(range(0, initial));
        fixture.settle();
        const changed = `n${first % initial}`;
        fixture.add([changed], 'a', 'us-1');
        expect(fixture.settle(), 'another cluster').to.equal(1);
        fixture.remove([changed]);
        expect(fixture.settle(), 'a removal').to.equal(1);
        fixture.add([changed]);
        expect(fixture.settle(), 'an addition').to.equal(1);
        const slices = fixture.stored.size;
        const count = 1 + (replaced % initial);
        fixture.remove(range(0, count));
        fixture.add(range(1000, count));
        expect(fixture.settle(), 'a replacement of many').to.be.at.most(slices);
        expect(fixture.stored.size).to.equal(slices);
      }),
    );
  });

  it('keeps a tunnel in its slice while it is up, except for a merge', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(350), fc.integer({ min: 1, max: 150 }), fc.boolean()), { maxLength: 12 }),
        (changes) => {
          const fixture = new SliceFixture();
          fixture.add(range(0, 300));
          fixture.settle();
          for (const [first, size, isAdded] of changes) {
            const before = new Map(
              [...fixture.reported.keys()].map((name) => [name, fixture.slicesOf(name).join(' ')]),
            );
            if (isAdded) fixture.add(range(first, size));
            else fixture.remove(range(first, size));
            fixture.settle();
            for (const [name, slices] of before)
              if (fixture.reported.has(name))
                if (fixture.slicesOf(name).join(' ') !== slices) expect.fail(`${name} has moved`);
          }
        },
      ),
    );
  });

  it('fills the lowest free ordinal, and holes before a new slice', () => {
    const fixture = new SliceFixture();
    fixture.add(range(0, 250));
    fixture.settle();
    expect(sizes(fixture)).to.deep.equal({ 'a-0': 100, 'a-1': 100, 'a-2': 50 });
    fixture.remove(range(100, 100));
    fixture.settle();
    expect(sizes(fixture)).to.deep.equal({ 'a-0': 100, 'a-2': 50 });
    fixture.add(range(300, 60));
    fixture.settle();
    expect(sizes(fixture)).to.deep.equal({ 'a-0': 100, 'a-2': 100, 'a-1': 10 });
  });

  it('merges two half-empty slices of a tenant with two writes, first the one that grows', () => {
    const fixture = new SliceFixture();
    fixture.add(range(0, 300));
    fixture.add(range(1000, 10), 'b');
    fixture.settle();
    fixture.remove([...range(0, 60), ...range(120, 80)]);
    fixture.settle();
    expect(sizes(fixture)).to.deep.equal({ 'a-0': 40, 'a-1': 20, 'a-2': 100, 'b-0': 10 });
    fixture.writes.splice(0);
    expect(fixture.merge()).to.equal(true);
    settleChecked(fixture);
    expect(fixture.writes.map(({ sliceName, action }) => `${action.type} ${sliceName}`)).to.deep.equal([
      'patch a-0',
      'delete a-1',
    ]);
    expect(sizes(fixture)).to.deep.equal({ 'a-0': 60, 'a-2': 100, 'b-0': 10 });
    expect(fixture.merge(), 'nothing else to merge').to.equal(false);
  });

  it('merges slices that become half-empty after there was nothing to merge', () => {
    const fixture = new SliceFixture();
    fixture.add(range(0, 200));
    fixture.add(range(1000, 200), 'b');
    fixture.settle();
    fixture.remove([...range(0, 40), ...range(100, 40), ...range(1000, 40), ...range(1100, 40)]);
    fixture.settle();
    expect(fixture.merge(), 'slices of 60').to.equal(false);
    fixture.remove([...range(1040, 20), ...range(1140, 20)]);
    fixture.settle();
    expect(fixture.merge()).to.equal(true);
    settleChecked(fixture);
    expect(sizes(fixture)).to.deep.equal({ 'a-0': 60, 'a-1': 60, 'b-1': 80 });
  });

  it('assigns tunnels to other slices than the one that rejects them', () => {
    const fixture = new SliceFixture();
    fixture.add(range(0, 150));
    fixture.settle();
    fixture.remove(range(0, 30));
    fixture.settle();
    fixture.add(range(200, 20));
    for (let write = fixture.plan(); write !== undefined; write = fixture.plan()) {
      if (write.sliceName === 'a-1') fixture.reject(write);
      else fixture.execute(write);
    }
    expect(sizes(fixture)).to.deep.equal({ 'a-0': 90, 'a-1': 50 });
    fixture.add(range(300, 40));
    fixture.settle();
    expect(sizes(fixture), 'while the slice is closed').to.deep.equal({ 'a-0': 100, 'a-1': 50, 'a-2': 30 });
    fixture.reopen();
    fixture.add(range(400, 120));
    fixture.settle();
    expect(sizes(fixture)).to.deep.equal({ 'a-0': 100, 'a-1': 100, 'a-2': 100 });
  });

  it('assigns a tunnel in two slices to the one with more tunnels', () => {
    const fixture = new SliceFixture();
    fixture.add(range(0, 130));
    fixture.settle();
    const small = fixture.stored.get('a-1');
    if (small === undefined) throw new Error('there is a second slice');
    const copy = fixture.reported.get('n0');
    if (copy === undefined) throw new Error('it is reported');
    fixture.stored.set('a-1', { ...small, entries: new Map([['n0', copy], ...small.entries]) });
    fixture.restart();
    settleChecked(fixture);
    expect(fixture.slicesOf('n0')).to.deep.equal(['a-0']);
  });

  for (const [when, isPlanned] of [
    ['from the beginning', false],
    ['from a moment when their places were given away already', true],
  ] as const) {
    it(`adds new tunnels although stale entries fill the slices and must not leave ${when}`, () => {
      const fixture = new SliceFixture();
      fixture.add(range(0, 100));
      fixture.settle();
      if (!isPlanned) fixture.permitRemovals(false);
      fixture.remove(range(0, 100));
      if (isPlanned) fixture.canRemove = false;
      fixture.add(range(200, 100));
      settleChecked(fixture);
      for (const name of range(200, 100)) expect(fixture.slicesOf(name)).to.deep.equal(['a-1']);
      expect(fixture.stored.get('a-0')?.entries.size).to.equal(100);
      fixture.permitRemovals(true);
      settleChecked(fixture);
      expect(sizes(fixture)).to.deep.equal({ 'a-1': 100 });
    });
  }

  it('removes a tunnel from the slice of another tenant if it returns before it has left its own', () => {
    const fixture = new SliceFixture();
    fixture.add(['n0']);
    fixture.settle();
    fixture.add(['n0'], 'b');
    fixture.plan();
    executeNext(fixture);
    expect(sizes(fixture)).to.deep.equal({ 'a-0': 1, 'b-0': 1 });
    fixture.add(['n0'], 'a');
    settleChecked(fixture);
    expect(sizes(fixture)).to.deep.equal({ 'a-0': 1 });
  });

  it('removes a tunnel that was moved, held and then removed by name', () => {
    const fixture = new SliceFixture();
    fixture.add(['n0']);
    fixture.settle();
    fixture.add(['n0'], 'b');
    fixture.hold(['n0']);
    settleChecked(fixture);
    expect(sizes(fixture)).to.deep.equal({ 'a-0': 1 });
    fixture.remove(['n0']);
    settleChecked(fixture);
    expect(sizes(fixture)).to.deep.equal({});
  });

  it('compares a slice again if a tunnel is released that stayed in it after its first release', () => {
    const fixture = new SliceFixture();
    fixture.add(['n0', 'n1']);
    fixture.settle();
    const { packing } = fixture;
    for (let release = 0; release < 2; release += 1) {
      packing.release('n0');
      expect([...packing.takeChanged()], `release ${release}`).to.deep.equal(['a-0']);
      packing.writing('a-0');
    }
  });

  it('compares a slice again if a tunnel that it lacks is assigned to it again', () => {
    const { packing } = new SliceFixture();
    for (let assignment = 0; assignment < 2; assignment += 1) {
      packing.assign('n0', 'a');
      expect([...packing.takeChanged()], `assignment ${assignment}`).to.deep.equal(['a-0']);
      packing.writing('a-0');
    }
  });

  it('keeps a tunnel in one slice while a write is in flight that removes it from the other one', () => {
    const fixture = new SliceFixture();
    fixture.add(['n0']);
    fixture.settle();
    fixture.add(['n0'], 'b');
    fixture.plan();
    executeNext(fixture);
    const removal = fixture.plan();
    expect(removal?.action.type).to.equal('delete');
    fixture.add(['n0'], 'a');
    expect(fixture.plan(), 'nothing is removed from the other slice').to.equal(undefined);
    settleChecked(fixture);
    expect(sizes(fixture)).to.deep.equal({ 'a-0': 1 });
    expectSettled(fixture);
  });

  it('assigns the tunnels of a large report in a few passes', () => {
    const fixture = new SliceFixture();
    fixture.add(range(0, 10_000));
    expect(fixture.settle()).to.equal(100);
  });

  it('does not use a name that another object has', () => {
    const fixture = new SliceFixture();
    fixture.add(range(0, 3));
    const orphans = fixture.packing.block('a-0');
    expect(orphans).to.deep.equal(range(0, 3));
    expect(fixture.packing.identity('a-0')).to.equal(undefined);
    fixture.add(range(0, 3));
    fixture.settle();
    expect(sizes(fixture)).to.deep.equal({ 'a-1': 3 });
  });
});
