import type { Clock } from '../clock.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import { reporterKey } from '../core/tunnel.ts';
import { LEADER_LEASE } from '../k8s/lease-object.ts';
import { ApiError } from '../k8s/api-error.ts';
import type { ApiClient } from '../k8s/client.ts';
import { GROUP_VERSION, ownResource } from '../k8s/api-group.ts';
import { OPERATOR_RULES, rightsOf, type Right } from '../k8s/rights.ts';
import { listAll, type Cluster } from '../inspect/cluster.ts';
import { looksAlive, replicasOf, type ReplicasShown } from '../inspect/replicas.ts';
import { certificatesOfFile, certificatesOfPem } from './certificates.ts';
import type {
  ApiFacts,
  Asked,
  CertificateFacts,
  DoctorFacts,
  KindFacts,
  PolicyFacts,
  ReplicaFacts,
  RightFacts,
  RowFacts,
} from './facts.ts';
import { kindDifferences, type KindSchema } from './kind-differences.ts';
import { probeGrpc, probeHttp } from './probe-replica.ts';
import { publishedKind, shippedKinds, type ShippedKind } from './shipped-kinds.ts';

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

/** A Lease is renewed every 5 s: what has not changed after this is not renewed any more. */
const LEASE_LOOK_MS = 7_000;
const REQUIRED_KINDS = new Set(['reversetunnels', 'reversetunnelreporters']);
const POLICIES = 'reversetunnelpolicies';

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
  const nothing = { failure: 'the API server does not answer', forbidden: false };
  const ask = async <T>(asking: () => Promise<T>): Promise<Asked<T>> =>
    'failure' in api ? nothing : await asked(asking());
  const kinds = await ask(() => askKinds(cluster));
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

async function asked<T>(asking: Promise<T>): Promise<Asked<T>> {
  try {
    return { value: await asking };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return { failure: error.message, forbidden: error.status === 403 };
  }
}

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

async function askNamespace({ client, namespace }: Cluster): Promise<boolean | undefined> {
  const namespaces = client.resource({ group: '', version: 'v1', plural: 'namespaces' });
  try {
    await namespaces.get(namespace);
    return true;
  } catch (error) {
    // Who may not know has no right to namespaces, and that is no fault.
    return error instanceof ApiError &&
      (error.consequence === 'gone' || error.consequence === 'missing-namespace')
      ? false
      : undefined;
  }
}

interface Discovery {
  readonly resources: readonly { readonly name: string }[];
}

/** By discovery and the published schema, which every account may read: the CRDs themselves take a right of their own. */
async function askKinds({ client }: Cluster): Promise<KindFacts[]> {
  const served = await documentOrNothing<Discovery>(client, `/apis/${GROUP_VERSION}`);
  const names = new Set(served?.resources.map(({ name }) => name));
  const published = await documentOrNothing<object>(client, `/openapi/v3/apis/${GROUP_VERSION}`);
  return shippedKinds().map((shipped) => {
    const { plural, kind } = shipped;
    const isServed = names.has(plural) && names.has(`${plural}/status`);
    const schema = isServed ? publishedKind(published, kind) : undefined;
    return {
      plural,
      required: REQUIRED_KINDS.has(plural),
      served: isServed,
      differences: differencesOf(shipped, isServed, schema),
    };
  });
}

function differencesOf(
  shipped: ShippedKind,
  isServed: boolean,
  schema: KindSchema | undefined,
): KindFacts['differences'] {
  if (!isServed) return [];
  // A CRD is served a moment before its schema is published.
  if (schema === undefined) return [{ weight: 'schema', path: 'no schema is published' }];
  return kindDifferences(shipped, schema);
}

/** Undefined when the API server does not know the path. */
async function documentOrNothing<T>(client: ApiClient, path: string): Promise<T | undefined> {
  try {
    return await client.document<T>(path);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return undefined;
    throw error;
  }
}

interface AccessReview {
  readonly status?: { readonly allowed?: boolean };
}

