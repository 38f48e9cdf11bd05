import { expect } from 'chai';

import { ALLOW_ALL } from '../../src/core/grant.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { createHarness, type ControllerHarness } from '../support/controller-harness.ts';
import { createMultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { delta, fullPush, names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);
const MINUTE = 60_000;

/** Takes a tunnel down and up again, `times` times, at `intervalMs`; it is down at the end with an odd number of changes. */
async function flap(
  world: ControllerHarness,
  tunnels: readonly string[],
  { changes, intervalMs }: { changes: number; intervalMs: number },
): Promise<void> {
  for (let change = 0; change < changes; change += 1) {
    const createdAt = `2026-11-23T06:00:00.${String(change).padStart(6, '0')}Z`;
    const up = tunnels.map((name) => tunnel(name, { createdAt }));
    world.intake.accept(
      RESPONDER,
      { ...(change % 2 === 0 ? delta([], tunnels) : delta(up)), rejected: { count: 0, first: [] } },
      world.clock.monotonicMs(),
    );
    await world.advance(intervalMs);
  }
}

async function withTunnels(count: number): Promise<{ world: ControllerHarness; tunnels: string[] }> {
  const world = createHarness();
  await world.start();
  const tunnels = Array.from({ length: count }, (_, index) => `node-${index}`);
  world.report(RESPONDER, fullPush(...tunnels.map((name) => tunnel(name))));
  await world.settle();
  world.api.calls.splice(0);
  return { world, tunnels };
}

describe('a tunnel that comes and goes', () => {
  it('is written at once up to its sixth drop', async () => {
    const { world, tunnels } = await withTunnels(1);
    await flap(world, tunnels, { changes: 12, intervalMs: 100 });
    expect(world.api.calls.map(({ verb }) => verb)).to.deep.equal(
      Array.from({ length: 6 }, () => ['delete', 'create']).flat(),
    );
    expect(world.events).to.deep.equal([]);
  });

  it('is written at most every 30 s from its seventh drop on', async () => {
    const { world, tunnels } = await withTunnels(1);
    await flap(world, tunnels, { changes: 12, intervalMs: 100 });
    world.api.calls.splice(0);
    await flap(world, tunnels, { changes: 10 * 60 * 5, intervalMs: 100 });
    expect(world.api.calls.length).to.be.within(8, 11);
    expect((await world.metrics.flappingWritesSuppressed.get()).values[0]?.value).to.be.greaterThan(1000);
  });

  it('has the object of its latest state 30 s after the last write', async () => {
    for (const changes of [40, 41]) {
      const { world, tunnels } = await withTunnels(1);
      await flap(world, tunnels, { changes, intervalMs: 100 });
      await world.advance(31_000);
      expect(world.api.stored.size).to.equal(changes % 2 === 0 ? 1 : 0);
      const state = world.ledger.tunnelState(KEY, 'node-0');
      const [object] = world.api.stored.values();
      if (state.state === 'present') expect(object?.spec.createdAt).to.equal(state.tunnel.createdAt);
    }
  });

  it('needs two intervals for the two writes of another identity', async () => {
    const { world, tunnels } = await withTunnels(1);
    await flap(world, tunnels, { changes: 14, intervalMs: 100 });
    await world.advance(31_000);
    world.api.calls.splice(0);
    world.report(RESPONDER, delta([tunnel('node-0', { tenantID: 'beta' })], ['node-0']));
    await world.advance(31_000);
    expect(world.api.calls.map(({ verb }) => verb)).to.deep.equal(['delete']);
    await world.advance(30_000);
    expect(world.api.calls.map(({ verb }) => verb)).to.deep.equal(['delete', 'create']);
  });

  it('does not delay the writes of other tunnels', async () => {
    const { world, tunnels } = await withTunnels(2);
    await flap(world, tunnels.slice(0, 1), { changes: 21, intervalMs: 100 });
    world.api.calls.splice(0);
    world.report(RESPONDER, delta([tunnel('other')], ['node-1']));
    await world.settle();
    expect(world.api.calls.map(({ verb }) => verb).toSorted()).to.deep.equal(['create', 'delete']);
  });

  it('is written at once again after 10 minutes', async () => {
    const { world, tunnels } = await withTunnels(1);
    await flap(world, tunnels, { changes: 20, intervalMs: 100 });
    await world.advance(10 * MINUTE);
    world.api.calls.splice(0);
    await flap(world, tunnels, { changes: 2, intervalMs: 100 });
    expect(world.api.calls.map(({ verb }) => verb)).to.deep.equal(['delete', 'create']);
  });

  it('loses its object at once if the policies deny it', async () => {
    const { world, tunnels } = await withTunnels(1);
    await flap(world, tunnels, { changes: 14, intervalMs: 100 });
    await world.advance(31_000);
    await flap(world, tunnels, { changes: 2, intervalMs: 100 });
    expect(world.api.stored.size).to.equal(1);
    world.enqueuer.onGrantChanged(KEY, { ...ALLOW_ALL, permits: () => false });
    await world.settle();
    expect(world.api.stored.size).to.equal(0);
  });

  it('is announced once, with its name', async () => {
    const { world, tunnels } = await withTunnels(1);
    await flap(world, tunnels, { changes: 30, intervalMs: 100 });
    expect(world.events).to.have.length(1);
    expect(world.events[0]).to.match(
      /^flapping: 1 tunnel has gone down more than 6 times .*; worst: "node-0"$/,
    );
  });

  it('leaves nothing in memory when its reporter is gone', async () => {
    const { world, tunnels } = await withTunnels(1);
    await flap(world, tunnels, { changes: 30, intervalMs: 100 });
    const entry = world.registry.entry(KEY);
    expect([entry?.pendingWrites.limitedCount, world.flapping.trackedCount]).to.deep.equal([1, 1]);
    if (entry !== undefined) world.registry.remove(entry);
    expect(world.flapping.trackedCount).to.equal(0);
  });

  it('costs at most 40 writes per second together with all others that flap', async () => {
    const { world, tunnels } = await withTunnels(300);
    await flap(world, tunnels, { changes: 14, intervalMs: 100 });
    world.api.calls.splice(0);
    const perSecond: number[] = [];
    for (let second = 0; second < 40; second += 1) {
      await flap(world, tunnels, { changes: 5, intervalMs: 200 });
      perSecond.push(world.api.calls.splice(0).length);
    }
    expect(Math.max(...perSecond)).to.be.at.most(40);
    expect(perSecond.reduce((sum, count) => sum + count)).to.be.within(200, 700);
    await world.advance(2 * MINUTE);
    const present = tunnels.filter((name) => world.ledger.tunnel(KEY, name) !== undefined);
    expect(world.api.stored.size).to.equal(present.length);
  });
});

describe('the status of a reporter with a flapping tunnel', () => {
  it('is not announced by a replica whose stream is superseded', async () => {
    const harness = createMultiReplicaHarness();
    const a = harness.replica('a');
    const b = harness.replica('b');
    a.connect(RESPONDER, fullPush(tunnel('node-1')));
    await harness.advance(1000);
    b.connect(RESPONDER, fullPush(tunnel('node-1')));
    await harness.settle();
    expect(a.registry.entry(KEY)?.ownership.isSuperseded).to.equal(true);
    for (const replica of [a, b])
      for (let drop = 0; drop < 8; drop += 1) {
        replica.report(RESPONDER, delta([tunnel('node-1')]));
        replica.report(RESPONDER, delta([], ['node-1']));
      }
    expect(harness.events.filter((event) => event.includes('flapping'))).to.deep.equal([
      'b flapping responder-0',
    ]);
    harness.stop();
  });

  it('shows it until 10 minutes after its last drops, and is in sync meanwhile', async () => {
    const harness = createMultiReplicaHarness();
    const a = harness.replica('a');
    a.connect(RESPONDER, fullPush(tunnel('node-1'), tunnel('node-2')));
    await harness.advance(1000);
    for (let change = 0; change < 30; change += 1) {
      a.report(RESPONDER, change % 2 === 0 ? delta([], ['node-1']) : delta([tunnel('node-1')]));
      await harness.advance(1000);
    }
    expect(harness.condition(RESPONDER, 'Flapping')).to.equal('True TunnelsFlapping');
    expect(harness.condition(RESPONDER, 'Synced')).to.equal('True UpToDate');
    const { status } = harness.reporterApi.stored.get(names.reporterObjectName(RESPONDER)) ?? {};
    expect(status?.conditions?.find(({ type }) => type === 'Flapping')?.message).to.contain(
      'worst: "node-1"',
    );
    a.report(RESPONDER, delta([], ['node-1']));
    await harness.advance(20_000);
    expect(harness.condition(RESPONDER, 'Synced'), 'the write is delayed').to.equal('True UpToDate');
    await harness.advance(11 * MINUTE);
    expect(harness.condition(RESPONDER, 'Flapping')).to.equal('none');
    expect(harness.tunnelNames(RESPONDER)).to.deep.equal(['node-2']);
    harness.stop();
  });

  it('becomes in sync after a reconnect although a delayed write is always pending', async () => {
    const harness = createMultiReplicaHarness();
    const a = harness.replica('a');
    const flapFor = async (seconds: number): Promise<void> => {
      for (let change = 0; change < seconds; change += 1) {
        a.report(RESPONDER, change % 2 === 0 ? delta([], ['node-1']) : delta([tunnel('node-1')]));
        await harness.advance(1000);
      }
    };
    a.connect(RESPONDER, fullPush(tunnel('node-1'), tunnel('node-2')));
    await flapFor(31);
    a.connect(RESPONDER, fullPush(tunnel('node-2')));
    await flapFor(5);
    expect(harness.condition(RESPONDER, 'Synced')).to.equal('True UpToDate');
    harness.stop();
  });

  it('costs at most one write per 30 s', async () => {
    const harness = createMultiReplicaHarness();
    const a = harness.replica('a');
    a.connect(RESPONDER, fullPush(tunnel('node-1'), tunnel('node-2')));
    await harness.advance(1000);
    const version = (): string =>
      harness.reporterApi.stored.get(names.reporterObjectName(RESPONDER))?.metadata.resourceVersion ?? '';
    const versions = new Set<string>();
    for (let change = 0; change < 600; change += 1) {
      a.report(RESPONDER, change % 2 === 0 ? delta([], ['node-1']) : delta([tunnel('node-1')]));
      await harness.advance(1000);
      if (change >= 60) versions.add(version());
    }
    expect(versions.size).to.be.at.most(540 / 30 + 1);
    harness.stop();
  });
});
