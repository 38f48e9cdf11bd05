import { expect } from 'chai';

import { parsePolicy } from '../../src/core/policy.ts';
import { ALLOW_ALL_POLICIES, createPolicySet, type PolicySet } from '../../src/core/policy-set.ts';
import { MAX_IMMEDIATE_REMOVALS, type RemovalHoldRule } from '../../src/core/removal-hold.ts';
import type { TunnelObject } from '../../src/core/tunnel-object.ts';
import { reporterKey, type Tunnel } from '../../src/core/tunnel.ts';
import { createHarness, type ControllerHarness } from '../support/controller-harness.ts';
import { createMultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { delta, fullPush, names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);
const RULE: RemovalHoldRule = {
  holdMs: 30_000,
  thresholdPercent: 50,
  maxImmediate: MAX_IMMEDIATE_REMOVALS,
};
const LATER = '2026-11-23T06:00:00Z';

function tunnels(from: number, to: number, overrides: Partial<Tunnel> = {}): Tunnel[] {
  return Array.from({ length: to - from + 1 }, (_, index) => tunnel(`node-${from + index}`, overrides));
}

const ALL = tunnels(1, 100);

/** Allows every peer to report tunnels of one tenant. */
function allowTenant(tenant: string): PolicySet {
  const { rules = [] } = parsePolicy({
    rules: [{ peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: [tenant] }],
  });
  return createPolicySet(rules);
}

/** Counts the calls since the last time, by verb. */
function verbs({ api }: ControllerHarness): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { verb } of api.calls.splice(0)) counts[verb] = (counts[verb] ?? 0) + 1;
  return counts;
}

/** Everything of the objects that a user sees, except createdAt, by name. */
function identities({ api }: ControllerHarness): string[] {
  return [...api.stored.values()]
    .map(({ metadata, spec, status }: TunnelObject) =>
      JSON.stringify([metadata.uid, metadata.labels, metadata.annotations, spec.tunnelName, status]),
    )
    .toSorted();
}

async function withObjects(of = ALL, removalHold = RULE): Promise<ControllerHarness> {
  const world = createHarness({ removalHold });
  await world.start();
  world.report(RESPONDER, fullPush(...of));
  await world.settle();
  expect(verbs(world)).to.deep.equal({ create: of.length });
  return world;
}

