/** Crashes of the operator: of one of three replicas, and of the only one at random points. */
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../support/eventually.ts';
import { poll } from '../../support/operator-process.ts';
import { countTunnelObjects } from '../../support/expected-objects.ts';
import { applyChangesOver } from './changes.ts';
import {
  commonMetrics,
  waitForConvergence,
  countCrashes,
  countInterleavedWriters,
  waitUntilOwned,
  snapshot,
  objectWriteCount,
  waitUntilServed,
  writesSince,
} from './convergence.ts';
import type { FaultScenario } from './scenario.ts';
import type { FaultFixture } from './fault-fixture.ts';

const DEADLINE_MS = 90_000;
/** Number of kills during one push and during one deletion. */
const KILLS = 4;
/** After the first write; writing thousands of objects takes longer. */
const KILL_WITHIN_MS = 1000;
const MAX_LEADER_HANDOVER_SECONDS = { SIGKILL: 17, SIGTERM: 2 };

/** Ends the leader of three replicas, which serves a third of the streams, while tunnels change. */
function createReplicaScenario(how: 'SIGKILL' | 'SIGTERM'): FaultScenario {
  return {
    name: how === 'SIGKILL' ? 'replica-killed' : 'replica-terminated',
    description: `leader of three replicas ended by ${how}`,
    async run(fixture, scale, setStatus) {
      const leader = await fixture.replicas.waitForLeader(DEADLINE_MS);
      const before = await snapshot(fixture);
      const changing = applyChangesOver(fixture, scale.changes, 10_000);
      await delay(1000);
      const startedMs = performance.now();
      setStatus(how);
      const ended = fixture.replicas.end(leader, how);
      const leading = waitForAnotherLeader(fixture, leader.process.replica).then(
        () => performance.now() - startedMs,
      );
      await waitUntilOwned(fixture, DEADLINE_MS);
      const ownedMs = performance.now() - startedMs;
      const [{ changes }, leadingMs] = await Promise.all([changing, leading, ended]);
      const after = await waitForConvergence(fixture, before, DEADLINE_MS);
      const writes = await writesSince(fixture, before);
      await fixture.startReplica();
      await waitUntilServed(fixture, DEADLINE_MS);
      const needed = changes.create + changes.patch + changes.delete;
      return [
        ...commonMetrics(fixture, after, 10),
        { name: 'reporters served', value: ownedMs / 1000, unit: 's', atMost: 10 },
        {
          name: 'new leader',
          value: leadingMs / 1000,
          unit: 's',
          atMost: MAX_LEADER_HANDOVER_SECONDS[how],
        },
        { name: 'object writes', value: objectWriteCount(writes), atMost: needed },
        {
          name: 'reporters with interleaving writers',
          value: await countInterleavedWriters(fixture, before, after),
          atMost: 0,
        },
      ];
    },
  };
}

/** The other replicas wait for its Lease to expire. */
export const replicaKilled = createReplicaScenario('SIGKILL');
/** It releases its Leases. */
export const replicaTerminated = createReplicaScenario('SIGTERM');

/** One of three replicas is stopped for 20 s, longer than its Lease lasts, and continues without knowing it. */
export const replicaStopped: FaultScenario = {
  name: 'replica-stopped',
  description: 'one of three replicas stopped (SIGSTOP) for 20 s, its reporters reconnect elsewhere',
  async run(fixture, scale, setStatus) {
    const [stopped] = fixture.replicas.running;
    if (stopped === undefined) throw new Error('there is no replica');
    const before = await snapshot(fixture);
    setStatus('stopped');
    stopped.process.signal('SIGSTOP');
    fixture.replicas.removeFromBalancer(stopped);
    fixture.reporterProxy.halfOpen('clients');
    const { changes } = await applyChangesOver(fixture, scale.changes, 20_000);
    stopped.process.signal('SIGCONT');
    setStatus('continued');
    const after = await waitForConvergence(fixture, before, DEADLINE_MS);
    // Its unread reports are older than what others have written by now.
    await delay(5000);
    const later = await waitForConvergence(fixture, before, DEADLINE_MS);
    fixture.replicas.restoreBalancer();
    await waitUntilServed(fixture, DEADLINE_MS);
    const writes = await writesSince(fixture, before);
    const needed = changes.create + changes.patch + changes.delete;
    return [
      ...commonMetrics(fixture, { ...later, durationMs: after.durationMs }, 10),
      { name: 'object writes', value: objectWriteCount(writes), atMost: needed },
      {
        name: 'reporters with interleaving writers',
        value: await countInterleavedWriters(fixture, before, after),
        atMost: 0,
      },
    ];
  },
};

