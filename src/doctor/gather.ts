import type { Clock } from '../clock.ts';
import type { Cluster } from '../inspect/cluster.ts';
import { ApiError } from '../k8s/api-error.ts';
import { askKinds } from './ask-kinds.ts';
import { askPolicies, askRowsAndReporters, POLICIES } from './ask-objects.ts';
import { askReplicas } from './ask-replicas.ts';
import { accountName, askRights } from './ask-rights.ts';
import { certificatesOfFile, certificatesOfPem } from './certificates.ts';
import type { ApiFacts, Asked, CertificateFacts, DoctorFacts } from './facts.ts';
import { probeGrpc, probeHttp } from './probe-replica.ts';

/** What is looked at beyond the cluster itself. */
export interface DoctorQuestions {
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
export async function gatherFacts(
  cluster: Cluster,
  questions: DoctorQuestions,
  clock: Clock,
  signal: AbortSignal,
  onWait: (what: string) => void,
): Promise<DoctorFacts> {
  const api = await asked(askApi(cluster, clock));
  const nothing = { failure: 'API server unreachable', forbidden: false };
  const ask = async <T>(asking: () => Promise<T>): Promise<Asked<T>> =>
    'failure' in api ? nothing : await asked(asking());
  const kinds = await ask(() => askKinds(cluster.client));
  // What is not served would be answered 404, and that is said once, by the kind.
  const isServed = (plural: string): boolean =>
    'value' in kinds && kinds.value.some((one) => one.plural === plural && one.served);
  const [namespaceExists, rights, replicas, rows, policies, probes] = await Promise.all([
    'failure' in api ? undefined : askNamespace(cluster),
    ask(() => askRights(cluster, questions.serviceAccount)),
    ask(() => askReplicas(cluster, clock, signal, onWait)),
    ask(() => askRowsAndReporters(cluster, signal)),
    isServed(POLICIES) ? ask(() => askPolicies(cluster, signal)) : undefined,
    Promise.all([
      ...questions.grpcAddresses.map((address) => probeGrpc(address)),
      ...questions.httpAddresses.map((address) => probeHttp(address)),
    ]),
  ]);
  return {
    nowMs: clock.wallMs(),
    namespace: cluster.namespace,
    api,
    namespaceExists,
    kinds,
    account:
      questions.serviceAccount === undefined
        ? 'the account of this command'
        : accountName(cluster.namespace, questions.serviceAccount),
    rights,
    replicas,
    reporters: 'value' in rows ? { value: rows.value.reporters } : rows,
    rows: 'value' in rows ? { value: rows.value.rows } : rows,
    policies,
    certificates: [
      ...(await clientCertificates(cluster)),
      ...filesOf(questions),
      ...probes.flatMap(({ certificate }) => certificate ?? []),
    ],
    endpoints: probes.map(({ endpoint }) => endpoint),
  };
}

/** An answer of the API server, or of none, is a fact; everything else is a fault of this program. */
async function asked<T>(asking: Promise<T>): Promise<Asked<T>> {
  try {
    return { value: await asking };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return { failure: error.message, forbidden: error.status === 403 };
  }
}

/** One answer, and how long it took: one way there and back on an open connection, as each write takes. */
async function askApi({ client, connection }: Cluster, clock: Clock): Promise<ApiFacts> {
  // The first one also pays for TLS.
  await client.document('/version');
  const startedMs = clock.monotonicMs();
  const { gitVersion } = await client.document<{ gitVersion?: string }>('/version');
  return {
    server: connection.server.href,
    version: gitVersion ?? 'unknown',
    roundTripMs: clock.monotonicMs() - startedMs,
  };
}

/** Undefined: not known. Only a 404 says that it is not there. */
async function askNamespace({ client, namespace }: Cluster): Promise<boolean | undefined> {
  const namespaces = client.resource({ group: '', version: 'v1', plural: 'namespaces' });
  try {
    await namespaces.get(namespace);
    return true;
  } catch (error) {
    // Who may not know has no right to namespaces, and that is no fault.
    return error instanceof ApiError &&
      (error.consequence === 'not_found' || error.consequence === 'namespace_not_found')
      ? false
      : undefined;
  }
}

/** Of the connection to the API server: none where a token proves who asks and the machine believes the CA. */
async function clientCertificates({ connection }: Cluster): Promise<CertificateFacts[]> {
  const { cert, ca } = await connection.credentials.current();
  return [
    ...(cert === undefined ? [] : certificatesOfPem('client certificate of the kubeconfig', cert)),
    ...(ca === undefined ? [] : certificatesOfPem("CA of the API server's certificate", ca)),
  ];
}

function filesOf({ tlsCert, tlsClientCa }: DoctorQuestions): CertificateFacts[] {
  return [
    ...(tlsCert === undefined ? [] : certificatesOfFile('--tls-cert', tlsCert)),
    ...(tlsClientCa === undefined ? [] : certificatesOfFile('--tls-client-ca', tlsClientCa)),
  ];
}
