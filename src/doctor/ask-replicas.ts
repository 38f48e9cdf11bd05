import type { Clock } from '../clock.ts';
import { listAll, type Cluster } from '../inspect/cluster.ts';
import { looksAlive, replicasOf, type ReplicasShown } from '../inspect/replicas.ts';
import { LEADER_LEASE } from '../k8s/lease-object.ts';
import type { ReplicaFacts } from './facts.ts';

/** A Lease is renewed every 5 s: what has not changed after this is not renewed any more. */
const LEASE_LOOK_MS = 7_000;

/** A Lease that looks dead by the clocks of two machines is looked at again: a change of it is a proof, a time is none. */
export async function askReplicas(
  cluster: Cluster,
  clock: Clock,
  signal: AbortSignal,
  onWait: (what: string) => void,
): Promise<ReplicaFacts> {
  const first = await listReplicas(cluster, signal);
  const nowMs = clock.wallMs();
  let second = first;
  if (first.replicas.some((one) => !looksAlive(one, nowMs))) {
    onWait(`a Lease looks expired; watching for ${LEASE_LOOK_MS / 1000} s whether it is renewed`);
    await new Promise<void>((resolve) => {
      const cancel = clock.setTimer(LEASE_LOOK_MS, resolve);
      // Then nothing is judged: whoever waits is only not to wait on.
      signal.addEventListener('abort', () => {
        cancel();
        resolve();
      });
    });
    second = await listReplicas(cluster, signal);
  }
  const before = new Map(first.replicas.map(({ replica, renewedMs }) => [replica, renewedMs]));
  return {
    leader: second.leader,
    replicas: second.replicas.map((one) => ({
      replica: one.replica,
      renewedMs: one.renewedMs,
      // A change needs no two clocks that agree; nor does one that looks alive by them have to be waited for.
      alive: looksAlive(one, nowMs) || before.get(one.replica) !== one.renewedMs,
    })),
  };
}

async function listReplicas({ leases }: Cluster, signal: AbortSignal): Promise<ReplicasShown> {
  return replicasOf(await listAll(leases, (lease) => lease, signal), LEADER_LEASE);
}
