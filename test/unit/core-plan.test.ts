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

function object(of: Tunnel, drift = 0, name = names.tunnelObjectName(RESPONDER, of)): ObservedTunnel {
  return { name, uid: `uid of ${name}`, resourceVersion: '100', tunnel: of, drift };
}

const CLOSED = object(WANTED, Drift.terminating | Drift.status | Drift.closed);

describe('nextAction', () => {
  const good = object(WANTED);
  const manual = object(WANTED, Drift.name, 'mine');
  const table: [
    situation: string,
    state: TunnelState,
    objects: ObservedTunnel[],
    action: TunnelAction | undefined,
  ][] = [
    ['unknown state, no object', UNKNOWN, [], undefined],
    ['unknown state, an object', UNKNOWN, [good], undefined],
    ['unknown state, an edited object', UNKNOWN, [object(WANTED, Drift.labels | Drift.status)], undefined],
    ['unknown state, a manually created object', UNKNOWN, [manual], undefined],
    ['absent, no object', ABSENT, [], undefined],
    ['absent, an object', ABSENT, [good], { type: 'delete', object: good }],
    [
      'absent, a terminating object that is shown as connected',
      ABSENT,
      [object(WANTED, Drift.terminating)],
      { type: 'markClosed', object: object(WANTED, Drift.terminating) },
    ],
    [
      'absent, a terminating object that is shown as unknown',
      ABSENT,
      [object(WANTED, Drift.terminating | Drift.status | Drift.unknown)],
      { type: 'markClosed', object: object(WANTED, Drift.terminating | Drift.status | Drift.unknown) },
    ],
    ['absent, a terminating object that is shown as closed', ABSENT, [CLOSED], undefined],
    [
      'present with another identity, a terminating object',
      present(OTHER_TENANT),
      [object(WANTED, Drift.terminating)],
      { type: 'markClosed', object: object(WANTED, Drift.terminating) },
    ],
    [
      'present again, a terminating object that is shown as closed',
      present(WANTED),
      [CLOSED],
      { type: 'patchStatus', object: CLOSED },
    ],
    [
      'absent, a closed terminating and a manually created object',
      ABSENT,
      [CLOSED, manual],
      { type: 'delete', object: manual },
    ],
    ['present, no object', present(WANTED), [], { type: 'create', tunnel: WANTED }],
    ['present, its object', present(WANTED), [good], undefined],
    ['present, an equal object', present({ ...WANTED }), [object({ ...WANTED })], undefined],
    [
      'present, a terminating object',
      present(WANTED),
      [object(WANTED, Drift.terminating)],
      { type: 'create', tunnel: WANTED },
    ],
    [
      'present, an object with another createdAt',
      present(LATER),
      [good],
      { type: 'patch', object: good, tunnel: LATER },
    ],
    [
      'present without createdAt, an object with createdAt',
      present(TIMELESS),
      [good],
      { type: 'patch', object: good, tunnel: TIMELESS },
    ],
    ['present, an object of another tenant', present(OTHER_TENANT), [good], { type: 'delete', object: good }],
    ['present, an object of another node', present(OTHER_NODE), [good], { type: 'delete', object: good }],
    [
      'present, only a manually created object',
      present(WANTED),
      [manual],
      { type: 'delete', object: manual },
    ],
    [
      'present, its object and a manually created one',
      present(WANTED),
      [good, manual],
      { type: 'delete', object: manual },
    ],
    [
      'present, a manually created object and its object',
      present(WANTED),
      [manual, good],
      { type: 'delete', object: manual },
    ],
  ];
  for (const [situation, state, objects, action] of table) {
    it(`${action?.type ?? 'does nothing'}: ${situation}`, () => {
      expect(nextAction(state, objects)).to.deep.equal(action);
    });
  }

  it('fixes labels and createdAt in one patch, then the status', () => {
    const edited = object(WANTED, Drift.labels | Drift.status);
    expect(nextAction(present(LATER), [edited])).to.deep.equal({
      type: 'patch',
      object: edited,
      tunnel: LATER,
    });
    const patched = object(LATER, Drift.status);
    expect(nextAction(present(LATER), [patched])).to.deep.equal({ type: 'patchStatus', object: patched });
  });
});