describe('an Envoy that restarts', () => {
  it('costs one patch per tunnel that returns within the hold, and keeps its object', async () => {
    const world = await withObjects();
    const before = identities(world);
    world.report(RESPONDER, fullPush());
    await world.advance(10_000);
    expect(verbs(world)).to.deep.equal({});
    world.report(RESPONDER, delta(tunnels(1, 100, { createdAt: LATER })));
    await world.advance(60_000);
    expect(verbs(world)).to.deep.equal({ patch: 100 });
    expect(identities(world)).to.deep.equal(before);
    expect([...world.api.stored.values()].every(({ spec }) => spec.createdAt === LATER)).to.equal(true);
  });

  it('costs no write for a tunnel that was connected throughout', async () => {
    const world = await withObjects();
    world.report(RESPONDER, fullPush());
    world.report(RESPONDER, fullPush(...ALL));
    await world.advance(60_000);
    expect(verbs(world)).to.deep.equal({});
  });

  it('costs exactly the deletes of the tunnels that do not return, when the hold ends', async () => {
    const world = await withObjects();
    world.report(RESPONDER, fullPush());
    await world.advance(5000);
    world.report(RESPONDER, delta(tunnels(1, 50)));
    // The harness has let the bursts of both reports end, which takes 30 ms each.
    await world.advance(24_999 - 60);
    expect(verbs(world)).to.deep.equal({});
    await world.advance(101);
    expect(verbs(world)).to.deep.equal({ delete: 50 });
    const left = [...world.api.stored.values()].map(({ spec }) => spec.tunnelName);
    expect(left.toSorted()).to.deep.equal(
      tunnels(1, 50)
        .map(({ name }) => name)
        .toSorted(),
    );
  });

  it('replaces the object of a tunnel that returns with another identity', async () => {
    const world = await withObjects();
    world.report(RESPONDER, fullPush());
    world.report(RESPONDER, delta([tunnel('node-1', { tenantID: 'beta' })]));
    await world.settle();
    expect(verbs(world)).to.deep.equal({ delete: 1, create: 1 });
  });

  it('does not delay a removal by name, also of a held object', async () => {
    const world = await withObjects();
    world.report(RESPONDER, fullPush(tunnel('node-1')));
    world.report(RESPONDER, delta([], ['node-1', 'node-2']));
    await world.settle();
    expect(verbs(world)).to.deep.equal({ delete: 2 });
  });

  it('does not delay the writes of other tunnels', async () => {
    const world = await withObjects();
    world.report(RESPONDER, fullPush(...tunnels(200, 210)));
    await world.settle();
    expect(verbs(world)).to.deep.equal({ create: 11 });
  });

  it('has its objects deleted immediately without a hold, below the threshold, and if it has few', async () => {
    for (const [removalHold, kept, deleted] of [
      [{ ...RULE, holdMs: 0 }, [], 100],
      [{ ...RULE, thresholdPercent: 100 }, [], 100],
      [RULE, tunnels(51, 100), 50],
    ] as const) {
      const world = await withObjects(ALL, removalHold);
      world.report(RESPONDER, fullPush(...kept));
      await world.settle();
      expect(verbs(world)).to.deep.equal({ delete: deleted });
    }
    const world = await withObjects(tunnels(1, 10));
    world.report(RESPONDER, fullPush());
    await world.settle();
    expect(verbs(world)).to.deep.equal({ delete: 10 });
  });

  it('keeps an object that is being created when the full push arrives', async () => {
    const world = await withObjects();
    const { promise, resolve } = Promise.withResolvers<void>();
    const create = world.api.create.bind(world.api);
    world.api.create = async (manifest) => {
      const stored = await create(manifest);
      await promise;
      return stored;
    };
    world.report(RESPONDER, delta([tunnel('node-101')]));
    await world.settle();
    world.report(RESPONDER, fullPush());
    resolve();
    await world.advance(20_000);
    expect(verbs(world)).to.deep.equal({ create: 1 });
    await world.advance(11_000);
    expect(verbs(world)).to.deep.equal({ delete: 101 });
  });

  it('has a held object that was deleted manually recreated when its tunnel returns, and not before', async () => {
    const world = await withObjects();
    world.report(RESPONDER, fullPush());
    world.api.deleteManually(names.tunnelObjectName(RESPONDER, tunnel('node-1')));
    await world.advance(5000);
    expect(world.api.stored.size).to.equal(99);
    world.report(RESPONDER, delta([tunnel('node-1')]));
    await world.settle();
    expect(world.api.stored.size).to.equal(100);
  });

  it('is shown in a log line, an Event and metrics', async () => {
    const world = await withObjects();
    world.report(RESPONDER, fullPush());
    expect(world.events).to.have.length(1);
    expect(world.events[0]).to.match(
      /^removalsHeld: The last full push lacks 100 of 100 ReverseTunnel objects; they are kept until \d{4}-.*Z$/,
    );
    expect(world.logged.at(-1)).to.include({ held: 100, objects: 100 });
    expect((await world.metrics.removalHolds.get()).values[0]?.value).to.equal(1);
    expect(world.ledger.heldCount).to.equal(100);
  });
});

