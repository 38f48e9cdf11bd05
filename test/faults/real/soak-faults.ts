/** The faults of the soak test: those of the table that last at most half a minute, and some of its own. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../../../src/simulate/random.ts';
import type { RunningReplica } from '../../support/replicas.ts';
import { apiHalfOpen, apiOutages, apiRejects } from './api-outages.ts';
import { applyChangesOver } from './changes.ts';
import { manualEdits } from './manual-edits.ts';
import {
  commonMetrics,
  waitForConvergence,
  countInterleavedWriters,
  waitUntilOwned,
  snapshot,
  objectWriteCount,
  waitUntilServed,
  writesSince,
} from './convergence.ts';
import { bothCrdsDeleted, tunnelCrdDeleted } from './crd-and-namespace-faults.ts';
import { rejectedByPolicy } from './rejected-objects.ts';
import { allReportersDropped, reporterFaults } from './reporter-faults.ts';
import type { FaultScenario } from './scenario.ts';
import type { FaultFixture } from './fault-fixture.ts';
import { etcdCompacted, etcdRestored } from './etcd-faults.ts';

const DEADLINE_MS = 90_000;
/** The timeout of a list. */
const HALF_OPEN_TIMEOUT_MS = 30_000;

/** Injects a fault into a replica other than the watched one, while tunnels change. */
function createReplicaScenario(
  name: string,
  about: string,
  inject: (fixture: FaultFixture, replica: RunningReplica) => Promise<void>,
): FaultScenario {
  return {
    name,
    description: about,
    async run(fixture, scale, setStatus) {
      // The first replica is watched for growth during the whole soak.
      const others = fixture.replicas.running.slice(1);
      const chosen = others[fixture.random.below(others.length)];
      if (chosen === undefined) throw new Error('there is no second replica');
      const before = await snapshot(fixture);
      setStatus(chosen.account);
      const changing = applyChangesOver(fixture, scale.changes, 5000);
      const startedMs = performance.now();
      await inject(fixture, chosen);
      await waitUntilOwned(fixture, DEADLINE_MS);
      const ownedMs = performance.now() - startedMs;
      const { changes } = await changing;
      const after = await waitForConvergence(fixture, before, DEADLINE_MS);
      await waitUntilServed(fixture, DEADLINE_MS);
      const writes = objectWriteCount(await writesSince(fixture, before));
      const needed = changes.create + changes.patch + changes.delete;
      return [
        ...commonMetrics(fixture, after, 10),
        { name: 'reporters served', value: ownedMs / 1000, unit: 's', atMost: 20 },
        { name: 'object writes', value: writes, atMost: needed },
        {
          name: 'reporters with interleaving writers',
          value: await countInterleavedWriters(fixture, before, after),
          atMost: 0,
        },
      ];
    },
  };
}

async function endAndReplace(
  fixture: FaultFixture,
  replica: RunningReplica,
  how: 'SIGTERM' | 'SIGKILL',
): Promise<void> {
  await fixture.replicas.end(replica, how);
  await fixture.startReplica();
}

/** All faults of the soak test. */
export const SOAK_FAULTS: readonly FaultScenario[] = [
  ...apiOutages,
  {
    ...apiHalfOpen,
    async run(fixture, scale, setStatus) {
      const metrics = await apiHalfOpen.run(fixture, scale, setStatus);
      setStatus('waiting for half-open calls to time out');
      await delay(HALF_OPEN_TIMEOUT_MS);
      return metrics;
    },
  },
  apiRejects,
  etcdCompacted,
  etcdRestored,
  allReportersDropped,
  manualEdits,
  tunnelCrdDeleted,
  bothCrdsDeleted,
  ...rejectedByPolicy,
  createReplicaScenario('replica-killed', 'a replica killed -9 and replaced', (fixture, replica) =>
    endAndReplace(fixture, replica, 'SIGKILL'),
  ),
  createReplicaScenario('replica-terminated', 'a replica SIGTERMed and replaced', (fixture, replica) =>
    endAndReplace(fixture, replica, 'SIGTERM'),
  ),
  createReplicaScenario(
    'replica-stopped',
    'a replica stopped (SIGSTOP) for 8 s',
    async (_fixture, replica) => {
      replica.process.signal('SIGSTOP');
      await delay(8000);
      replica.process.signal('SIGCONT');
    },
  ),
  ...reporterFaults,
];

/** Returns the faults in random order, each once before any is repeated. */
export function shuffledFaults(random: Random): () => FaultScenario {
  let remaining: FaultScenario[] = [];
  return () => {
    if (remaining.length === 0) remaining = [...SOAK_FAULTS];
    const [chosen] = remaining.splice(random.below(remaining.length), 1);
    if (chosen === undefined) throw new Error('there is no fault');
    return chosen;
  };
}
