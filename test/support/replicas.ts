/**
 * Several replicas behind a load balancer, each with a ServiceAccount of its own, so that the audit log
 * distinguishes them.
 */
import type { ControlPlaneClient } from '../../control-plane/start.ts';
import {
  createFleet,
  type Fleet,
  type FleetDependencies,
  type FleetOptions,
} from '../../src/simulate/fleet.ts';
import { listWrites, type Write } from './audit-log.ts';
import { openFaultProxy } from '../faults/real/fault-proxy.ts';
import { createNamespace } from './start-with-crds.ts';
import {
  OPERATOR_RBAC_RULES,
  poll,
  startOperatorProcess,
  TOKEN_RBAC_RULES,
  type OperatorProcess,
} from './operator-process.ts';
import type { ObservedTunnelObject } from './expected-objects.ts';
import { PATIENT_MAX_RETRIES } from './patient-fleet.ts';

const API_PATH = '/apis/reverse-tunnel.io/v1alpha1';
const LEADER_LEASE = 'reverse-tunnel-operator-leader';

/** A reporter object as returned by the API server. */
export interface ObservedReporter {
  readonly metadata: { readonly name: string; readonly uid: string; readonly resourceVersion: string };
  readonly spec: { readonly id: string; readonly cluster: string };
  readonly status: {
    readonly owner?: { readonly replica: string; readonly epoch: number };
    readonly tunnels?: { readonly reported: number; readonly applied: number; readonly rejected: number };
    /** The newest first. */
    readonly recentDisconnects?: readonly {
      readonly time: string;
      readonly reason: string;
      readonly durationSeconds: number;
    }[];
    readonly conditions: readonly {
      readonly type: string;
      readonly status: string;
      readonly reason: string;
    }[];
  };
}

/** A replica; its process may have been replaced by a newer one. */
export interface RunningReplica {
  readonly account: string;
  readonly process: OperatorProcess;
}

/** Replicas that serve one namespace behind one load balancer. */
export type Replicas = Awaited<ReturnType<typeof createReplicas>>;

