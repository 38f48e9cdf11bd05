import type { Clock } from '../clock.ts';
import { listAll, type Cluster } from '../cli/cluster.ts';
import { isProbablyAlive, replicasFromLeases, type ReplicaList } from '../cli/replicas.ts';
import { LEADER_LEASE } from '../k8s/lease.ts';
import type { ReplicaInputs } from './inputs.ts';

/** A Lease is renewed every 5 s: what has not changed after this is not renewed any more. */
const POLL_INTERVAL_MS = 7_000;

/** A Lease that looks dead by the clocks of two machines is looked at again: a change of it is a proof, a time is none. */
export async function fetchReplicas(
  cluster: Cluster,
  clock: Clock,
  signal: AbortSignal,
  onWait: (what: string) => void,
): Promise<ReplicaInputs> {
  const first = await listReplicas(cluster, signal);
  const nowMs = clock.wallMs();
  let second = first;
  if (first.replicas.some((replica) => !isProbablyAlive(replica, nowMs))) {
    onWait(`a Lease looks expired; watching for ${POLL_INTERVAL_MS / 1000} s whether it is renewed`);
    await new Promise<void>((resolve) => {
      const cancel = clock.setTimer(POLL_INTERVAL_MS, resolve);
      // Then nothing is judged: whoever waits is only not to wait on.
      signal.addEventListener('abort', () => {
        cancel();
        resolve();
      });
    });
    second = await listReplicas(cluster, signal);
  }
  const previousRenewals = new Map(first.replicas.map(({ replica, renewedMs }) => [replica, renewedMs]));
  return {
    leader: second.leader,
    replicas: second.replicas.map((replica) => ({
      replica: replica.replica,
      renewedMs: replica.renewedMs,
      // A change needs no two clocks that agree; nor does one that looks alive by them have to be waited for.
      alive: isProbablyAlive(replica, nowMs) || previousRenewals.get(replica.replica) !== replica.renewedMs,
    })),
  };
}

async function listReplicas({ leases }: Cluster, signal: AbortSignal): Promise<ReplicaList> {
  return replicasFromLeases(await listAll(leases, (lease) => lease, signal), LEADER_LEASE);
}
