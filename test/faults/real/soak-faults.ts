/** The faults of the soak: those of the table that are over within half a minute, and some that only a soak plays. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../../../src/simulate/random.ts';
import type { RunningReplica } from '../../support/replicas.ts';
import { apiHalfOpen, apiOutages, apiRefuses } from './api-outages.ts';
import { changeFor } from './changes.ts';
import { hands } from './hands.ts';
import {
  common,
  converged,
  interleaved,
  owned,
  photograph,
  rowWritesOf,
  served,
  writesSince,
} from './judge.ts';
import { bothCrdsDeleted, rowCrdDeleted } from './kinds-and-namespaces.ts';
import { refusedByPolicy } from './refused-rows.ts';
import { allDrop, reporterFaults } from './reporter-losses.ts';
import type { FaultScenario } from './scenario.ts';
import type { Stage } from './stage.ts';
import { etcdCompacted, etcdRestored } from './store-faults.ts';

const DEADLINE_MS = 90_000;
/** As long as a list waits. */
const ECHO_MS = 30_000;

/** What happens to a replica that is not the one whose growth is watched, while tunnels change. */
function replicaHarmed(
  name: string,
  about: string,
  harm: (stage: Stage, replica: RunningReplica) => Promise<void>,
): FaultScenario {
  return {
    name,
    about,
    async run(stage, sizes, doing) {
      // The first one is watched over the whole soak.
      const others = stage.replicas.running.slice(1);
      const chosen = others[stage.random.below(others.length)];
      if (chosen === undefined) throw new Error('there is no second replica');
      const before = await photograph(stage);
      doing(chosen.account);
      const changing = changeFor(stage, sizes.changes, 5000);
      const startedMs = performance.now();
      await harm(stage, chosen);
      await owned(stage, DEADLINE_MS);
      const ownedMs = performance.now() - startedMs;
      const { changes } = await changing;
      const after = await converged(stage, before, DEADLINE_MS);
      await served(stage, DEADLINE_MS);
      const writes = rowWritesOf(await writesSince(stage, before));
      const needed = changes.create + changes.patch + changes.delete;
      return [
        ...common(stage, after, 10),
        { what: 'reporters served', value: ownedMs / 1000, unit: 's', atMost: 20 },
        { what: 'row writes', value: writes, atMost: needed },
        { what: 'owners whose writes interleave', value: await interleaved(stage, before, after), atMost: 0 },
      ];
    },
  };
}

async function ended(stage: Stage, replica: RunningReplica, how: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  await stage.replicas.end(replica, how);
  await stage.startReplica();
}

/** Every fault that a soak plays. */
export const SOAK_FAULTS: readonly FaultScenario[] = [
  ...apiOutages,
  {
    ...apiHalfOpen,
    async run(stage, sizes, doing) {
      const figures = await apiHalfOpen.run(stage, sizes, doing);
      doing('its echo dies away');
      await delay(ECHO_MS);
      return figures;
    },
  },
  apiRefuses,
  etcdCompacted,
  etcdRestored,
  allDrop,
  hands,
  rowCrdDeleted,
  bothCrdsDeleted,
  ...refusedByPolicy,
  replicaHarmed('replica-killed', 'a replica killed -9 and replaced', (stage, one) =>
    ended(stage, one, 'SIGKILL'),
  ),
  replicaHarmed('replica-terminated', 'a replica SIGTERMed and replaced', (stage, one) =>
    ended(stage, one, 'SIGTERM'),
  ),
  replicaHarmed('replica-stopped', 'a replica stopped (SIGSTOP) for 8 s', async (_stage, one) => {
    one.process.signal('SIGSTOP');
    await delay(8000);
    one.process.signal('SIGCONT');
  }),
  ...reporterFaults,
];

/** Gives faults in a random order, each once before any comes again. */
export function shuffled(random: Random): () => FaultScenario {
  let left: FaultScenario[] = [];
  return () => {
    if (left.length === 0) left = [...SOAK_FAULTS];
    const [chosen] = left.splice(random.below(left.length), 1);
    if (chosen === undefined) throw new Error('there is no fault');
    return chosen;
  };
}
