import type { Clock } from '../clock.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import type { TunnelObject } from '../core/tunnel-object.ts';
import type { ApiObject, ResourceClient } from '../k8s/resource-client.ts';
import { createApiClient, type ApiClient } from '../k8s/client.ts';
import { type Connection, resolveConnection } from '../k8s/connection.ts';
import { leaseResource, type LeaseObject } from '../k8s/lease.ts';
import { listPages } from '../k8s/reflector.ts';
import { reporterResource, tunnelResource } from '../k8s/resources.ts';
import { enumOf, namespace, nonEmpty } from '../flag-values.ts';
import type { Flags, FlagValues } from '../flags.ts';

/** The flags of all commands that inspect a cluster. */
export const COMMON_FLAGS = {
  kubeconfig: {
    metavar: 'FILE',
    description: 'kubeconfig of the API server',
    defaultText: 'in-cluster, then $KUBECONFIG, then ~/.kube/config',
    read: nonEmpty,
  },
  context: {
    metavar: 'NAME',
    description: 'kubeconfig context',
    defaultText: 'the current context',
    read: nonEmpty,
  },
  namespace: {
    short: 'n',
    metavar: 'NAME',
    description: 'namespace of the operator',
    defaultText: "the pod's namespace, then the context's, then default",
    read: namespace,
  },
  output: {
    short: 'o',
    metavar: 'text|json',
    description: 'output format',
    default: 'text',
    read: enumOf(['text', 'json']),
  },
} satisfies Flags;

/** The values of `COMMON_FLAGS`; undefined where the flag is omitted. */
export type CommonFlags = FlagValues<typeof COMMON_FLAGS>;

/** A command sends only a few requests at the same time. */
const MAX_CONNECTIONS = 8;
/** The operator's page size; a list of 10,000 objects takes about a second. */
const PAGE_LIMIT = 2_000;

/** The operator's objects in one namespace of a cluster, accessed with the permissions of the caller. */
export interface Cluster {
  readonly connection: Connection;
  readonly client: ApiClient;
  readonly namespace: string;
  readonly tunnels: ResourceClient<TunnelObject>;
  readonly reporters: ResourceClient<ReporterObject>;
  /** All Leases of the namespace, including those of other programs. */
  readonly leases: ResourceClient<LeaseObject>;
  close(): Promise<void>;
}

/**
 * Resolves the connection to the cluster. No request is sent yet, so an unreachable API server is noticed only by the
 * first request. The caller must close the result. Rejects with `ConnectionError`.
 *
 * @param command suffix of the user agent, which appears in the API server's audit log
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
    connections: MAX_CONNECTIONS,
  });
  const operatorNamespace = flags.namespace ?? connection.namespace ?? 'default';
  return {
    connection,
    client,
    namespace: operatorNamespace,
    tunnels: client.resource(tunnelResource(operatorNamespace)),
    reporters: client.resource(reporterResource(operatorNamespace)),
    leases: client.resource(leaseResource(operatorNamespace)),
    close: () => client.close(),
  };
}

/**
 * Lists all objects of a resource in pages. Only the result of `project` stays in memory for each object. Rejects with
 * `ApiError`.
 */
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
