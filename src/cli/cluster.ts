import type { Clock } from '../clock.ts';
import type { ExpectationObject } from '../core/expectation-object.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import type { SliceObject } from '../core/slice-object.ts';
import type { TunnelObject } from '../core/tunnel-object.ts';
import { ApiError } from '../k8s/api-error.ts';
import type { ApiObject, ResourceClient } from '../k8s/resource-client.ts';
import { createApiClient, type ApiClient } from '../k8s/client.ts';
import type { Connection } from '../k8s/connection.ts';
import { resolveKubectlConnection } from '../k8s/kubectl-connection.ts';
import { leaseResource, type LeaseObject } from '../k8s/lease.ts';
import { listPages } from '../k8s/reflector.ts';
import { expectationResource, reporterResource, sliceResource, tunnelResource } from '../k8s/resources.ts';
import type { Terminal } from './terminal.ts';
import { toOverrides, type KubectlFlags } from './kubectl-flags.ts';

/** A command sends only a few requests at the same time. */
const MAX_CONNECTIONS = 8;
/** The operator's page size; a list of 10,000 objects takes about a second. */
export const PAGE_LIMIT = 2_000;
/** A page of 100 full slices is about 2 MB. */
export const SLICE_PAGE_LIMIT = 100;

/** The operator's objects in one namespace of a cluster, accessed with the permissions of the caller. */
export interface Cluster {
  readonly connection: Connection;
  readonly client: ApiClient;
  readonly namespace: string;
  readonly tunnels: ResourceClient<TunnelObject>;
  /** The CRD of slices may be missing, or the caller may lack the permission to list them. */
  readonly slices: ResourceClient<SliceObject>;
  readonly reporters: ResourceClient<ReporterObject>;
  /** The CRD of expectations may be missing, or the caller may lack the permission to list them. */
  readonly expectations: ResourceClient<ExpectationObject>;
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
  flags: KubectlFlags,
  env: Readonly<Record<string, string | undefined>>,
  clock: Clock,
  terminal: Pick<Terminal, 'askForCredentials'>,
  command: string,
): Promise<Cluster> {
  const connection = await resolveKubectlConnection({
    kubeconfig: flags.kubeconfig,
    overrides: toOverrides(flags),
    env,
    clock,
    askForCredentials: terminal.askForCredentials,
  });
  const client = createApiClient({
    connection,
    clock,
    userAgent: `reverse-tunnel-operator-${command}`,
    connections: MAX_CONNECTIONS,
    requestTimeoutMs: flags['request-timeout'],
  });
  const operatorNamespace = flags.namespace ?? connection.namespace ?? 'default';
  return {
    connection,
    client,
    namespace: operatorNamespace,
    tunnels: client.resource(tunnelResource(operatorNamespace)),
    slices: client.resource(sliceResource(operatorNamespace)),
    reporters: client.resource(reporterResource(operatorNamespace)),
    expectations: client.resource(expectationResource(operatorNamespace)),
    leases: client.resource(leaseResource(operatorNamespace)),
    close: () => client.close(),
  };
}

/**
 * Lists all objects of a resource in pages. Only the result of `project` stays in memory for each object. Rejects with
 * `ApiError`.
 *
 * @param labelSelector default: all objects
 * @param pageLimit maximum objects per page; default 2,000
 */
export async function listAll<T extends ApiObject, K>(
  resource: ResourceClient<T>,
  project: (object: T) => K,
  signal: AbortSignal,
  labelSelector?: string,
  pageLimit = PAGE_LIMIT,
): Promise<K[]> {
  const results: K[] = [];
  const onPage = (items: readonly T[]): void => {
    for (const item of items) results.push(project(item));
  };
  await listPages(resource, pageLimit, signal, onPage, labelSelector);
  return results;
}

/**
 * Lists the expectations of the namespace.
 *
 * @returns an empty list if the CRD is not installed or the caller must not list them: both are optional
 */
export async function listExpectations(
  { expectations }: Cluster,
  signal: AbortSignal,
): Promise<ExpectationObject[]> {
  return await listOptional(listAll(expectations, (object) => object, signal));
}

/**
 * Lists the slices of the namespace. Only the result of `project` stays in memory for each slice.
 *
 * @returns an empty list if the CRD is not installed or the caller must not list them: both are optional
 */
export async function listSlices<K>(
  { slices }: Cluster,
  project: (slice: SliceObject) => K,
  signal: AbortSignal,
): Promise<K[]> {
  return await listOptional(listAll(slices, project, signal, undefined, SLICE_PAGE_LIMIT));
}

async function listOptional<K>(list: Promise<K[]>): Promise<K[]> {
  try {
    return await list;
  } catch (error) {
    if (error instanceof ApiError && (error.kind === 'no_kind_match' || error.status === 403)) return [];
    throw error;
  }
}
