/** How each program of the control plane is run, and how one knows that it serves. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generateToken, generateServiceAccountKeys, writeSecret } from './credentials.ts';
import { requestJson } from './https-json.ts';
import type { ProcessDefinition } from './managed-process.ts';

/** One health check; a program that starts may accept a connection and not answer. */
const HEALTH_TIMEOUT_MS = 2_000;

/** One line a request, written before its answer is complete. */
const COMPLETED_REQUESTS = { level: 'Metadata', omitStages: ['RequestReceived'] };
/** One more line before a request is carried out: a write that shows in the store is in the log already, perhaps as begun. */
const WRITE_REQUESTS = { level: 'Metadata', verbs: ['create', 'update', 'patch', 'delete'] };
const AUDITED_GROUPS = { resources: [{ group: 'reverse-tunnel.io' }, { group: 'coordination.k8s.io' }] };
const SERVICE_ACCOUNTS = { userGroups: ['system:serviceaccounts'] };

/**
 * Audit at level Metadata: who did which verb on which object, and never what was in it; of what the operator reads and
 * writes, and of all that ServiceAccounts do, so that a call which an operator should not make is seen too.
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

/** What is common to all programs: their definitions get the rest. */
export interface ProgramContext {
  /** Folder of the binaries. */
  readonly binaries: string;
  /** The control plane's own folder. */
  readonly folder: string;
  readonly onUnexpectedExit: ProcessDefinition['onUnexpectedExit'];
}

/** Log and working folder are the same for all: under the program's name in the control plane's folder. */
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

/** etcd, alone, on loopback, without TLS. */
export function etcd(context: ProgramContext, clientPort: number, peerPort: number): ProcessDefinition {
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
    // What a crash of the whole machine would lose is thrown away anyway; a crash of etcd alone loses nothing.
    '--unsafe-no-fsync',
    '--log-level=warn',
  ];
  // 200 from /health means: there is a leader and a linearizable read works.
  return processDefinition(context, 'etcd', args, async () => {
    const { status } = await requestJson({
      method: 'GET',
      url: `${client}/health`,
      timeoutMs: HEALTH_TIMEOUT_MS,
    });
    return status === 200;
  });
}

/** What kube-apiserver is run with. */
export interface ApiserverOptions {
  readonly etcdPort: number;
  readonly port: number;
  readonly audit: boolean;
  /** Appended, so that they win. */
  readonly flags: readonly string[];
}

/** kube-apiserver and what it makes for others. */
export interface Apiserver {
  readonly definition: ProcessDefinition;
  readonly url: string;
  /** PEM of what signs its serving certificate; there once it is healthy. */
  readonly caFile: string;
  /** A token in group system:masters. */
  readonly adminToken: string;
  readonly serviceAccountKeyFile: string;
  /** One JSON audit event a line; undefined without `audit`. */
  readonly auditLogPath: string | undefined;
}

/** Writes kube-apiserver's files and says how to run it: RBAC on, strict TLS, ServiceAccount tokens work. */
export async function apiserver(context: ProgramContext, options: ApiserverOptions): Promise<Apiserver> {
  const file = (name: string): string => join(context.folder, name);
  const keys = generateServiceAccountKeys();
  const privateKey = await writeSecret(file('service-account.key'), keys.privateKey);
  const publicKey = await writeSecret(file('service-account.pub'), keys.publicKey);
  const adminToken = generateToken();
  const tokens = await writeSecret(file('tokens.csv'), `${adminToken},admin,admin,system:masters\n`);
  const url = `https://127.0.0.1:${options.port}`;
  // The server makes itself a certificate and a CA in --cert-dir, and finds them there when it is started again.
  const certificates = file('apiserver-certificates');
  const caFile = join(certificates, 'apiserver.crt');
  const args = [
    `--etcd-servers=http://127.0.0.1:${options.etcdPort}`,
    '--bind-address=127.0.0.1',
    '--advertise-address=127.0.0.1',
    `--secure-port=${options.port}`,
    `--cert-dir=${certificates}`,
    '--authorization-mode=RBAC',
    // An administrator without certificates of our own making.
    `--token-auth-file=${tokens}`,
    '--service-account-issuer=https://kubernetes.default.svc',
    `--service-account-signing-key-file=${privateKey}`,
    `--service-account-key-file=${publicKey}`,
    // Nothing routes there; the service `kubernetes` just needs an address.
    '--service-cluster-ip-range=10.0.0.0/24',
    // A loopback address is no legal endpoint of the service `kubernetes`.
    '--endpoint-reconciler-type=none',
  ];
  let auditLogPath: string | undefined;
  if (options.audit) {
    auditLogPath = file('audit.log');
    await writeFile(file('audit-policy.json'), JSON.stringify(AUDIT_POLICY));
    // No rotation: who counts lines must find them all in one file.
    args.push(
      `--audit-policy-file=${file('audit-policy.json')}`,
      `--audit-log-path=${auditLogPath}`,
      '--audit-log-maxsize=0',
    );
  }
  const healthy = async (): Promise<boolean> => {
    // Read each time: at the first start the server has not written it yet.
    const ca = await readFile(caFile, 'utf8');
    // Ready comes before the first namespaces are there, and tests want `default`.
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

/** kube-controller-manager: namespaces and garbage go, `default` ServiceAccounts come, Deployments get pods. */
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
    // There is only one, and waiting for a dead one's lease would make each restart slow.
    '--leader-elect=false',
  ];
  return processDefinition(context, 'kube-controller-manager', args, async () => {
    // The file appears when the server has made itself a certificate; until then this rejects, which is: not yet.
    const servingCertificate = await readFile(join(certificates, 'kube-controller-manager.crt'), 'utf8');
    const health = await requestJson({
      method: 'GET',
      url: `https://127.0.0.1:${port}/healthz`,
      ca: servingCertificate,
      timeoutMs: HEALTH_TIMEOUT_MS,
    });
    // Its controllers run once it has done something: the ServiceAccount is the first thing that tests need of it.
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
