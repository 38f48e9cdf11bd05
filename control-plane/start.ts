/** Starts a control plane in a temporary folder, and removes it completely. */
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BinaryName } from './binaries.ts';
import { renderKubeconfig, writeSecret } from './credentials.ts';
import type { ControlPlaneError } from './errors.ts';
import { requestJson } from './https-json.ts';
import { createDisposableFolder } from './process-supervisor.ts';
import { createManagedProcess } from './managed-process.ts';
import type { ControlPlaneProcess } from './managed-process.ts';
import { reservePorts } from './ports.ts';
import { apiserver, controllerManager, etcd } from './programs.ts';
import { resolveBinaries } from './resolve.ts';
import type { ResolveOptions } from './resolve.ts';
import { run } from './run.ts';
import type { RunResult } from './run.ts';
import { createServiceAccountToken } from './service-account.ts';
import type { AdminRequest, ServiceAccountRequest } from './service-account.ts';

/** For requests as the administrator; the API server's own timeout is 60 s. */
const REQUEST_TIMEOUT_MS = 65_000;
/** For one run of kubectl; longer than any `kubectl wait` in tests. */
const KUBECTL_TIMEOUT_MS = 120_000;

/** etcd for clients, etcd for peers, kube-apiserver, kube-controller-manager. */
const PORT_COUNT = 4;

/** Which programs to start, and how. */
export interface ControlPlaneOptions extends ResolveOptions {
  /**
   * Also run kube-controller-manager, which takes another second: namespaces are finalized, garbage is collected.
   * Default: false.
   */
  readonly controllerManager?: boolean;
  /**
   * Log all requests for reverse-tunnel.io and coordination.k8s.io, and all requests of ServiceAccounts, at level
   * Metadata. Default: false.
   */
  readonly audit?: boolean;
  /** Additional flags of kube-apiserver, such as `--etcd-compaction-interval=30s`; they take precedence. */
  readonly apiserverFlags?: readonly string[];
  /** Additional flags of etcd, such as `--quota-backend-bytes=8589934592`; they take precedence. */
  readonly etcdFlags?: readonly string[];
  /** Called when a program exits without being killed. Default: the message is printed on stderr. */
  readonly onUnexpectedExit?: (error: ControlPlaneError) => void;
}

/** How to run kubectl. */
interface KubectlOptions {
  /** Written to stdin. */
  readonly input?: string;
  /** Default: the kubeconfig of the administrator. */
  readonly kubeconfigPath?: string;
}

/** The credentials of a ServiceAccount. */
interface ServiceAccountAccess {
  readonly kubeconfigPath: string;
  readonly token: string;
}

/** Access to a running control plane from any process of this machine; plain data, so that it can be sent to one as JSON. */
export interface ControlPlaneAccess {
  /** `https://127.0.0.1:<port>`; like the CA and all tokens, it is kept across restarts. */
  readonly url: string;
  readonly caFile: string;
  /** PEM. */
  readonly caData: string;
  /** In the group system:masters: not subject to RBAC, and exempt from priority and fairness. */
  readonly adminToken: string;
  readonly kubeconfigPath: string;
  /** The temporary folder with data, logs and kubeconfigs. */
  readonly folder: string;
  /** The JSON gateway of etcd; its data is in `<folder>/etcd`. */
  readonly etcdUrl: string;
  /** The folder of etcd, kube-apiserver and kubectl. */
  readonly binaries: string;
  /**
   * One audit event (JSON) per line, written before the response is complete; for writes, an additional event before they are
   * executed. Undefined without `audit`.
   */
  readonly auditLogPath: string | undefined;
}

/** A client of a running control plane that cannot stop or break it. */
export interface ControlPlaneClient extends ControlPlaneAccess {
  /** Sends a request as the administrator on a new connection, and returns a response with any status. */
  readonly request: AdminRequest;
  /** Runs kubectl and returns its result with any exit code. */
  kubectl(args: readonly string[], options?: KubectlOptions): Promise<RunResult>;
  /** Creates the ServiceAccount with its permissions, and a kubeconfig with its token and namespace. */
  kubeconfigFor(request: ServiceAccountRequest): Promise<ServiceAccountAccess>;
}

/** A running control plane. It ends when `stop` is called or when this process ends, however it ends. */
export interface ControlPlane extends ControlPlaneClient {
  readonly etcd: ControlPlaneProcess;
  readonly apiserver: ControlPlaneProcess;
  readonly controllerManager: ControlPlaneProcess | undefined;
  /** Kills all programs and removes the folder. May be called repeatedly. */
  stop(): Promise<void>;
}