describe('holds of removals that start again and again', () => {
  it('are logged once per minute and reporter', async () => {
    const world = await withObjects();
    const held = (): unknown[] =>
      world.logged.filter(({ msg }) => typeof msg === 'string' && msg.includes('removal is held'));
    for (let push = 0; push < 20; push += 1) {
      world.report(RESPONDER, fullPush());
      await world.advance(1000);
      world.report(RESPONDER, fullPush(...ALL));
      await world.advance(1000);
    }
    expect(held()).to.have.length(1);
    await world.advance(60_000);
    world.report(RESPONDER, fullPush());
    expect(held()).to.have.length(2);
    expect(held()[1]).to.include({ suppressed: 19, held: 100 });
  });
});

describe('a hold of removals after a restart of the operator', () => {
  it('starts with the first full push, also if that arrives before the objects are listed', async () => {
    for (const isEarly of [true, false]) {
      const before = await withObjects();
      before.workers.stop();
      const world = createHarness({ api: before.api, removalHold: RULE });
      verbs(world);
      if (isEarly) world.report(RESPONDER, fullPush());
      await world.start();
      if (!isEarly) world.report(RESPONDER, fullPush());
      await world.advance(29_000);
      expect(verbs(world), String(isEarly)).to.deep.equal({});
      await world.advance(1100);
      expect(verbs(world), String(isEarly)).to.deep.equal({ delete: 100 });
    }
  });
});