/** Kills the only operator repeatedly while it writes the objects of one full push. */
export const killedInPush: FaultScenario = {
  name: 'operator-killed-in-push',
  description: `the only operator killed -9 ${KILLS} times at random points of a full push`,
  async run(fixture, scale, setStatus) {
    const { request } = fixture.controlPlane;
    const before = await snapshot(fixture);
    const fleet = await fixture.addFleet({
      reporters: 1,
      tunnels: scale.pushedTunnels,
      reporterCluster: 'pushing',
    });
    const total = before.objects.size + scale.pushedTunnels;
    let midway = 0;
    let count = before.objects.size;
    for (let kill = 1; kill <= KILLS && count < total; kill += 1) {
      await killAtRandom(fixture);
      count = await countTunnelObjects(request, fixture.namespace);
      if (count > before.objects.size && count < total) midway += 1;
      setStatus(
        `killed ${kill} times, ${count - before.objects.size} of ${scale.pushedTunnels} objects exist`,
      );
      await fixture.startReplica();
    }
    await fleet.settled();
    const after = await waitForConvergence(fixture, before, DEADLINE_MS);
    return [
      ...commonMetrics(fixture, after, 30),
      { name: 'kills during the writes', value: midway, atLeast: 1 },
      {
        name: 'objects created twice',
        value: (await writesSince(fixture, before)).create - scale.pushedTunnels,
        atMost: 0,
      },
    ];
  },
};

/**
 * Kills the only operator repeatedly while it deletes stale objects. Must run after `killedInPush`, whose tunnels
 * it removes.
 */
export const killedInDeletion: FaultScenario = {
  name: 'operator-killed-in-deletion',
  description: `the only operator killed -9 ${KILLS} times at random points of a deletion of stale objects`,
  async run(fixture, scale, setStatus) {
    const { request } = fixture.controlPlane;
    const fleet = await fixture.addFleet({
      reporters: 1,
      tunnels: scale.pushedTunnels,
      reporterCluster: 'collected',
    });
    await fleet.settled();
    const none = await snapshot(fixture);
    await waitForConvergence(fixture, none, DEADLINE_MS);
    const before = await snapshot(fixture);
    const [reporter] = fleet.reporters;
    const names = [...(reporter?.expectedTunnels().keys() ?? [])];
    const gone = names.slice(0, Math.floor(names.length * 0.9));
    for (const name of gone) reporter?.disconnectTunnel(name);
    let midway = 0;
    let remaining = gone.length;
    for (let kill = 1; kill <= KILLS && remaining > 0; kill += 1) {
      await killAtRandom(fixture);
      remaining =
        (await countTunnelObjects(request, fixture.namespace)) - (before.objects.size - gone.length);
      if (remaining > 0 && remaining < gone.length) midway += 1;
      setStatus(`killed ${kill} times, ${remaining} of ${gone.length} objects still exist`);
      await fixture.startReplica();
    }
    await fleet.settled();
    const after = await waitForConvergence(fixture, before, DEADLINE_MS);
    return [
      ...commonMetrics(fixture, after, 30),
      { name: 'kills during the writes', value: midway, atLeast: 1 },
    ];
  },
};

/** Kills the only operator some time after its first object write; before that, it lists and claims for seconds. */
async function killAtRandom(fixture: FaultFixture): Promise<void> {
  const [only] = fixture.replicas.running;
  if (only === undefined) throw new Error('there is no operator to kill');
  const { request } = fixture.controlPlane;
  const before = await countTunnelObjects(request, fixture.namespace);
  await poll(DEADLINE_MS, async () =>
    (await countTunnelObjects(request, fixture.namespace)) === before ? undefined : true,
  );
  await delay(fixture.random.below(KILL_WITHIN_MS));
  if (countCrashes([only]) > 0) throw new Error(`the operator crashed: ${only.process.stderr}`);
  await fixture.replicas.end(only, 'SIGKILL');
}

async function waitForAnotherLeader({ replicas }: FaultFixture, former: string): Promise<void> {
  const isReplaced = async (): Promise<boolean> => !['', former].includes(await replicas.leader());
  await eventually('another leader', isReplaced, DEADLINE_MS, 25);
}
