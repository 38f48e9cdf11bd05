/** Crashes of the operator: of one of several replicas, and of the only one at random points. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Fleet } from '../../../src/simulate/fleet.ts';
import { countTunnelObjects } from '../../support/expected-objects.ts';
import type { RunningReplica } from '../../support/replicas.ts';
import { applyChangesOver, waitForAcks, WRITES_PER_CHANGE } from './changes.ts';
import {
  commonMetrics,
  countCrashes,
  countObjectWrites,
  DEADLINE_MS,
  interleavingMetric,
  measureRecovery,
  snapshot,
  waitForConvergence,
  waitUntil,
  waitUntilOwned,
  waitUntilServed,
  type Snapshot,
} from './convergence.ts';
import type { FaultFixture } from './fault-fixture.ts';
import type { FaultScenario, Scale } from './scenario.ts';

const KILLS = 4;
/** After the first write; writing thousands of objects takes longer. */
const KILL_WITHIN_MS = 1000;

interface ReplicaFault {
  readonly name: string;
  readonly description: string;
  choose(fixture: FaultFixture): Promise<RunningReplica> | RunningReplica;
  readonly changesMs: number;
  inject(fixture: FaultFixture, replica: RunningReplica): Promise<void>;
  /** Maximum seconds until every reporter is owned by a running replica. */
  readonly owned: number;
  /** Maximum seconds until another replica is the leader. Default: the leader does not change. */
  readonly newLeader?: number;
  /** After the objects match, before the reporters are in sync. */
  recover?(fixture: FaultFixture): Promise<unknown>;
}

/** Injects a fault into one replica while tunnels change. */
export function createReplicaScenario(fault: ReplicaFault): FaultScenario {
  const { name, description } = fault;
  return {
    name,
    description,
    async run(fixture, scale, setStatus) {
      const replica = await fault.choose(fixture);
      const before = await snapshot(fixture);
      const changing = applyChangesOver(fixture, scale.changes, fault.changesMs);
      await delay(1000);
      setStatus(replica.account);
      const startedMs = performance.now();
      const injected = fault.inject(fixture, replica);
      const leading =
        fault.newLeader === undefined ? 0 : waitForAnotherLeader(fixture, replica.process.replica);
      await waitUntilOwned(fixture);
      const ownedMs = performance.now() - startedMs;
      const [changes, leadingMs] = await Promise.all([changing, leading, injected]);
      await waitForAcks(fixture);
      const after = await waitForConvergence(fixture, before);
      await fault.recover?.(fixture);
      await waitUntilServed(fixture);
      const writes = await countObjectWrites(fixture, before);
      return [
        ...commonMetrics(fixture, after, 10),
        { name: 'reporters served', value: ownedMs / 1000, unit: 's', atMost: fault.owned },
        ...(fault.newLeader === undefined
          ? []
          : [{ name: 'new leader', value: leadingMs / 1000, unit: 's', atMost: fault.newLeader }]),
        { name: 'object writes', value: writes, atMost: WRITES_PER_CHANGE * changes },
        await interleavingMetric(fixture, before, after),
      ];
    },
  };
}

/** Ends the leader of three replicas, which serves a third of the streams. */
const leaderEnded = {
  choose: ({ replicas }: FaultFixture) => replicas.waitForLeader(DEADLINE_MS),
  changesMs: 10_000,
  owned: 10,
  recover: (fixture: FaultFixture) => fixture.startReplica(),
};
/** The other replicas wait for its Lease to expire. */
export const replicaKilled = createReplicaScenario({
  ...leaderEnded,
  name: 'replica-killed',
  description: 'leader of three replicas ended by SIGKILL',
  inject: ({ replicas }, leader) => replicas.end(leader, 'SIGKILL'),
  newLeader: 17,
});
/** It releases its Leases. */
export const replicaTerminated = createReplicaScenario({
  ...leaderEnded,
  name: 'replica-terminated',
  description: 'leader of three replicas ended by SIGTERM',
  inject: ({ replicas }, leader) => replicas.end(leader, 'SIGTERM'),
  newLeader: 2,
});

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
    const changes = await applyChangesOver(fixture, scale.changes, 20_000);
    await waitForAcks(fixture);
    stopped.process.signal('SIGCONT');
    setStatus('continued');
    const { durationMs } = await waitForConvergence(fixture, before);
    // Its unread reports are older than what others have written by now.
    await delay(5000);
    fixture.replicas.restoreBalancer();
    const writes = WRITES_PER_CHANGE * changes;
    const metrics = await measureRecovery(fixture, before, { converged: 10, writes, singleWriter: true });
    return [{ name: 'converged at first', value: durationMs / 1000, unit: 's', atMost: 10 }, ...metrics];
  },
};