describe('a hold of removals with several replicas', () => {
  const HELD = tunnels(1, 20);

  it('does not keep the object of a flapping tunnel that a policy denies meanwhile', async () => {
    const harness = createMultiReplicaHarness(RULE);
    const a = harness.replica('a');
    const flapping = tunnel('node-1');
    a.connect(RESPONDER, fullPush(...HELD));
    await harness.advance(1000);
    for (let drops = 0; drops < 7; drops += 1) {
      a.report(RESPONDER, delta([], [flapping.name]));
      await harness.advance(100);
      a.report(RESPONDER, delta([flapping]));
      await harness.advance(100);
    }
    expect(harness.tunnelNames(RESPONDER)).to.include(flapping.name);
    a.connect(RESPONDER, fullPush());
    await harness.advance(1000);
    a.report(RESPONDER, delta([]));
    a.authorizer.onPoliciesChanged(allowTenant('beta'));
    await harness.advance(2000);
    expect(harness.tunnelNames(RESPONDER)).to.deep.equal([]);
    harness.stop();
  });

  it('does not keep objects that a policy denies meanwhile, which are logged as PolicyDenied', async () => {
    const harness = createMultiReplicaHarness(RULE);
    const a = harness.replica('a');
    a.connect(RESPONDER, fullPush(...HELD, ...tunnels(21, 40, { tenantID: 'beta' })));
    await harness.advance(1000);
    a.authorizer.onPoliciesChanged(ALLOW_ALL_POLICIES);
    a.connect(RESPONDER, fullPush());
    await harness.advance(5000);
    a.report(RESPONDER, delta([]));
    harness.transitions.splice(0);
    a.authorizer.onPoliciesChanged(allowTenant('beta'));
    await harness.advance(2000);
    expect(harness.tunnelNames(RESPONDER)).to.have.members(tunnels(21, 40).map(({ name }) => name));
    expect(harness.transitions.map(({ reason }) => reason)).to.deep.equal(HELD.map(() => 'PolicyDenied'));
    harness.transitions.splice(0);
    await harness.advance(30_000);
    expect(harness.tunnelNames(RESPONDER)).to.deep.equal([]);
    expect(new Set(harness.transitions.map(({ reason }) => reason))).to.deep.equal(
      new Set(['AbsentFromFullPush']),
    );
    harness.stop();
  });

  it('is shown as the reason of Synced, with the number of objects and the time', async () => {
    const harness = createMultiReplicaHarness(RULE);
    const a = harness.replica('a');
    a.connect(RESPONDER, fullPush(...HELD));
    await harness.advance(1000);
    expect(harness.condition(RESPONDER, 'Synced')).to.equal('True UpToDate');
    a.connect(RESPONDER, fullPush());
    await harness.advance(100);
    expect(harness.condition(RESPONDER, 'Synced')).to.equal('False RemovalsHeld');
    expect(harness.condition(RESPONDER, 'Ready')).to.equal('False NotSynced');
    const { status } = harness.reporterApi.stored.get(names.reporterObjectName(RESPONDER)) ?? {};
    const until = new Date(harness.clock.wallMs() + 29_900).toISOString().slice(0, 16);
    expect(status?.conditions?.find(({ type }) => type === 'Synced')?.message).to.contain(
      `20 ReverseTunnel objects that the last full push lacks are kept until ${until}`,
    );
    a.report(RESPONDER, delta(HELD));
    await harness.advance(11_000);
    expect(harness.condition(RESPONDER, 'Synced')).to.equal('True UpToDate');
    expect(harness.deletions).to.deep.equal([]);
    harness.stop();
  });

  it('is not continued by a new owner, which starts one with its own first full push', async () => {
    const harness = createMultiReplicaHarness(RULE);
    const a = harness.replica('a');
    const b = harness.replica('b');
    a.connect(RESPONDER, fullPush(...HELD));
    await harness.advance(1000);
    a.connect(RESPONDER, fullPush());
    await harness.advance(20_000);
    a.crash();
    b.connect(RESPONDER, fullPush());
    await harness.advance(29_000);
    b.report(RESPONDER, delta([]));
    expect(harness.tunnelNames(RESPONDER)).to.have.length(20);
    await harness.advance(2000);
    expect(harness.tunnelNames(RESPONDER)).to.deep.equal([]);
    expect(harness.condition(RESPONDER, 'Synced')).to.equal('True UpToDate');
    harness.stop();
  });

  it('ends without a delete as long as the stream of the new owner is not confirmed fresh', async () => {
    const harness = createMultiReplicaHarness({ ...RULE, holdMs: 5000 });
    const a = harness.replica('a');
    const b = harness.replica('b');
    a.connect(RESPONDER, fullPush(...HELD));
    await harness.advance(1000);
    a.crash();
    // No further report is read: this full push may have been unread in an abandoned stream.
    b.connect(RESPONDER, fullPush());
    await harness.advance(40_000);
    expect(harness.tunnelNames(RESPONDER)).to.have.length(20);
    b.report(RESPONDER, delta([]));
    await harness.advance(1000);
    expect(harness.tunnelNames(RESPONDER)).to.deep.equal([]);
    harness.stop();
  });

  it('continues for a disconnected reporter, and its objects are deleted when it ends', async () => {
    const harness = createMultiReplicaHarness({ ...RULE, holdMs: 60_000 });
    const a = harness.replica('a');
    a.connect(RESPONDER, fullPush(...HELD));
    await harness.advance(2000);
    a.connect(RESPONDER, fullPush(tunnel('node-1')));
    await harness.advance(2000);
    a.disconnect(RESPONDER);
    await harness.advance(40_000);
    const states = [...harness.tunnelApi.stored.values()].map(({ status }) => status?.state);
    expect(new Set(states)).to.deep.equal(new Set(['Unknown']));
    expect(states).to.have.length(20);
    await harness.advance(20_000);
    expect(harness.tunnelNames(RESPONDER)).to.deep.equal(['node-1']);
    harness.stop();
  });

  it('is forgotten by a replica that loses the reporter', async () => {
    const harness = createMultiReplicaHarness(RULE);
    const a = harness.replica('a');
    const b = harness.replica('b');
    a.connect(RESPONDER, fullPush(...HELD));
    await harness.advance(1000);
    a.connect(RESPONDER, fullPush());
    await harness.advance(1000);
    a.disconnect(RESPONDER);
    b.connect(RESPONDER, fullPush(...HELD));
    await harness.advance(60_000);
    expect(a.ledger.heldRemovals(KEY)).to.equal(undefined);
    expect(harness.deletions).to.deep.equal([]);
    harness.stop();
  });
});
