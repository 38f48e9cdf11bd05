/** Several replicas of the operator behind a balancer, each with a ServiceAccount of its own, so that the audit log tells them apart. */
import type { ControlPlaneClient } from '../../control-plane/start.ts';
import { createFleet, type Fleet, type FleetDependencies } from '../../src/simulate/fleet.ts';
import type { FleetOptions } from '../../src/simulate/fleet-options.ts';
import { listWrites, type Write } from './audit-log.ts';
import { startLoadBalancer, type LoadBalancer } from './load-balancer.ts';
import { createNamespace } from './start-with-crds.ts';
import {
  OPERATOR_RBAC_RULES,
  poll,
  startOperatorProcess,
  TOKEN_RBAC_RULES,
  type OperatorProcess,
} from './operator-process.ts';
import type { ObservedTunnelObject } from './expected-objects.ts';

const API_PATH = '/apis/reverse-tunnel.io/v1alpha1';
const LEADER_LEASE = 'reverse-tunnel-operator-leader';

/** A reporter's object, as the API server shows it. */
export interface ObservedReporter {
  readonly metadata: { readonly name: string; readonly uid: string; readonly resourceVersion: string };
  readonly spec: { readonly id: string; readonly cluster: string };
  readonly status: {
    readonly owner?: { readonly replica: string; readonly epoch: number };
    readonly tunnels?: { readonly reported: number; readonly applied: number; readonly rejected: number };
    readonly conditions: readonly {
      readonly type: string;
      readonly status: string;
      readonly reason: string;
    }[];
  };
}

/** One replica; it may have been replaced by a newer process. */
export interface RunningReplica {
  readonly account: string;
  readonly process: OperatorProcess;
}

/** Operators that serve one namespace, behind one balancer. */
export interface Replicas {
  readonly namespace: string;
  readonly balancer: LoadBalancer;
  /** Those that run, in the order in which they were started. */
  readonly running: readonly RunningReplica[];
  /** Starts one more and lets the balancer know when it is ready. `nodeFlags`: what Node itself is told. */
  start(
    flags?: readonly string[],
    clockAheadMs?: number,
    nodeFlags?: readonly string[],
  ): Promise<RunningReplica>;
  /** Ends one: politely, or at once. */
  end(replica: RunningReplica, how: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /** New connections no longer go to it; those that are open stay. */
  removeFromBalancer(replica: RunningReplica): void;
  /** New connections go to all that run again. */
  restoreBalancer(): void;
  startFleet(options?: Partial<FleetOptions>, edges?: Partial<FleetDependencies>): Promise<Fleet>;
  reporters(): Promise<ObservedReporter[]>;
  /** Waits until every reporter is connected, in sync with its objects, and owned by a replica that runs. */
  waitUntilServed(reporters: number, deadlineMs: number): Promise<void>;
  /** Who leads: the holder of the leader's Lease, "" when nobody. */
  leader(): Promise<string>;
  /** Waits until one that runs leads, and gives it. A reporter may be served before anybody leads. */
  waitForLeader(deadlineMs: number): Promise<RunningReplica>;
  writes(): Promise<Write[]>;
  /** Ends fleets, replicas and the balancer. */
  stop(): Promise<void>;
}

/** Makes a namespace for replicas; none runs yet. */
export async function createReplicas(controlPlane: ControlPlaneClient, hint: string): Promise<Replicas> {
  const namespace = await createNamespace(controlPlane, hint);
  const balancer = await startLoadBalancer();
  const running: RunningReplica[] = [];
  const fleets: Fleet[] = [];
  let started = 0;

  const read = async <T>(path: string): Promise<T> => {
    const { status, body } = await controlPlane.request('GET', path);
    if (status !== 200) throw new Error(`GET ${path}: ${status} ${JSON.stringify(body)}`);
    return body as T;
  };
  const updateBalancer = (): void => balancer.setTargets(running.map(({ process }) => process.grpcAddress));

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
    running,
    async start(flags = [], clockAheadMs = 0, nodeFlags = []) {
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
    async end(replica, how) {
      running.splice(running.indexOf(replica), 1);
      updateBalancer();
      await (how === 'SIGTERM' ? replica.process.stop() : replica.process.kill());
    },
    removeFromBalancer(replica) {
      balancer.setTargets(
        running.filter((candidate) => candidate !== replica).map(({ process }) => process.grpcAddress),
      );
    },
    restoreBalancer: updateBalancer,
    async startFleet(options = {}, edges = {}) {
      const fleet = createFleet(
        { address: balancer.address, connectRetryIntervalMs: 1000, ...options },
        edges,
      );
      fleets.push(fleet);
      await fleet.start();
      return fleet;
    },
    reporters,
    async waitUntilServed(count, deadlineMs) {
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
    leader,
    waitForLeader: (deadlineMs) =>
      poll(deadlineMs, async () => {
        const holder = await leader();
        return running.find(({ process }) => process.replica === holder);
      }),
    writes: () => listWrites(controlPlane.auditLogPath ?? '', namespace),
    async stop() {
      await Promise.all(fleets.splice(0).map((fleet) => fleet.stop()));
      // Also one that is stopped.
      await Promise.all(running.splice(0).map(({ process }) => process.kill()));
      await balancer.close();
    },
  };
}

/** `status reason` of a condition; "" where there is none. */
export function conditionText(status: ObservedReporter['status'], type: string): string {
  const entry = status.conditions.find((candidate) => candidate.type === type);
  return entry === undefined ? '' : `${entry.status} ${entry.reason}`;
}

/** By uid and version: what of these rows is still there, unchanged. */
export function countUnchanged(
  before: readonly ObservedTunnelObject[],
  after: readonly ObservedTunnelObject[],
): number {
  const versions = new Map(before.map(({ metadata }) => [metadata.uid, metadata.resourceVersion]));
  return after.filter(({ metadata }) => versions.get(metadata.uid) === metadata.resourceVersion).length;
}
