import type { Clock } from '../clock.ts';
import type { Cluster } from '../cli/cluster.ts';
import { ApiError } from '../k8s/api-error.ts';
import { certificatesFromConnection, certificatesFromFile } from './certificates.ts';
import { fetchMutatingAdmission } from './fetch-admission.ts';
import {
  fetchApiServerInfo,
  fetchExpectations,
  fetchNamespaceExists,
  fetchPermissions,
  fetchPolicies,
  fetchReplicas,
  fetchTunnelsAndReporters,
  serviceAccountUsername,
} from './fetch-cluster.ts';
import { fetchCrds } from './fetch-crds.ts';
import type { DoctorInputs, Fetched } from './inputs.ts';
import { probeGrpc, probeHttp } from './probe-replica.ts';

/** Plural of ReverseTunnelPolicy, whose CRD is optional. */
const POLICIES = 'reversetunnelpolicies';
/** Plural of ReverseTunnelExpectation, whose CRD is optional, too. */
const EXPECTATIONS = 'reversetunnelexpectations';

/** What `doctor` inspects in addition to the cluster. */
export interface DoctorOptions {
  /** ServiceAccount whose permissions are reviewed; undefined: the account of the caller. */
  readonly serviceAccount: string | undefined;
  /** Endpoints of replicas, each as host:port. */
  readonly grpcAddresses: readonly string[];
  readonly httpAddresses: readonly string[];
  /** Certificate files of the operator. */
  readonly tlsCert: string | undefined;
  readonly tlsClientCa: string | undefined;
}

/**
 * Fetches all inputs concurrently. An error response of the API server, or none at all, becomes part of the inputs; other
 * errors reject.
 *
 * @param onWait called with the reason before a wait of several seconds
 */
export async function collectInputs(
  cluster: Cluster,
  options: DoctorOptions,
  clock: Clock,
  signal: AbortSignal,
  onWait: (reason: string) => void,
): Promise<DoctorInputs> {
  const api = await toFetched(fetchApiServerInfo(cluster, clock));
  const unreachable = { failure: 'API server unreachable', forbidden: false };
  const request = async <T>(fetch: () => Promise<T>): Promise<Fetched<T>> =>
    'failure' in api ? unreachable : await toFetched(fetch());
  const crds = await request(() => fetchCrds(cluster.client));
  // Listing a kind that is not installed would fail with 404, which the check of the CRDs reports already.
  const isInstalled = (plural: string): boolean =>
    'value' in crds && crds.value.some((crd) => crd.plural === plural && crd.installed);
  const [namespaceExists, permissions, replicas, objects, policies, expectations, mutatingAdmission, probes] =
    await Promise.all([
      'failure' in api ? undefined : fetchNamespaceExists(cluster),
      request(() => fetchPermissions(cluster, options.serviceAccount)),
      request(() => fetchReplicas(cluster, clock, signal, onWait)),
      request(() => fetchTunnelsAndReporters(cluster, signal)),
      isInstalled(POLICIES) ? request(() => fetchPolicies(cluster, signal)) : undefined,
      isInstalled(EXPECTATIONS) ? request(() => fetchExpectations(cluster, signal)) : undefined,
      request(() => fetchMutatingAdmission(cluster, signal)),
      Promise.all([
        ...options.grpcAddresses.map((address) => probeGrpc(address)),
        ...options.httpAddresses.map((address) => probeHttp(address)),
      ]),
    ]);
  const { tlsCert, tlsClientCa } = options;
  return {
    nowMs: clock.wallMs(),
    namespace: cluster.namespace,
    api,
    namespaceExists,
    crds,
    account:
      options.serviceAccount === undefined
        ? 'the account of this command'
        : serviceAccountUsername(cluster.namespace, options.serviceAccount),
    permissions,
    replicas,
    reporters: 'value' in objects ? { value: objects.value.reporters } : objects,
    tunnels: 'value' in objects ? { value: objects.value.tunnels } : objects,
    policies,
    expectations,
    mutatingAdmission,
    certificates: [
      ...(await certificatesFromConnection(cluster.connection)),
      ...(tlsCert === undefined ? [] : certificatesFromFile('--tls-cert', tlsCert)),
      ...(tlsClientCa === undefined ? [] : certificatesFromFile('--tls-client-ca', tlsClientCa)),
      ...probes.flatMap(({ certificate }) => certificate ?? []),
    ],
    endpoints: probes.map(({ endpoint }) => endpoint),
  };
}

async function toFetched<T>(request: Promise<T>): Promise<Fetched<T>> {
  try {
    return { value: await request };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return { failure: error.message, forbidden: error.status === 403 };
  }
}