/** Returns the objects after an action. */
function execute(action: TunnelAction, objects: ObservedTunnel[]): ObservedTunnel[] {
  switch (action.type) {
    case 'create': {
      const created = object(action.tunnel);
      const existing = objects.find(({ name }) => name === created.name);
      if (existing === undefined) return [...objects, created];
      // 409 until the finalizer is removed: only a terminating object can be in the way of a create.
      expect(existing.drift & Drift.terminating).not.to.equal(0);
      return objects.filter((each) => each !== existing);
    }
    case 'delete':
    case 'expire':
      expect(objects).to.include(action.object);
      return objects.filter((each) => each !== action.object);
    case 'patch':
      expect(objects).to.include(action.object);
      return objects.map((each) =>
        each === action.object
          ? {
              ...each,
              drift: each.drift & ~Drift.labels,
              tunnel: { ...each.tunnel, createdAt: action.tunnel.createdAt },
            }
          : each,
      );
    case 'patchStatus':
      expect(objects).to.include(action.object);
      return objects.map((each) =>
        each === action.object
          ? { ...each, drift: each.drift & ~(Drift.status | Drift.unknown | Drift.closed) }
          : each,
      );
    case 'markClosed':
      expect(objects).to.include(action.object);
      return objects.map((each) =>
        each === action.object
          ? { ...each, drift: (each.drift & ~Drift.unknown) | Drift.status | Drift.closed }
          : each,
      );
    case 'markUnknown':
      expect(objects).to.include(action.object);
      return objects.map((each) =>
        each === action.object
          ? { ...each, drift: (each.drift & ~Drift.closed) | Drift.status | Drift.unknown }
          : each,
      );
  }
}

describe('repeated actions', () => {
  const anyTunnel = fc.constantFrom(WANTED, LATER, TIMELESS, OTHER_TENANT, OTHER_NODE);
  const anyObject = fc
    .record({
      of: anyTunnel,
      labels: fc.constantFrom(0, Drift.labels),
      status: fc.constantFrom(0, Drift.status, Drift.status | Drift.unknown),
      terminating: fc.constantFrom(0, 0, Drift.terminating),
      manualName: fc.option(fc.constantFrom('mine', 'yours')),
    })
    .map(({ of, labels, status, terminating, manualName }) =>
      object(
        of,
        labels | status | terminating | (manualName === null ? 0 : Drift.name),
        manualName ?? undefined,
      ),
    );
  const anyObjects = fc.uniqueArray(anyObject, { selector: ({ name }) => name, maxLength: 4 });
  const anyState = fc.oneof(fc.constant(ABSENT), anyTunnel.map(present));

  it('terminate at the desired state, removing one difference each', () => {
    fc.assert(
      fc.property(anyState, anyObjects, (state, initial) => {
        let objects = initial;
        let steps = 0;
        for (
          let action = nextAction(state, objects);
          action !== undefined;
          action = nextAction(state, objects)
        ) {
          objects = execute(action, objects);
          steps += 1;
          expect(steps).to.be.at.most(initial.length + 2);
        }
        const remaining = objects.filter(({ drift }) => (drift & Drift.terminating) === 0);
        expect(remaining.map(({ name, tunnel: of, drift }) => ({ name, of, drift }))).to.deep.equal(
          state.state === 'present'
            ? [{ name: names.tunnelObjectName(RESPONDER, state.tunnel), of: state.tunnel, drift: 0 }]
            : [],
        );
      }),
      { numRuns: 1000 },
    );
  });

  it('never delete the correct object', () => {
    fc.assert(
      fc.property(anyTunnel, anyObjects, (of, others) => {
        const correct = object(of);
        let objects = [
          correct,
          ...others.filter(({ name, drift }) => name !== correct.name && (drift & Drift.terminating) === 0),
        ];
        for (
          let action = nextAction(present(of), objects);
          action !== undefined;
          action = nextAction(present(of), objects)
        ) {
          expect(action.type).to.equal('delete');
          objects = execute(action, objects);
          expect(objects).to.include(correct);
        }
      }),
    );
  });
});

