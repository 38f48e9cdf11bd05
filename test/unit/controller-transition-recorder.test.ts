import { expect } from 'chai';
import { parsePolicy } from '../../src/core/policy.ts';
import { ALLOW_ALL_POLICIES, createPolicySet, type PolicySet } from '../../src/core/policy-set.ts';
import type { Tunnel } from '../../src/core/tunnel.ts';
import type { RecordedTransition } from '../../src/controller/transition-recorder.ts';
import { createHarness } from '../support/controller-harness.ts';
import { apiFailure } from '../support/memory-api.ts';
import { createMultiReplicaHarness, type MultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { delta, fullPush, names, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const HOUR_MS = 3_600_000;
/** The harness starts a minute after midnight. */
const T1 = tunnel('node-1', { createdAt: '2026-11-22T23:01:00Z' });
const T2 = tunnel('node-2', { createdAt: '2026-11-22T23:01:00Z' });
const RECONNECTED = { ...T1, createdAt: '2026-11-23T00:00:30Z' };
const OTHER_TENANT = { ...T1, tenantID: 'beta' };
const EDITED_STATUS = {
  state: 'Connected',
  conditions: [
    { type: 'Ready', status: 'False', reason: 'Edited', lastTransitionTime: '2026-11-23T00:00:00Z' },
  ],
};
const REPORTER_OBJECT = names.reporterObjectName(RESPONDER);

/** Allows every peer to report tunnels of these tenants. */
function tenants(...allowed: string[]): PolicySet {
  const { rules = [] } = parsePolicy({
    rules: [{ peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: allowed }],
  });
  return createPolicySet(rules);
}

describe('the tunnel log', () => {
  let world: MultiReplicaHarness;
  let replica: ReturnType<MultiReplicaHarness['replica']>;

  beforeEach(() => {
    world = createMultiReplicaHarness();
    replica = world.replica('a');
  });
  afterEach(async () => {
    world.stop();
    await world.settle();
  });

  const objectName = (of: Tunnel): string => names.tunnelObjectName(RESPONDER, of);

  /** Connects the reporter with tunnels, and lets its claim become confirmed fresh. */
  async function connected(...tunnels: Tunnel[]): Promise<void> {
    replica.connect(RESPONDER, fullPush(...tunnels));
    await world.advance(2000);
    replica.report(RESPONDER, delta([]));
    await world.settle();
  }

  async function report(...reports: Parameters<typeof replica.report>[1][]): Promise<void> {
    for (const one of reports) replica.report(RESPONDER, one);
    await world.advance(1000);
  }

  async function policies(set: PolicySet): Promise<void> {
    replica.authorizer.onPoliciesChanged(set);
    await world.advance(1000);
  }

  /** Returns the transitions since the last call, as `tunnel reason state`. */
  function takeTransitions(): string[] {
    return world.transitions
      .splice(0)
      .map(({ tunnel: { name }, reason, state }) => `${name} ${reason} ${state}`);
  }

  const cases: readonly (readonly [string, readonly Tunnel[], () => Promise<unknown>, readonly string[]])[] =
    [
      ['a removal by a delta', [T1, T2], () => report(delta([], ['node-1'])), ['node-1 Removed Closed']],
      ['a full push without it', [T1, T2], () => report(fullPush(T2)), ['node-1 AbsentFromFullPush Closed']],
      [
        'a removal by a delta, also if a full push without it follows before the write',
        [T1, T2],
        () => report(delta([], ['node-1']), fullPush(T2)),
        ['node-1 Removed Closed'],
      ],
      ['another createdAt', [T1], () => report(fullPush(RECONNECTED)), ['node-1 Replaced Connected']],
      [
        'a drop and a reconnect within one report',
        [T1],
        () => report(delta([RECONNECTED], ['node-1'])),
        ['node-1 Replaced Connected'],
      ],
      [
        'another identity, as the end of one tunnel and the start of another',
        [T1],
        () => report(fullPush(OTHER_TENANT)),
        ['node-1 Replaced Closed', 'node-1 Replaced Connected'],
      ],
      [
        'a drop, and later a new connection',
        [T1],
        async () => {
          await report(delta([], ['node-1']));
          await report(delta([RECONNECTED]));
        },
        ['node-1 Removed Closed', 'node-1 Connected Connected'],
      ],
      [
        'a policy that denies it, and one that allows it again',
        [T1],
        async () => {
          await policies(tenants('beta'));
          await policies(tenants('acme'));
        },
        ['node-1 PolicyDenied Closed', 'node-1 PolicyAllowed Connected'],
      ],
      [
        'a tunnel that comes up while it is denied only once it is allowed',
        [],
        async () => {
          await policies(tenants('beta'));
          await report(delta([T1]));
          await policies(ALLOW_ALL_POLICIES);
        },
        ['node-1 PolicyAllowed Connected'],
      ],
      [
        'nothing for a tunnel that comes and goes while it is denied',
        [],
        async () => {
          await policies(tenants('beta'));
          await report(delta([T1]));
          await report(delta([], ['node-1']));
          await policies(ALLOW_ALL_POLICIES);
        },
        [],
      ],
      [
        'a new connection as Connected although the name was denied before',
        [],
        async () => {
          await policies(tenants('beta'));
          await report(delta([T1]));
          await report(delta([], ['node-1']));
          await policies(ALLOW_ALL_POLICIES);
          await report(delta([T1]));
        },
        ['node-1 Connected Connected'],
      ],
      [
        'a disconnected reporter that returns',
        [T1],
        async () => {
          replica.disconnect(RESPONDER);
          await world.advance(33_000);
          replica.connect(RESPONDER, fullPush(T1));
          await world.advance(1000);
        },
        ['node-1 MarkedUnknown Unknown', 'node-1 Recovered Connected'],
      ],
      [
        'a disconnected reporter that returns with a tunnel that reconnected',
        [T1],
        async () => {
          replica.disconnect(RESPONDER);
          await world.advance(33_000);
          replica.connect(RESPONDER, fullPush(RECONNECTED));
          await world.advance(1000);
        },
        ['node-1 MarkedUnknown Unknown', 'node-1 Replaced Unknown', 'node-1 Recovered Connected'],
      ],
      [
        'a disconnected reporter that does not return',
        [T1],
        async () => {
          replica.disconnect(RESPONDER);
          await world.advance(310_000);
        },
        ['node-1 MarkedUnknown Unknown', 'node-1 Expired Closed'],
      ],
      [
        'a reporter object that was deleted while its reporter was disconnected',
        [T1],
        async () => {
          replica.disconnect(RESPONDER);
          await world.advance(1000);
          replica.state.leads = true;
          world.reporterApi.deleteManually(REPORTER_OBJECT);
          await world.advance(90_000);
        },
        ['node-1 MarkedUnknown Unknown', 'node-1 ReporterDeleted Closed'],
      ],
      [
        'an object that another client deleted, once it is created again',
        [T1],
        async () => {
          world.tunnelApi.deleteManually(objectName(T1));
          await world.advance(10_000);
        },
        ['node-1 Recovered Connected'],
      ],
      [
        'an object with a finalizer once, when its status is set to Closed',
        [T1],
        async () => {
          world.tunnelApi.addFinalizer(objectName(T1));
          await world.settle();
          await report(delta([], ['node-1']));
          world.tunnelApi.removeFinalizer(objectName(T1));
          await world.advance(1000);
        },
        ['node-1 Removed Closed'],
      ],
      [
        'nothing for edits of labels, status and createdAt by another client, which are reverted',
        [T1],
        async () => {
          const name = objectName(T1);
          world.tunnelApi.editManually(name, { labels: { 'reverse-tunnel.io/node': 'x' } });
          await world.advance(10_000);
          world.tunnelApi.editManually(name, { status: EDITED_STATUS });
          await world.advance(10_000);
          world.tunnelApi.editManually(name, { createdAt: '2026-01-01T00:00:00Z' });
          await world.advance(10_000);
          expect(world.tunnelApi.stored.get(name)?.spec.createdAt).to.equal(T1.createdAt);
        },
        [],
      ],
      [
        'nothing for heartbeats, the same full push and a reconnect',
        [T1],
        async () => {
          await report(delta([]), fullPush(T1));
          replica.disconnect(RESPONDER);
          await world.advance(5000);
          replica.connect(RESPONDER, fullPush(T1));
          await world.advance(60_000);
        },
        [],
      ],
    ];
  for (const [situation, tunnels, act, expected] of cases) {
    it(`contains ${situation}`, async () => {
      await connected(...tunnels);
      expect(takeTransitions()).to.deep.equal(tunnels.map(({ name }) => `${name} Connected Connected`));
      await act();
      expect(takeTransitions()).to.deep.equal(expected);
    });
  }

  it('contains how long a tunnel was up, at the latest until its reporter disconnected', async () => {
    await connected(T1, T2);
    await report(delta([], ['node-1']));
    replica.disconnect(RESPONDER);
    await world.advance(310_000);
    const [, , removed, unknown, expired] = world.transitions;
    // Created an hour before the start of the harness; each step takes seconds.
    expect(removed?.upMs).to.be.within(HOUR_MS, HOUR_MS + 5000);
    expect(unknown?.upMs).to.be.within(HOUR_MS, HOUR_MS + 10_000);
    expect(expired?.upMs).to.be.within(HOUR_MS, HOUR_MS + 10_000);
    expect(world.transitions.slice(0, 2).map(({ upMs }) => upMs)).to.deep.equal([undefined, undefined]);
  });

  it('omits how long a tunnel was up if its createdAt is missing or in the future', async () => {
    await connected({ ...T1, createdAt: undefined }, { ...T2, createdAt: '2026-11-24T00:00:00Z' });
    await report(fullPush());
    expect(world.transitions.map(({ reason, upMs }) => [reason, upMs])).to.deep.equal([
      ['Connected', undefined],
      ['Connected', undefined],
      ['AbsentFromFullPush', undefined],
      ['AbsentFromFullPush', undefined],
    ]);
  });

  it('numbers the transitions of each reporter, and each replica starts from 1', async () => {
    const other = world.replica('b');
    await connected(T1, T2);
    replica.connect(OTHER_RESPONDER, fullPush(T1));
    await world.advance(1000);
    await report(delta([], ['node-2']));
    replica.disconnect(RESPONDER);
    other.connect(RESPONDER, fullPush(T1));
    await world.advance(2000);
    other.report(RESPONDER, delta([], ['node-1']));
    await world.advance(2000);
    other.disconnect(RESPONDER);
    replica.connect(RESPONDER, fullPush(T2));
    await world.advance(2000);
    const sequences = world.transitions.map(
      ({ replica: by, reporter, sequence, reason }) => `${by} ${reporter.id} ${sequence} ${reason}`,
    );
    expect(sequences).to.deep.equal([
      'a responder-0 1 Connected',
      'a responder-0 2 Connected',
      'a responder-1 1 Connected',
      'a responder-0 3 Removed',
      'b responder-0 1 Removed',
      'a responder-0 4 Connected',
    ]);
  });

  it('contains a transition once if the response to its write is lost', async () => {
    await connected(T2);
    takeTransitions();
    for (const [change, expected] of [
      [delta([T1]), 'node-1 Connected Connected'],
      [delta([RECONNECTED], ['node-1']), 'node-1 Replaced Connected'],
      [delta([], ['node-1']), 'node-1 Removed Closed'],
    ] as const) {
      replica.state.dropsResponses = true;
      replica.report(RESPONDER, change);
      await world.settle();
      replica.state.dropsResponses = false;
      await world.advance(60_000);
      expect(takeTransitions()).to.deep.equal([expected]);
    }
  });

  it('contains the reason of a change that arrives while the previous write is in flight', async () => {
    await connected();
    const added = delta([T1]);
    const removed = delta([], ['node-1']);
    const reconnected = delta([RECONNECTED], ['node-1']);
    for (const [inFlight, arriving, lines] of [
      [added, removed, ['node-1 Connected Connected', 'node-1 Removed Closed']],
      [added, reconnected, ['node-1 Connected Connected', 'node-1 Replaced Connected']],
      [removed, added, ['node-1 Removed Closed', 'node-1 Connected Connected']],
      [reconnected, removed, ['node-1 Replaced Connected', 'node-1 Removed Closed']],
    ] as const) {
      replica.hold();
      replica.report(RESPONDER, inFlight);
      await world.settle();
      replica.report(RESPONDER, arriving);
      await world.settle();
      replica.release();
      await world.advance(1000);
      expect(takeTransitions()).to.deep.equal(lines);
    }
  });

  it('contains the delayed change of a flapping tunnel, also if another client edits its object meanwhile', async () => {
    await connected(T1);
    const createdAt = (change: number): string => `2026-11-23T00:00:${10 + change}Z`;
    for (let change = 0; change < 10; change += 1)
      await report(delta([{ ...T1, createdAt: createdAt(change) }], ['node-1']));
    await world.advance(31_000);
    takeTransitions();
    await report(delta([{ ...T1, createdAt: createdAt(20) }], ['node-1']));
    expect(takeTransitions(), 'the write is delayed').to.deep.equal([]);
    world.tunnelApi.editManually(objectName(T1), { labels: { 'reverse-tunnel.io/node': 'x' } });
    await world.advance(61_000);
    expect(world.tunnelApi.stored.get(objectName(T1))?.spec.createdAt).to.equal(createdAt(20));
    expect(takeTransitions()).to.deep.equal(['node-1 Replaced Connected']);
  });

  it('contains no transition whose write was not executed', async () => {
    await connected(T2);
    takeTransitions();
    const create = world.tunnelApi.create.bind(world.tunnelApi);
    world.tunnelApi.create = () => Promise.reject(apiFailure('unavailable'));
    await report(delta([T1]));
    await report(delta([], ['node-1']));
    world.tunnelApi.create = create;
    await world.advance(60_000);
    expect(takeTransitions()).to.deep.equal([]);
  });

  it('contains AbsentFromFullPush for what dropped while no replica ran', async () => {
    await connected(T1, T2);
    replica.crash();
    takeTransitions();
    replica = world.replica('b');
    await connected(T2);
    await world.advance(60_000);
    expect(takeTransitions()).to.deep.equal(['node-1 AbsentFromFullPush Closed']);
  });

  it('contains Removed for what a delta removed before the first list, up to 100,000 names', async () => {
    for (const [batches, expected] of [
      [1, 'Removed'],
      [100, 'AbsentFromFullPush'],
    ] as const) {
      const before = createHarness();
      await before.start();
      before.report(RESPONDER, fullPush(T1));
      await before.settle();
      before.workers.stop();
      const reasons: string[] = [];
      const transitionSink = { write: ({ reason }: RecordedTransition) => void reasons.push(reason) };
      const harness = createHarness({ api: before.api, transitionSink });
      harness.report(RESPONDER, fullPush(T1));
      for (let batch = 0; batch < batches; batch += 1)
        harness.report(
          RESPONDER,
          delta(
            [],
            Array.from({ length: 1000 }, (_, index) => `x-${batch}-${index}`),
          ),
        );
      harness.report(RESPONDER, delta([], [T1.name]));
      await harness.start();
      expect(reasons).to.deep.equal([expected]);
    }
  });
});
