import type { Clock } from '../clock.ts';
import type { Cluster } from '../cli/cluster.ts';
import { ApiError } from '../k8s/api-error.ts';
import { fetchCrds } from './fetch-crds.ts';
import { fetchPolicies, fetchTunnelsAndReporters, POLICIES } from './fetch-objects.ts';
import { fetchReplicas } from './fetch-replicas.ts';
import { serviceAccountUsername, fetchPermissions } from './fetch-permissions.ts';
import { certificatesFromFile, certificatesFromPem } from './certificates.ts';
import type { ApiServerInfo, Result, CertificateInfo, DoctorInputs } from './inputs.ts';
import { probeGrpc, probeHttp } from './probe-replica.ts';

/** What is looked at beyond the cluster itself. */
export interface DoctorOptions {
  /** ServiceAccount whose rights are asked for; undefined: the account of this command. */
  readonly serviceAccount: string | undefined;
  readonly grpcAddresses: readonly string[];
  readonly httpAddresses: readonly string[];
  /** Files of the operator. */
  readonly tlsCert: string | undefined;
  readonly tlsClientCa: string | undefined;
}

/**
 * Asks everything at once. Never rejects for what is wrong with the cluster: that is a fact.
 *
 * @param onWait told what is waited for, when that takes seconds
 */
export async function collectInputs(
  cluster: Cluster,
  options: DoctorOptions,
  clock: Clock,
  signal: AbortSignal,
  onWait: (what: string) => void,
): Promise<DoctorInputs> {
  const api = await toResult(fetchApiServerInfo(cluster, clock));
  const unreachable = { failure: 'API server unreachable', forbidden: false };
  const request = async <T>(fetch: () => Promise<T>): Promise<Result<T>> =>
    'failure' in api ? unreachable : await toResult(fetch());
  const crds = await request(() => fetchCrds(cluster.client));
  // What is not served would be answered 404, and that is said once, by the kind.
  const isInstalled = (plural: string): boolean =>
    'value' in crds && crds.value.some((crd) => crd.plural === plural && crd.installed);
  const [namespaceExists, permissions, replicas, objects, policies, probes] = await Promise.all([
    'failure' in api ? undefined : checkNamespaceExists(cluster),
    request(() => fetchPermissions(cluster, options.serviceAccount)),
    request(() => fetchReplicas(cluster, clock, signal, onWait)),
    request(() => fetchTunnelsAndReporters(cluster, signal)),
    isInstalled(POLICIES) ? request(() => fetchPolicies(cluster, signal)) : undefined,
    Promise.all([
      ...options.grpcAddresses.map((address) => probeGrpc(address)),
      ...options.httpAddresses.map((address) => probeHttp(address)),
    ]),
  ]);
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
    certificates: [
      ...(await clientCertificates(cluster)),
      ...certificatesFromFlags(options),
      ...probes.flatMap(({ certificate }) => certificate ?? []),
    ],
    endpoints: probes.map(({ endpoint }) => endpoint),
  };
}

/** An answer of the API server, or of none, is a fact; everything else is a fault of this program. */
async function toResult<T>(request: Promise<T>): Promise<Result<T>> {
  try {
    return { value: await request };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return { failure: error.message, forbidden: error.status === 403 };
  }
}

/** One answer, and how long it took: one way there and back on an open connection, as each write takes. */
async function fetchApiServerInfo({ client, connection }: Cluster, clock: Clock): Promise<ApiServerInfo> {
  // The first one also pays for TLS.
  await client.getRaw('/version');
  const startedMs = clock.monotonicMs();
  const { gitVersion } = await client.getRaw<{ gitVersion?: string }>('/version');
  return {
    server: connection.server.href,
    version: gitVersion ?? 'unknown',
    roundTripMs: clock.monotonicMs() - startedMs,
  };
}

/** Undefined: not known. Only a 404 says that it is not there. */
async function checkNamespaceExists({ client, namespace }: Cluster): Promise<boolean | undefined> {
  const namespaces = client.resource({ group: '', version: 'v1', plural: 'namespaces' });
  try {
    await namespaces.get(namespace);
    return true;
  } catch (error) {
    // Who may not know has no right to namespaces, and that is no fault.
    return error instanceof ApiError && (error.kind === 'not_found' || error.kind === 'namespace_not_found')
      ? false
      : undefined;
  }
}

/** Of the connection to the API server: none where a token proves who asks and the machine believes the CA. */
async function clientCertificates({ connection }: Cluster): Promise<CertificateInfo[]> {
  const { cert, ca } = await connection.credentials.current();
  return [
    ...(cert === undefined ? [] : certificatesFromPem('client certificate of the kubeconfig', cert)),
    ...(ca === undefined ? [] : certificatesFromPem("CA of the API server's certificate", ca)),
  ];
}

function certificatesFromFlags({ tlsCert, tlsClientCa }: DoctorOptions): CertificateInfo[] {
  return [
    ...(tlsCert === undefined ? [] : certificatesFromFile('--tls-cert', tlsCert)),
    ...(tlsClientCa === undefined ? [] : certificatesFromFile('--tls-client-ca', tlsClientCa)),
  ];
}