/**
 * Starts etcd, kube-apiserver and optionally kube-controller-manager on free loopback ports, and returns when they are
 * ready, after 3 to 5 seconds. Downloads or builds missing binaries first.
 *
 * @throws ControlPlaneError with the end of the log of the failed program; everything has been removed then
 */
export async function startControlPlane(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  const names: BinaryName[] = ['etcd', 'kube-apiserver', 'kubectl'];
  if (options.controllerManager === true) names.push('kube-controller-manager');
  const { folder: binaries } = await resolveBinaries(names, options);

  // Executed in reverse order.
  const cleanup: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (let cleanUp = cleanup.pop(); cleanUp !== undefined; cleanUp = cleanup.pop()) await cleanUp();
  };
  try {
    const temporary = await createDisposableFolder(tmpdir(), 'reverse-tunnel-control-plane-');
    cleanup.push(temporary.dispose);
    const reserved = await reservePorts(PORT_COUNT);
    cleanup.push(reserved.release);
    return await startPrograms(options, binaries, temporary.path, reserved.first, cleanup, stop);
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Starts the programs in the order of their dependencies; each is added to `cleanup` before it starts. */
async function startPrograms(
  options: ControlPlaneOptions,
  binaries: string,
  folder: string,
  firstPort: number,
  cleanup: (() => Promise<void>)[],
  stop: () => Promise<void>,
): Promise<ControlPlane> {
  const [etcdPort, peerPort, apiserverPort, managerPort] = [
    firstPort,
    firstPort + 1,
    firstPort + 2,
    firstPort + 3,
  ];
  const context = { binaries, folder, onUnexpectedExit: options.onUnexpectedExit ?? logToStderr };
  const startProcess = async (process: ControlPlaneProcess): Promise<ControlPlaneProcess> => {
    cleanup.push(async () => process.kill());
    await process.start();
    return process;
  };

  const store = await startProcess(
    createManagedProcess(etcd(context, etcdPort, peerPort, options.etcdFlags)),
  );
  const server = await apiserver(context, {
    etcdPort,
    port: apiserverPort,
    audit: options.audit === true,
    flags: options.apiserverFlags ?? [],
  });
  const serverProcess = await startProcess(createManagedProcess(server.definition));
  const { url, caFile, adminToken, auditLogPath } = server;
  const caData = await readFile(caFile, 'utf8');
  const kubeconfigPath = await writeSecret(
    join(folder, 'admin.kubeconfig'),
    renderKubeconfig({ url, ca: caData, user: 'admin', token: adminToken, namespace: 'default' }),
  );
  const manager =
    options.controllerManager === true
      ? await startProcess(
          createManagedProcess(controllerManager(context, server, managerPort, kubeconfigPath)),
        )
      : undefined;
  const etcdUrl = `http://127.0.0.1:${etcdPort}`;
  return {
    ...createControlPlaneClient({
      url,
      caFile,
      caData,
      adminToken,
      kubeconfigPath,
      folder,
      etcdUrl,
      binaries,
      auditLogPath,
    }),
    etcd: store,
    apiserver: serverProcess,
    controllerManager: manager,
    stop,
  };
}

/** Returns a client of a control plane that runs, possibly in another process. */
export function createControlPlaneClient(access: ControlPlaneAccess): ControlPlaneClient {
  const { url, caData, adminToken, folder, binaries } = access;
  const request: AdminRequest = async (method, path, body) =>
    requestJson({
      method,
      url: url + path,
      ca: caData,
      token: adminToken,
      body,
      timeoutMs: REQUEST_TIMEOUT_MS,
    });
  return {
    ...access,
    request,
    async kubectl(args, { input, kubeconfigPath = access.kubeconfigPath } = {}) {
      return run(join(binaries, 'kubectl'), args, {
        // The working folder of the caller, so that -f accepts relative paths.
        cwd: process.cwd(),
        env: {
          PATH: process.env['PATH'],
          // Not the user's home, which may contain a kuberc and a discovery cache of another cluster.
          HOME: folder,
          KUBECONFIG: kubeconfigPath,
          KUBECACHEDIR: join(folder, 'kubectl-cache'),
        },
        timeoutMs: KUBECTL_TIMEOUT_MS,
        ...(input === undefined ? {} : { input }),
      });
    },
    async kubeconfigFor(account) {
      const token = await createServiceAccountToken(request, account);
      const { namespace, serviceAccount } = account;
      const path = join(folder, `${namespace}.${serviceAccount}.kubeconfig`);
      const content = renderKubeconfig({ url, ca: caData, user: serviceAccount, token, namespace });
      return { token, kubeconfigPath: await writeSecret(path, content) };
    },
  };
}

function logToStderr(error: ControlPlaneError): void {
  process.stderr.write(`control-plane: ${error.message}\n`);
}