/** One review a right: what may be done by wildcards, groups or another authorizer than RBAC counts too. */
async function askRights(
  { client, namespace }: Cluster,
  serviceAccount: string | undefined,
): Promise<RightFacts[]> {
  const kind = serviceAccount === undefined ? 'SelfSubjectAccessReview' : 'SubjectAccessReview';
  const reviews = client.resource<AccessReview>({
    group: 'authorization.k8s.io',
    version: 'v1',
    plural: `${kind.toLowerCase()}s`,
  });
  const subject =
    serviceAccount === undefined
      ? {}
      : {
          user: accountName(namespace, serviceAccount),
          groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
        };
  return await Promise.all(
    rightsOf(OPERATOR_RULES).map(async (right) => {
      const { group, resource, verb, subresource } = right;
      const { status } = await reviews.create({
        apiVersion: 'authorization.k8s.io/v1',
        kind,
        spec: { ...subject, resourceAttributes: { namespace, group, resource, verb, subresource } },
      });
      return { right: rightText(right), allowed: status?.allowed === true };
    }),
  );
}

function rightText({ verb, group, resource, subresource }: Right): string {
  return `${verb} ${resource}${subresource === undefined ? '' : `/${subresource}`}.${group}`;
}

function accountName(namespace: string, serviceAccount: string): string {
  return `system:serviceaccount:${namespace}:${serviceAccount}`;
}

/** A Lease that looks dead by the clocks of two machines is looked at again: a change of it is a proof, a time is none. */
async function askReplicas(
  cluster: Cluster,
  clock: Clock,
  signal: AbortSignal,
  onWait: (what: string) => void,
): Promise<ReplicaFacts> {
  const first = await listReplicas(cluster, signal);
  const nowMs = clock.wallMs();
  let second = first;
  if (first.replicas.some((one) => !looksAlive(one, nowMs))) {
    onWait(`a Lease looks dead: watching for ${LEASE_LOOK_MS / 1000} s whether it is renewed`);
    await new Promise<void>((resolve) => {
      const cancel = clock.setTimer(LEASE_LOOK_MS, resolve);
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
      alive: looksAlive(one, nowMs) || before.get(one.replica) !== one.renewedMs,
    })),
  };
}

async function listReplicas({ leases }: Cluster, signal: AbortSignal): Promise<ReplicasShown> {
  return replicasOf(await listAll(leases, (lease) => lease, signal), LEADER_LEASE);
}

/** Rows first: a reporter's object is there before its rows, so one that is missing afterwards is missing. */
async function askRowsAndReporters(
  cluster: Cluster,
  signal: AbortSignal,
): Promise<{ rows: RowFacts; reporters: ReporterObject[] }> {
  const kept = await listAll(
    cluster.rows,
    ({ spec, status }) => ({ reporter: spec.reporter, unknown: status?.state === 'Unknown' }),
    signal,
  );
  const reporters = await listAll(cluster.reporters, (object) => object, signal);
  const known = new Set(reporters.map(({ spec }) => reporterKey(spec)));
  const orphans = new Map<string, number>();
  for (const { reporter } of kept) {
    if (known.has(reporterKey(reporter))) continue;
    const name = `${reporter.cluster}/${reporter.id}`;
    orphans.set(name, (orphans.get(name) ?? 0) + 1);
  }
  const unknown = kept.filter((one) => one.unknown).length;
  return { rows: { rows: kept.length, unknown, orphans }, reporters };
}

interface PolicyObject {
  readonly metadata: { readonly name: string; readonly uid: string; readonly resourceVersion: string };
  readonly status?: {
    readonly conditions?: readonly {
      readonly type: string;
      readonly status: string;
      readonly message?: string;
    }[];
  };
}

async function askPolicies({ client, namespace }: Cluster, signal: AbortSignal): Promise<PolicyFacts[]> {
  const policies = client.resource<PolicyObject>(ownResource(POLICIES, namespace));
  return await listAll(
    policies,
    ({ metadata, status }) => {
      const accepted = status?.conditions?.find(({ type }) => type === 'Accepted');
      return { name: metadata.name, accepted: accepted?.status, message: accepted?.message ?? '' };
    },
    signal,
  );
}

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