describe('nextDisconnectedAction', () => {
  const marked = (of: Tunnel): ObservedTunnel => object(of, Drift.status | Drift.unknown);

  const table: [
    situation: string,
    phase: DisconnectPhase,
    state: TunnelState,
    objects: ObservedTunnel[],
    action: TunnelAction | undefined,
  ][] = [
    ['leaves objects unchanged in the grace phase', 'grace', UNKNOWN, [object(WANTED)], undefined],
    [
      'still applies the last report in the grace phase',
      'grace',
      ABSENT,
      [object(WANTED)],
      { type: 'delete', object: object(WANTED) },
    ],
    [
      'marks objects of an unknown state',
      'unknown',
      UNKNOWN,
      [object(WANTED)],
      { type: 'markUnknown', object: object(WANTED) },
    ],
    [
      'marks objects of held tunnels',
      'unknown',
      present(WANTED),
      [object(WANTED)],
      { type: 'markUnknown', object: object(WANTED) },
    ],
    ['marks objects only once', 'unknown', present(WANTED), [marked(WANTED)], undefined],
    ['creates no objects after the grace phase', 'unknown', present(WANTED), [], undefined],
    [
      'expires objects of held tunnels',
      'expired',
      present(WANTED),
      [marked(WANTED)],
      { type: 'expire', object: marked(WANTED) },
    ],
    ['ignores terminating objects', 'expired', UNKNOWN, [object(WANTED, Drift.terminating)], undefined],
    [
      'marks a terminating object, whose tunnel may be down',
      'unknown',
      present(WANTED),
      [object(WANTED, Drift.terminating)],
      { type: 'markUnknown', object: object(WANTED, Drift.terminating) },
    ],
    ['does not mark a terminating object of a closed tunnel', 'unknown', UNKNOWN, [CLOSED], undefined],
    ['creates no objects after expiry', 'expired', present(WANTED), [], undefined],
  ];
  for (const [situation, phase, state, objects, action] of table) {
    it(situation, () => {
      expect(nextDisconnectedAction(state, objects, phase)).to.deep.equal(action);
    });
  }

  it('is followed by one status patch per object when the reporter reconnects', () => {
    expect(nextAction(present(WANTED), [marked(WANTED)])).to.deep.equal({
      type: 'patchStatus',
      object: marked(WANTED),
    });
  });

  for (const phase of ['unknown', 'expired'] as const) {
    it(`terminates in the phase ${phase}, removing one difference per action`, () => {
      fc.assert(
        fc.property(
          fc.constantFrom(UNKNOWN, ABSENT, present(WANTED)),
          fc.array(fc.nat(63), { maxLength: 4 }),
          (state, drifts) => {
            let objects = drifts.map((drift, index) => object(WANTED, drift, `object-${index}`));
            for (let steps = 0; ; steps += 1) {
              const action = nextDisconnectedAction(state, objects, phase);
              if (action === undefined) break;
              expect(steps).to.be.lessThan(2 * drifts.length);
              objects = execute(action, objects);
            }
            const remaining = objects.filter(({ drift }) => (drift & Drift.terminating) === 0);
            if (phase === 'expired' || state.state === 'absent') expect(remaining).to.deep.equal([]);
            else
              expect(remaining.every(({ drift }) => (drift & (Drift.unknown | Drift.closed)) !== 0)).to.equal(
                true,
              );
          },
        ),
      );
    });
  }
});
