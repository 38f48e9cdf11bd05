import type { Clock } from '../clock.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import type { TunnelObject } from '../core/tunnel-object.ts';
import type { ApiObject, ResourceClient } from '../k8s/resource-client.ts';
import { createApiClient, type ApiClient } from '../k8s/client.ts';
import { type Connection, resolveConnection } from '../k8s/connection.ts';
import { leaseResource, type LeaseObject } from '../k8s/lease.ts';
import { listPages } from '../k8s/reflector.ts';
import { reporterResource, tunnelResource } from '../k8s/resources.ts';
import type { CommonFlags } from './command-flags.ts';

/** A hand tool waits for nothing and nobody else: few calls at a time. */
const CONNECTIONS = 8;
/** As the operator lists: 10,000 rows take about a second. */
const PAGE_LIMIT = 2_000;

/** The operator's objects in one namespace of one cluster, as the user who asks may see them. */
export interface Cluster {
  readonly connection: Connection;
  readonly client: ApiClient;
  readonly namespace: string;
  readonly tunnels: ResourceClient<TunnelObject>;
  readonly reporters: ResourceClient<ReporterObject>;
  /** Leases of everybody in the namespace. */
  readonly leases: ResourceClient<LeaseObject>;
  close(): Promise<void>;
}

/**
 * Finds the cluster; nothing is sent yet, so a cluster that is away shows only at the first call. To be closed by the
 * caller. Rejects with `ConnectionError`.
 *
 * @param command stands in the API server's audit log, as the end of the user agent
 */
export async function openCluster(
  flags: CommonFlags,
  env: Readonly<Record<string, string | undefined>>,
  clock: Clock,
  command: string,
): Promise<Cluster> {
  const { kubeconfig, context } = flags;
  const connection = await resolveConnection({ kubeconfig, context, env, clock });
  const client = createApiClient({
    connection,
    clock,
    userAgent: `reverse-tunnel-operator-${command}`,
    connections: CONNECTIONS,
  });
  const namespace = flags.namespace ?? connection.namespace ?? 'default';
  return {
    connection,
    client,
    namespace,
    tunnels: client.resource(tunnelResource(namespace)),
    reporters: client.resource(reporterResource(namespace)),
    leases: client.resource(leaseResource(namespace)),
    close: () => client.close(),
  };
}

/** Everything of a resource, `keep` applied to each object so that only what is needed stays in memory. Rejects with `ApiError`. */
export async function listAll<T extends ApiObject, K>(
  resource: ResourceClient<T>,
  project: (object: T) => K,
  signal: AbortSignal,
): Promise<K[]> {
  const results: K[] = [];
  await listPages(resource, PAGE_LIMIT, signal, (items) => {
    for (const item of items) results.push(project(item));
  });
  return results;
}