/** Kills the only operator repeatedly while it writes the objects of one full push. */
export const killedInPush: FaultScenario = {
  name: 'operator-killed-in-push',
  description: `the only operator killed -9 ${KILLS} times at random points of a full push`,
  async run(fixture, scale, setStatus) {
    const before = await snapshot(fixture);
    const fleet = await addFleet(fixture, scale, 'pushing');
    const midway = await killRepeatedly(fixture, before, scale.pushedTunnels, setStatus);
    await fleet.settled();
    const after = await waitForConvergence(fixture, before);
    const created = await countObjectWrites(fixture, before, 'create');
    return [
      ...commonMetrics(fixture, after, 30),
      { name: 'kills during the writes', value: midway, atLeast: 1 },
      { name: 'objects created twice', value: created - scale.pushedTunnels, atMost: 0 },
    ];
  },
};

/** Kills the only operator repeatedly while it deletes stale objects. */
export const killedInDeletion: FaultScenario = {
  name: 'operator-killed-in-deletion',
  description: `the only operator killed -9 ${KILLS} times at random points of a deletion of stale objects`,
  async run(fixture, scale, setStatus) {
    const fleet = await addFleet(fixture, scale, 'collected');
    await fleet.settled();
    await waitForConvergence(fixture, undefined);
    const before = await snapshot(fixture);
    const [reporter] = fleet.reporters;
    const names = [...(reporter?.expectedTunnels().keys() ?? [])];
    const removed = names.slice(0, Math.floor(names.length * 0.9));
    for (const name of removed) reporter?.disconnectTunnel(name);
    const midway = await killRepeatedly(fixture, before, -removed.length, setStatus);
    await fleet.settled();
    const after = await waitForConvergence(fixture, before);
    return [
      ...commonMetrics(fixture, after, 30),
      { name: 'kills during the writes', value: midway, atLeast: 1 },
    ];
  },
};

function addFleet(fixture: FaultFixture, scale: Scale, reporterCluster: string): Promise<Fleet> {
  return fixture.addFleet({ reporters: 1, tunnels: scale.pushedTunnels, reporterCluster });
}

/**
 * Kills and restarts the only operator while it changes the number of objects. Returns how often it was killed when it
 * had written some of them.
 */
async function killRepeatedly(
  fixture: FaultFixture,
  { objects }: Snapshot,
  expectedChange: number,
  setStatus: (what: string) => void,
): Promise<number> {
  let midway = 0;
  for (let kill = 1; kill <= KILLS; kill += 1) {
    await killAtRandom(fixture);
    const count = await countTunnelObjects(fixture.controlPlane.request, fixture.namespace);
    const done = (count - objects.size) / expectedChange;
    if (done > 0 && done < 1) midway += 1;
    setStatus(`killed ${kill} times, ${Math.round(100 * done)} % of the writes are done`);
    await fixture.startReplica();
    if (done >= 1) break;
  }
  return midway;
}

/** Kills the only operator some time after its first object write; before that, it lists and claims for seconds. */
async function killAtRandom(fixture: FaultFixture): Promise<void> {
  const [only] = fixture.replicas.running;
  if (only === undefined) throw new Error('there is no operator to kill');
  const { request } = fixture.controlPlane;
  const before = await countTunnelObjects(request, fixture.namespace);
  const hasWritten = async (): Promise<boolean> =>
    (await countTunnelObjects(request, fixture.namespace)) !== before;
  await waitUntil('the operator writes', hasWritten, 25);
  await delay(fixture.random.below(KILL_WITHIN_MS));
  if (countCrashes([only]) > 0) throw new Error(`the operator crashed: ${only.process.stderr}`);
  await fixture.replicas.end(only, 'SIGKILL');
}

/** Returns the time in ms. */
function waitForAnotherLeader({ replicas }: FaultFixture, former: string): Promise<number> {
  const isReplaced = async (): Promise<boolean> => !['', former].includes(await replicas.leader());
  return waitUntil('another leader', isReplaced, 25);
}