/** Creates a namespace for replicas; none is started. */
export async function createReplicas(controlPlane: ControlPlaneClient, hint: string) {
  const namespace = await createNamespace(controlPlane, hint);
  const balancer = await openFaultProxy();
  const running: RunningReplica[] = [];
  const fleets: Fleet[] = [];
  let started = 0;

  const read = async <T>(path: string): Promise<T> => {
    const { status, body } = await controlPlane.request('GET', path);
    if (status !== 200) throw new Error(`GET ${path}: ${status} ${JSON.stringify(body)}`);
    return body as T;
  };
  const updateBalancer = (): void =>
    balancer.setTargets(...running.map(({ process }) => process.grpcAddress));

  async function leader(): Promise<string> {
    const path = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases/${LEADER_LEASE}`;
    const { status, body } = await controlPlane.request('GET', path);
    return status === 200 ? ((body as { spec: { holderIdentity?: string } }).spec.holderIdentity ?? '') : '';
  }

  async function reporters(): Promise<ObservedReporter[]> {
    const list = await read<{ items: ObservedReporter[] }>(
      `${API_PATH}/namespaces/${namespace}/reversetunnelreporters`,
    );
    return list.items;
  }

  return {
    namespace,
    balancer,
    /** The running replicas in the order in which they were started. */
    running: running as readonly RunningReplica[],
    /** Starts a replica and adds it to the load balancer when it is ready. `nodeFlags` are flags of Node. */
    async start(
      flags: readonly string[] = [],
      clockAheadMs = 0,
      nodeFlags: readonly string[] = [],
    ): Promise<RunningReplica> {
      const account = `replica-${started++}`;
      const { kubeconfigPath } = await controlPlane.kubeconfigFor({
        namespace,
        serviceAccount: account,
        rules: OPERATOR_RBAC_RULES,
        ...(flags.includes('token') ? { clusterRules: TOKEN_RBAC_RULES } : {}),
      });
      const process = await startOperatorProcess({
        kubeconfigPath,
        namespace,
        flags: ['--replica-id', account, '--report-interval', '1s', ...flags],
        clockAheadMs,
        nodeFlags,
      });
      const replica = { account, process };
      running.push(replica);
      await process.ready();
      updateBalancer();
      return replica;
    },
    /** Ends a replica gracefully or immediately. */
    async end(replica: RunningReplica, how: 'SIGTERM' | 'SIGKILL'): Promise<void> {
      running.splice(running.indexOf(replica), 1);
      updateBalancer();
      await (how === 'SIGTERM' ? replica.process.stop() : replica.process.kill());
    },
    /** Stops sending new connections to a replica; open ones stay. */
    removeFromBalancer(replica: RunningReplica): void {
      const others = running.filter((candidate) => candidate !== replica);
      balancer.setTargets(...others.map(({ process }) => process.grpcAddress));
    },
    /** Sends new connections to all running replicas again. */
    restoreBalancer: updateBalancer,
    async startFleet(
      options: Partial<FleetOptions> = {},
      edges: Partial<FleetDependencies> = {},
    ): Promise<Fleet> {
      const fleet = createFleet(
        {
          address: balancer.address,
          connectRetryIntervalMs: 1000,
          maxRetries: PATIENT_MAX_RETRIES,
          ...options,
        },
        edges,
      );
      fleets.push(fleet);
      await fleet.start();
      return fleet;
    },
    reporters,
    /** Waits until every reporter is connected, in sync, and owned by a running replica. */
    async waitUntilServed(count: number, deadlineMs: number): Promise<void> {
      let last = '';
      await poll(deadlineMs, async () => {
        const owners = new Set(running.map(({ process }) => process.replica));
        const observed = await reporters();
        const unserved = observed.filter(
          ({ status }) =>
            !owners.has(status.owner?.replica ?? '') ||
            !['Connected', 'Synced', 'Ready'].every((type) => conditionText(status, type).startsWith('True')),
        );
        last = `${observed.length} reporters, unserved: ${unserved.length} ${JSON.stringify(unserved[0]?.status)}`;
        return observed.length === count && unserved.length === 0 ? true : undefined;
      }).catch((error: unknown) => {
        throw new Error(`not all served: ${last}`, { cause: error });
      });
    },
    /** Returns the holder of the leader Lease; "" when there is none. */
    leader,
    /** Waits until a running replica is the leader and returns it. Reporters may be served before there is a leader. */
    waitForLeader: (deadlineMs: number): Promise<RunningReplica> =>
      poll(deadlineMs, async () => {
        const holder = await leader();
        return running.find(({ process }) => process.replica === holder);
      }),
    writes: (): Promise<Write[]> => listWrites(controlPlane.auditLogPath ?? '', namespace),
    /** Ends fleets, replicas and the load balancer. */
    async stop(): Promise<void> {
      await Promise.all(fleets.splice(0).map((fleet) => fleet.stop()));
      // SIGKILL also ends a stopped process.
      await Promise.all(running.splice(0).map(({ process }) => process.kill()));
      await balancer.close();
    },
  };
}

/** Returns a condition as `status reason`; "" when it does not exist. */
export function conditionText(status: Partial<ObservedReporter['status']> | undefined, type: string): string {
  const entry = status?.conditions?.find((candidate) => candidate.type === type);
  return entry === undefined ? '' : `${entry.status} ${entry.reason}`;
}

/** Counts the objects that still have the same UID and resourceVersion. */
export function countUnchanged(
  before: readonly ObservedTunnelObject[],
  after: readonly ObservedTunnelObject[],
): number {
  const versions = new Map(before.map(({ metadata }) => [metadata.uid, metadata.resourceVersion]));
  return after.filter(({ metadata }) => versions.get(metadata.uid) === metadata.resourceVersion).length;
}
