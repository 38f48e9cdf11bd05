import { expect } from 'chai';
import * as fc from 'fast-check';

import type { DisconnectPhase } from '../../src/core/grace-timer.ts';
import type { TunnelState } from '../../src/core/ledger.ts';
import { nextDisconnectedAction, nextAction, type TunnelAction } from '../../src/core/plan.ts';
import { Drift, type ObservedTunnel } from '../../src/core/tunnel-object.ts';
import type { Tunnel } from '../../src/core/tunnel.ts';
import { names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const WANTED = tunnel('node-1');
const LATER: Tunnel = { ...WANTED, createdAt: '2026-11-23T06:00:00Z' };
const TIMELESS: Tunnel = { ...WANTED, createdAt: undefined };
const OTHER_TENANT: Tunnel = { ...WANTED, tenantID: 'beta' };
const OTHER_NODE: Tunnel = { ...WANTED, nodeID: 'node-2' };

const UNKNOWN: TunnelState = { state: 'unknown' };
const ABSENT: TunnelState = { state: 'absent' };
const present = (of: Tunnel): TunnelState => ({ state: 'present', tunnel: of });

function row(of: Tunnel, drift = 0, name = names.tunnelObjectName(RESPONDER, of)): ObservedTunnel {
  return { name, uid: `uid of ${name}`, resourceVersion: '100', tunnel: of, drift };
}

describe('the next step', () => {
  const good = row(WANTED);
  const handMade = row(WANTED, Drift.name, 'mine');
  const table: [
    situation: string,
    known: TunnelState,
    rows: ObservedTunnel[],
    step: TunnelAction | undefined,
  ][] = [
    ['a reporter has not said, no row: none', UNKNOWN, [], undefined],
    ['a reporter has not said, a row: none', UNKNOWN, [good], undefined],
    [
      'a reporter has not said, an edited row: none',
      UNKNOWN,
      [row(WANTED, Drift.labels | Drift.status)],
      undefined,
    ],
    ['a reporter has not said, a row made by hand: none', UNKNOWN, [handMade], undefined],
    ['not held, no row: none', ABSENT, [], undefined],
    ['not held, a row: delete', ABSENT, [good], { type: 'delete', object: good }],
    ['not held, a row that goes already: none', ABSENT, [row(WANTED, Drift.terminating)], undefined],
    [
      'not held, one going and one made by hand: delete',
      ABSENT,
      [row(WANTED, Drift.terminating), handMade],
      { type: 'delete', object: handMade },
    ],
    ['held, no row: create', present(WANTED), [], { type: 'create', tunnel: WANTED }],
    ['held, its row: none', present(WANTED), [good], undefined],
    ['held, its row, in another object: none', present({ ...WANTED }), [row({ ...WANTED })], undefined],
    [
      'held, a row that goes: create',
      present(WANTED),
      [row(WANTED, Drift.terminating)],
      { type: 'create', tunnel: WANTED },
    ],
    [
      'held, a row with another createdAt: patch',
      present(LATER),
      [good],
      { type: 'patch', object: good, tunnel: LATER },
    ],
    [
      'held without createdAt, a row with one: patch',
      present(TIMELESS),
      [good],
      { type: 'patch', object: good, tunnel: TIMELESS },
    ],
    [
      'held, a row of another tenant: delete',
      present(OTHER_TENANT),
      [good],
      { type: 'delete', object: good },
    ],
    ['held, a row of another node: delete', present(OTHER_NODE), [good], { type: 'delete', object: good }],
    [
      'held, only a row made by hand: delete it',
      present(WANTED),
      [handMade],
      { type: 'delete', object: handMade },
    ],
    [
      'held, its row and one made by hand: delete that',
      present(WANTED),
      [good, handMade],
      { type: 'delete', object: handMade },
    ],
    [
      'the same, found the other way round',
      present(WANTED),
      [handMade, good],
      { type: 'delete', object: handMade },
    ],
  ];
  for (const [situation, known, rows, step] of table) {
    it(situation, () => {
      expect(nextAction(known, rows)).to.deep.equal(step);
    });
  }

  it('mends labels and createdAt in one patch, then the status', () => {
    const edited = row(WANTED, Drift.labels | Drift.status);
    expect(nextAction(present(LATER), [edited])).to.deep.equal({
      type: 'patch',
      object: edited,
      tunnel: LATER,
    });
    const patched = row(LATER, Drift.status);
    expect(nextAction(present(LATER), [patched])).to.deep.equal({ type: 'patchStatus', object: patched });
  });
});

/** The API server with these rows alone. */
function take(step: TunnelAction, rows: ObservedTunnel[]): ObservedTunnel[] {
  switch (step.type) {
    case 'create': {
      const made = row(step.tunnel);
      const taken = rows.find(({ name }) => name === made.name);
      if (taken === undefined) return [...rows, made];
      // 409 until the finalizer is done: only a row that is going may stand in a create's way.
      expect(taken.drift & Drift.terminating).not.to.equal(0);
      return rows.filter((each) => each !== taken);
    }
    case 'delete':
    case 'expire':
      expect(rows).to.include(step.object);
      return rows.filter((each) => each !== step.object);
    case 'patch':
      expect(rows).to.include(step.object);
      return rows.map((each) =>
        each === step.object
          ? {
              ...each,
              drift: each.drift & ~Drift.labels,
              tunnel: { ...each.tunnel, createdAt: step.tunnel.createdAt },
            }
          : each,
      );
    case 'patchStatus':
      expect(rows).to.include(step.object);
      return rows.map((each) =>
        each === step.object ? { ...each, drift: each.drift & ~Drift.status & ~Drift.unknown } : each,
      );
    case 'markUnknown':
      expect(rows).to.include(step.object);
      return rows.map((each) =>
        each === step.object ? { ...each, drift: each.drift | Drift.status | Drift.unknown } : each,
      );
  }
}

describe('steps taken one after the other', () => {
  const anyTunnel = fc.constantFrom(WANTED, LATER, TIMELESS, OTHER_TENANT, OTHER_NODE);
  const anyRow = fc
    .record({
      of: anyTunnel,
      labels: fc.constantFrom(0, Drift.labels),
      status: fc.constantFrom(0, Drift.status, Drift.status | Drift.unknown),
      terminating: fc.constantFrom(0, 0, Drift.terminating),
      madeAs: fc.option(fc.constantFrom('mine', 'yours')),
    })
    .map(({ of, labels, status, terminating, madeAs }) =>
      row(of, labels | status | terminating | (madeAs === null ? 0 : Drift.name), madeAs ?? undefined),
    );
  const anyRows = fc.uniqueArray(anyRow, { selector: ({ name }) => name, maxLength: 4 });
  const anyKnown = fc.oneof(fc.constant(ABSENT), anyTunnel.map(present));

  it('come to an end where the rows say what is known, each taking one difference away', () => {
    fc.assert(
      fc.property(anyKnown, anyRows, (known, found) => {
        let rows = found;
        let steps = 0;
        for (let step = nextAction(known, rows); step !== undefined; step = nextAction(known, rows)) {
          rows = take(step, rows);
          steps += 1;
          expect(steps).to.be.at.most(found.length + 2);
        }
        const standing = rows.filter(({ drift }) => (drift & Drift.terminating) === 0);
        expect(standing.map(({ name, tunnel: of, drift }) => ({ name, of, drift }))).to.deep.equal(
          known.state === 'present'
            ? [{ name: names.tunnelObjectName(RESPONDER, known.tunnel), of: known.tunnel, drift: 0 }]
            : [],
        );
      }),
      { numRuns: 1000 },
    );
  });

  it('never delete the row that is right', () => {
    fc.assert(
      fc.property(anyTunnel, anyRows, (of, found) => {
        const right = row(of);
        let rows = [right, ...found.filter(({ name }) => name !== right.name)];
        for (
          let step = nextAction(present(of), rows);
          step !== undefined;
          step = nextAction(present(of), rows)
        ) {
          expect(step.type).to.equal('delete');
          rows = take(step, rows);
          expect(rows).to.include(right);
        }
      }),
    );
  });
});

describe('the rows of a reporter that is lost', () => {
  const marked = (of: Tunnel): ObservedTunnel => row(of, Drift.status | Drift.unknown);

  const table: [
    situation: string,
    phase: DisconnectPhase,
    known: TunnelState,
    rows: ObservedTunnel[],
    step: TunnelAction | undefined,
  ][] = [
    ['stay as they are at first', 'grace', UNKNOWN, [row(WANTED)], undefined],
    [
      'are still brought to its last words',
      'grace',
      ABSENT,
      [row(WANTED)],
      { type: 'delete', object: row(WANTED) },
    ],
    ['are marked', 'unknown', UNKNOWN, [row(WANTED)], { type: 'markUnknown', object: row(WANTED) }],
    [
      'are marked though it held them',
      'unknown',
      present(WANTED),
      [row(WANTED)],
      { type: 'markUnknown', object: row(WANTED) },
    ],
    ['are marked once', 'unknown', present(WANTED), [marked(WANTED)], undefined],
    ['are not made any more', 'unknown', present(WANTED), [], undefined],
    [
      'go in the end, though it held them',
      'expired',
      present(WANTED),
      [marked(WANTED)],
      { type: 'expire', object: marked(WANTED) },
    ],
    [
      'that are going already are left alone',
      'expired',
      UNKNOWN,
      [row(WANTED, Drift.terminating)],
      undefined,
    ],
    ['are not made in the end either', 'expired', present(WANTED), [], undefined],
  ];
  for (const [situation, phase, known, rows, step] of table) {
    it(situation, () => {
      expect(nextDisconnectedAction(known, rows, phase)).to.deep.equal(step);
    });
  }

  it('are as reported again in one write each, once it is back', () => {
    expect(nextAction(present(WANTED), [marked(WANTED)])).to.deep.equal({
      type: 'patchStatus',
      object: marked(WANTED),
    });
  });

  for (const phase of ['unknown', 'expired'] as const) {
    it(`come to an end when ${phase}, each step taking one difference away`, () => {
      fc.assert(
        fc.property(
          fc.constantFrom(UNKNOWN, ABSENT, present(WANTED)),
          fc.array(fc.nat(31), { maxLength: 4 }),
          (known, drifts) => {
            let rows = drifts.map((drift, index) => row(WANTED, drift, `row-${index}`));
            for (let steps = 0; ; steps += 1) {
              const step = nextDisconnectedAction(known, rows, phase);
              if (step === undefined) break;
              expect(steps).to.be.lessThan(drifts.length);
              rows = take(step, rows);
            }
            const standing = rows.filter(({ drift }) => (drift & Drift.terminating) === 0);
            if (phase === 'expired' || known.state === 'absent') expect(standing).to.deep.equal([]);
            else expect(standing.every(({ drift }) => (drift & Drift.unknown) !== 0)).to.equal(true);
          },
        ),
      );
    });
  }
});
