/** The faults of the soak test: those of the table that last at most half a minute, and some of its own. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../../../src/simulate/random.ts';
import { apiHalfOpen, apiOutages, apiRejects } from './api-outages.ts';
import { bothCrdsDeleted, tunnelCrdDeleted } from './crd-and-namespace-faults.ts';
import { etcdCompacted, etcdRestored } from './etcd-faults.ts';
import type { FaultFixture } from './fault-fixture.ts';
import { manualEdits } from './manual-edits.ts';
import { createReplicaScenario } from './process-crashes.ts';
import { rejectedByPolicy } from './rejected-objects.ts';
import { allReportersDropped, reporterFaults } from './reporter-faults.ts';
import type { FaultScenario } from './scenario.ts';

/** The timeout of a list. */
const HALF_OPEN_TIMEOUT_MS = 30_000;

/** A fault of another replica than the first one, which is watched for growth during the whole soak. */
const otherReplica = {
  choose({ replicas, random }: FaultFixture) {
    const others = replicas.running.slice(1);
    const chosen = others[random.below(others.length)];
    if (chosen === undefined) throw new Error('there is no second replica');
    return chosen;
  },
  changesMs: 5000,
  owned: 20,
};
const replicaEnded = (how: 'SIGTERM' | 'SIGKILL', name: string, description: string): FaultScenario =>
  createReplicaScenario({
    ...otherReplica,
    name,
    description,
    async inject(fixture, replica) {
      await fixture.replicas.end(replica, how);
      await fixture.startReplica();
    },
  });

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
  replicaEnded('SIGKILL', 'replica-killed', 'a replica killed -9 and replaced'),
  replicaEnded('SIGTERM', 'replica-terminated', 'a replica SIGTERMed and replaced'),
  createReplicaScenario({
    ...otherReplica,
    name: 'replica-stopped',
    description: 'a replica stopped (SIGSTOP) for 8 s',
    async inject(_fixture, replica) {
      replica.process.signal('SIGSTOP');
      await delay(8000);
      replica.process.signal('SIGCONT');
    },
  }),
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
