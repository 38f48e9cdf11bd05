/** The command line and the health check of each program of the control plane. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generateToken, generateServiceAccountKeys, writeSecret } from './credentials.ts';
import { requestJson } from './https-json.ts';
import type { ProcessDefinition } from './managed-process.ts';

/** Per health check: a starting program may accept a connection without responding. */
const HEALTH_TIMEOUT_MS = 2_000;

/** One line per request, written before the response is complete. */
const COMPLETED_REQUESTS = { level: 'Metadata', omitStages: ['RequestReceived'] };
/** An additional line before a write is executed, so that a write that is visible in etcd is always in the log. */
const WRITE_REQUESTS = { level: 'Metadata', verbs: ['create', 'update', 'patch', 'delete'] };
const AUDITED_GROUPS = { resources: [{ group: 'reverse-tunnel.io' }, { group: 'coordination.k8s.io' }] };
const SERVICE_ACCOUNTS = { userGroups: ['system:serviceaccounts'] };

/**
 * Audits the user, verb and object of each request (level Metadata, so without contents) for the resources that the
 * operator uses, and for all requests of ServiceAccounts, so that an unexpected request of the operator is visible too.
 */
const AUDIT_POLICY = {
  apiVersion: 'audit.k8s.io/v1',
  kind: 'Policy',
  rules: [
    { ...WRITE_REQUESTS, ...AUDITED_GROUPS },
    { ...WRITE_REQUESTS, ...SERVICE_ACCOUNTS },
    { ...COMPLETED_REQUESTS, ...AUDITED_GROUPS },
    { ...COMPLETED_REQUESTS, ...SERVICE_ACCOUNTS },
    { level: 'None' },
  ],
};

/** The options that all programs share. */
export interface ProgramContext {
  /** The folder of the binaries. */
  readonly binaries: string;
  /** The temporary folder of the control plane. */
  readonly folder: string;
  readonly onUnexpectedExit: ProcessDefinition['onUnexpectedExit'];
}

/** Returns a definition with the log file and working folder that every program has. */
function processDefinition(
  context: ProgramContext,
  name: ProcessDefinition['name'],
  args: readonly string[],
  healthy: () => Promise<boolean>,
): ProcessDefinition {
  return {
    name,
    command: join(context.binaries, name),
    args,
    cwd: context.folder,
    logFile: join(context.folder, `${name}.log`),
    healthy,
    onUnexpectedExit: context.onUnexpectedExit,
  };
}

/**
 * Returns the definition of a single etcd on loopback, without TLS.
 *
 * @param flags appended, so that they take precedence
 */
export function etcd(
  context: ProgramContext,
  clientPort: number,
  peerPort: number,
  flags: readonly string[] = [],
): ProcessDefinition {
  const client = `http://127.0.0.1:${clientPort}`;
  const peer = `http://127.0.0.1:${peerPort}`;
  const args = [
    '--name=control-plane',
    `--data-dir=${join(context.folder, 'etcd')}`,
    `--listen-client-urls=${client}`,
    `--advertise-client-urls=${client}`,
    `--listen-peer-urls=${peer}`,
    `--initial-advertise-peer-urls=${peer}`,
    `--initial-cluster=control-plane=${peer}`,
    // Only a crash of the machine loses data, and the data is temporary; a crash of etcd loses nothing.
    '--unsafe-no-fsync',
    '--log-level=warn',
    ...flags,
  ];
  // Status 200 from /health means that there is a leader and that a linearizable read works.
  return processDefinition(context, 'etcd', args, async () => {
    const { status } = await requestJson({
      method: 'GET',
      url: `${client}/health`,
      timeoutMs: HEALTH_TIMEOUT_MS,
    });
    return status === 200;
  });
}

/** The options of kube-apiserver. */
export interface ApiserverOptions {
  readonly etcdPort: number;
  readonly port: number;
  readonly audit: boolean;
  /** Appended, so that they take precedence. */
  readonly flags: readonly string[];
}

/** The definition of kube-apiserver, and the files and credentials that its clients need. */
export interface Apiserver {
  readonly definition: ProcessDefinition;
  readonly url: string;
  /** PEM of the CA of the serving certificate; exists once kube-apiserver is healthy. */
  readonly caFile: string;
  /** A token in group system:masters. */
  readonly adminToken: string;
  readonly serviceAccountKeyFile: string;
  /** One JSON audit event per line; undefined without `audit`. */
  readonly auditLogPath: string | undefined;
}

