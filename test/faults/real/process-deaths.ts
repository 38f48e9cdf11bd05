/** The operator dies: one of three, politely or not, and the only one at any point of what it does. */
import { setTimeout as delay } from 'node:timers/promises';
import { poll } from '../../support/operator-process.ts';
import type { RunningReplica } from '../../support/replicas.ts';
import { countRows } from '../../support/truth.ts';
import { changeFor } from './changes.ts';
import {
  common,
  converged,
  crashes,
  interleaved,
  owned,
  photograph,
  rowWritesOf,
  served,
  writesSince,
} from './judge.ts';
import type { FaultScenario } from './scenario.ts';
import type { Stage } from './stage.ts';

const DEADLINE_MS = 90_000;
/** Kills in one push, and in one collection. */
const KILLS = 4;
/** After the first of its writes: thousands of rows take longer. */
const KILL_WITHIN_MS = 1000;
const LEADS_AGAIN_SECONDS = { SIGKILL: 17, SIGTERM: 2 };

/** The leader of three, with its share of the streams, while tunnels come and go. */
function replicaLost(how: 'SIGKILL' | 'SIGTERM'): FaultScenario {
  return {
    name: how === 'SIGKILL' ? 'replica-killed' : 'replica-terminated',
    about: `the leader of three replicas ends by ${how}`,
    async run(stage, sizes, doing) {
      const leader = await leaderOf(stage);
      const before = await photograph(stage);
      const changing = changeFor(stage, sizes.changes, 10_000);
      await delay(1000);
      const startedMs = performance.now();
      doing(how);
      const ended = stage.replicas.end(leader, how);
      const leading = ledBySomebodyElse(stage, leader.process.replica).then(
        () => performance.now() - startedMs,
      );
      await owned(stage, DEADLINE_MS);
      const ownedMs = performance.now() - startedMs;
      const [{ changes }, leadingMs] = await Promise.all([changing, leading, ended]);
      const after = await converged(stage, before, DEADLINE_MS);
      const writes = await writesSince(stage, before);
      await stage.startReplica();
      await served(stage, DEADLINE_MS);
      const needed = changes.create + changes.patch + changes.delete;
      return [
        ...common(stage, after, 10),
        { what: 'reporters served', value: ownedMs / 1000, unit: 's', atMost: 10 },
        { what: 'another leads', value: leadingMs / 1000, unit: 's', atMost: LEADS_AGAIN_SECONDS[how] },
        { what: 'row writes', value: rowWritesOf(writes), atMost: needed },
        { what: 'owners whose writes interleave', value: await interleaved(stage, before, after), atMost: 0 },
      ];
    },
  };
}

/** Others wait for its Lease. */
export const replicaKilled = replicaLost('SIGKILL');
/** It gives its Leases up. */
export const replicaTerminated = replicaLost('SIGTERM');

/** One of three is stopped for 20 s, longer than its Lease lasts, and goes on without knowing of it. */
export const replicaStopped: FaultScenario = {
  name: 'replica-stopped',
  about: 'one of three replicas stopped (SIGSTOP) for 20 s, its reporters go elsewhere',
  async run(stage, sizes, doing) {
    const [frozen] = stage.replicas.running;
    if (frozen === undefined) throw new Error('there is no replica');
    const before = await photograph(stage);
    doing('stopped');
    frozen.process.signal('SIGSTOP');
    stage.replicas.takeOut(frozen);
    stage.reporterWay.halfOpen('clients');
    const { changes } = await changeFor(stage, sizes.changes, 20_000);
    frozen.process.signal('SIGCONT');
    doing('goes on');
    const after = await converged(stage, before, DEADLINE_MS);
    // What it finds unread is older than what others have written by now.
    await delay(5000);
    const later = await converged(stage, before, DEADLINE_MS);
    stage.replicas.putIn();
    await served(stage, DEADLINE_MS);
    const writes = await writesSince(stage, before);
    const needed = changes.create + changes.patch + changes.delete;
    return [
      ...common(stage, { ...later, tookMs: after.tookMs }, 10),
      { what: 'row writes', value: rowWritesOf(writes), atMost: needed },
      { what: 'owners whose writes interleave', value: await interleaved(stage, before, after), atMost: 0 },
    ];
  },
};