/** Writes the files of kube-apiserver and returns its definition: with RBAC, verified TLS and ServiceAccount tokens. */
export async function apiserver(context: ProgramContext, options: ApiserverOptions): Promise<Apiserver> {
  const file = (name: string): string => join(context.folder, name);
  const keys = generateServiceAccountKeys();
  const privateKey = await writeSecret(file('service-account.key'), keys.privateKey);
  const publicKey = await writeSecret(file('service-account.pub'), keys.publicKey);
  const adminToken = generateToken();
  const tokens = await writeSecret(file('tokens.csv'), `${adminToken},admin,admin,system:masters\n`);
  const url = `https://127.0.0.1:${options.port}`;
  // The server generates its certificate and CA in --cert-dir, and reuses them after a restart.
  const certificates = file('apiserver-certificates');
  const caFile = join(certificates, 'apiserver.crt');
  const args = [
    `--etcd-servers=http://127.0.0.1:${options.etcdPort}`,
    '--bind-address=127.0.0.1',
    '--advertise-address=127.0.0.1',
    `--secure-port=${options.port}`,
    `--cert-dir=${certificates}`,
    '--authorization-mode=RBAC',
    // An administrator without a client certificate.
    `--token-auth-file=${tokens}`,
    '--service-account-issuer=https://kubernetes.default.svc',
    `--service-account-signing-key-file=${privateKey}`,
    `--service-account-key-file=${publicKey}`,
    // Nothing is routed there; the service `kubernetes` only needs an address.
    '--service-cluster-ip-range=10.0.0.0/24',
    // A loopback address is not a valid endpoint of the service `kubernetes`.
    '--endpoint-reconciler-type=none',
  ];
  let auditLogPath: string | undefined;
  if (options.audit) {
    auditLogPath = file('audit.log');
    await writeFile(file('audit-policy.json'), JSON.stringify(AUDIT_POLICY));
    // No rotation, so that all lines can be counted in one file.
    args.push(
      `--audit-policy-file=${file('audit-policy.json')}`,
      `--audit-log-path=${auditLogPath}`,
      '--audit-log-maxsize=0',
    );
  }
  const healthy = async (): Promise<boolean> => {
    // Read for each check: at the first start, the server has not written the file yet.
    const ca = await readFile(caFile, 'utf8');
    // The server is ready before the first namespaces exist, and tests need `default`.
    for (const path of ['/readyz', '/api/v1/namespaces/default']) {
      const request = { method: 'GET', url: url + path, ca, token: adminToken, timeoutMs: HEALTH_TIMEOUT_MS };
      if ((await requestJson(request)).status !== 200) return false;
    }
    return true;
  };
  return {
    definition: processDefinition(context, 'kube-apiserver', [...args, ...options.flags], healthy),
    url,
    caFile,
    adminToken,
    serviceAccountKeyFile: privateKey,
    auditLogPath,
  };
}

/**
 * Returns the definition of kube-controller-manager, which finalizes namespaces, collects garbage, and creates `default`
 * ServiceAccounts and the pods of Deployments.
 */
export function controllerManager(
  context: ProgramContext,
  server: Apiserver,
  port: number,
  kubeconfigPath: string,
): ProcessDefinition {
  const certificates = join(context.folder, 'controller-manager-certificates');
  const args = [
    `--kubeconfig=${kubeconfigPath}`,
    '--bind-address=127.0.0.1',
    `--secure-port=${port}`,
    `--cert-dir=${certificates}`,
    `--root-ca-file=${server.caFile}`,
    `--service-account-private-key-file=${server.serviceAccountKeyFile}`,
    // There is only one instance, and each restart would wait until the old lease expires.
    '--leader-elect=false',
  ];
  return processDefinition(context, 'kube-controller-manager', args, async () => {
    // Rejects (which means: not healthy yet) until the server has generated its certificate.
    const servingCertificate = await readFile(join(certificates, 'kube-controller-manager.crt'), 'utf8');
    const health = await requestJson({
      method: 'GET',
      url: `https://127.0.0.1:${port}/healthz`,
      ca: servingCertificate,
      timeoutMs: HEALTH_TIMEOUT_MS,
    });
    // The controllers run once the first result exists: tests need the ServiceAccount first.
    const account = await requestJson({
      method: 'GET',
      url: `${server.url}/api/v1/namespaces/default/serviceaccounts/default`,
      ca: await readFile(server.caFile, 'utf8'),
      token: server.adminToken,
      timeoutMs: HEALTH_TIMEOUT_MS,
    });
    return health.status === 200 && account.status === 200;
  });
}