/** The only operator is killed again and again while it writes what one full push brought. */
export const killedInPush: FaultScenario = {
  name: 'operator-killed-in-push',
  about: `the only operator killed -9 ${KILLS} times at random points of a full push`,
  async run(stage, sizes, doing) {
    const { request } = stage.controlPlane;
    const before = await photograph(stage);
    const fleet = await stage.addFleet({ reporters: 1, tunnels: sizes.pushed, reporterCluster: 'pushing' });
    const whole = before.rows.size + sizes.pushed;
    let midway = 0;
    let count = before.rows.size;
    for (let kill = 1; kill <= KILLS && count < whole; kill += 1) {
      await killAtRandom(stage);
      count = await countRows(request, stage.namespace);
      if (count > before.rows.size && count < whole) midway += 1;
      doing(`killed ${kill} times, ${count - before.rows.size} of ${sizes.pushed} rows are there`);
      await stage.startReplica();
    }
    await fleet.settled();
    const after = await converged(stage, before, DEADLINE_MS);
    return [
      ...common(stage, after, 30),
      { what: 'kills that hit midway', value: midway, atLeast: 1 },
      { what: 'rows made twice', value: (await writesSince(stage, before)).create - sizes.pushed, atMost: 0 },
    ];
  },
};

/** The same while it deletes what a full push no longer has. To be played after `killedInPush`: it takes its tunnels away. */
export const killedInCollection: FaultScenario = {
  name: 'operator-killed-in-collection',
  about: `the only operator killed -9 ${KILLS} times at random points of a collection`,
  async run(stage, sizes, doing) {
    const { request } = stage.controlPlane;
    const fleet = await stage.addFleet({ reporters: 1, tunnels: sizes.pushed, reporterCluster: 'collected' });
    await fleet.settled();
    const none = await photograph(stage);
    await converged(stage, none, DEADLINE_MS);
    const before = await photograph(stage);
    const [reporter] = fleet.reporters;
    const names = [...(reporter?.truth().keys() ?? [])];
    const gone = names.slice(0, Math.floor(names.length * 0.9));
    for (const name of gone) reporter?.disconnectTunnel(name);
    let midway = 0;
    let left = gone.length;
    for (let kill = 1; kill <= KILLS && left > 0; kill += 1) {
      await killAtRandom(stage);
      left = (await countRows(request, stage.namespace)) - (before.rows.size - gone.length);
      if (left > 0 && left < gone.length) midway += 1;
      doing(`killed ${kill} times, ${left} of ${gone.length} rows are still there`);
      await stage.startReplica();
    }
    await fleet.settled();
    const after = await converged(stage, before, DEADLINE_MS);
    return [...common(stage, after, 30), { what: 'kills that hit midway', value: midway, atLeast: 1 }];
  },
};

/** Kills the only operator some time after it has begun to write rows: until then it lists and claims, for seconds. */
async function killAtRandom(stage: Stage): Promise<void> {
  const [only] = stage.replicas.running;
  if (only === undefined) throw new Error('there is no operator to kill');
  const { request } = stage.controlPlane;
  const before = await countRows(request, stage.namespace);
  await poll(DEADLINE_MS, async () =>
    (await countRows(request, stage.namespace)) === before ? undefined : true,
  );
  await delay(stage.random.below(KILL_WITHIN_MS));
  if (crashes([only]) > 0) throw new Error(`the operator crashed: ${only.process.stderr}`);
  await stage.replicas.end(only, 'SIGKILL');
}

/** The replica that leads; waits for one. */
export async function leaderOf({ replicas }: Stage): Promise<RunningReplica> {
  const untilMs = performance.now() + DEADLINE_MS;
  for (;;) {
    const holder = await replicas.leader();
    const leader = replicas.running.find(({ process }) => process.replica === holder);
    if (leader !== undefined) return leader;
    if (performance.now() > untilMs) throw new Error('nobody leads');
    await delay(100);
  }
}

async function ledBySomebodyElse({ replicas }: Stage, former: string): Promise<void> {
  const untilMs = performance.now() + DEADLINE_MS;
  for (;;) {
    const holder = await replicas.leader();
    if (holder !== '' && holder !== former) return;
    if (performance.now() > untilMs) throw new Error('nobody else leads');
    await delay(25);
  }
}
