import { randomBytes } from 'node:crypto';
import { resolveBinaries } from '../control-plane/resolve.ts';
import { run } from '../control-plane/run.ts';
import type { AdminRequest } from '../control-plane/service-account.ts';
import { startControlPlane } from '../control-plane/start.ts';
import { OPERATOR_RBAC_RULES } from '../test/support/operator-process.ts';

/** The cluster of the demo: a temporary one on this machine, or the cluster of the user's kubeconfig. */

const CRD_FOLDER = new URL('../crds', import.meta.url).pathname;
const KUBECTL_TIMEOUT_MS = 60_000;

/** The cluster of the demo. */
export interface Cluster {
  readonly namespace: string;
  /** The kubeconfig for the user of the demo. */
  readonly kubeconfigPath: string;
  /** The kubeconfig for the operator; in a temporary cluster, it has exactly the operator's permissions. */
  readonly operatorKubeconfigPath: string;
  /** The folder of the kubectl that the demo uses, for users without kubectl. */
  readonly kubectlFolder: string;
  /** Runs kubectl in the namespace of the demo. Rejects with the error of kubectl. */
  kubectl(...args: string[]): Promise<string>;
  /** Sends a GET with the permissions of the user, and resolves with any status. */
  readonly request: AdminRequest;
  /** Removes everything except for the CRDs in a user's cluster. */
  close(): Promise<void>;
}

/**
 * Opens the cluster and applies the CRDs.
 *
 * @param kubeconfigPath the kubeconfig of the user's cluster; undefined for a temporary cluster
 */
export async function openCluster(kubeconfigPath: string | undefined): Promise<Cluster> {
  const cluster =
    kubeconfigPath === undefined ? await startOwnCluster() : await connectToUserCluster(kubeconfigPath);
  try {
    await cluster.kubectl('apply', '--server-side', '-f', CRD_FOLDER);
    await cluster.kubectl('wait', '--for=condition=Established', '--timeout=30s', '-f', CRD_FOLDER);
    return cluster;
  } catch (error) {
    await cluster.close();
    throw error;
  }
}

async function startOwnCluster(): Promise<Cluster> {
  const namespace = 'default';
  console.log('Starting etcd and kube-apiserver on this machine …');
  const controlPlane = await startControlPlane();
  const account = { namespace, serviceAccount: 'reverse-tunnel-operator', rules: OPERATOR_RBAC_RULES };
  const operator = await controlPlane.kubeconfigFor(account);
  return {
    namespace,
    kubeconfigPath: controlPlane.kubeconfigPath,
    operatorKubeconfigPath: operator.kubeconfigPath,
    kubectlFolder: controlPlane.binaries,
    kubectl: async (...args) => requireSuccess(args, await controlPlane.kubectl(args)),
    request: controlPlane.request,
    close: () => controlPlane.stop(),
  };
}

async function connectToUserCluster(kubeconfigPath: string): Promise<Cluster> {
  const namespace = `reverse-tunnel-demo-${randomBytes(3).toString('hex')}`;
  const { folder } = await resolveBinaries(['kubectl']);
  const kubectl = async (...args: string[]): Promise<string> => {
    const result = await run(
      `${folder}/kubectl`,
      ['--kubeconfig', kubeconfigPath, '-n', namespace, ...args],
      {
        cwd: process.cwd(),
        env: process.env,
        timeoutMs: KUBECTL_TIMEOUT_MS,
      },
    );
    return requireSuccess(args, result);
  };
  await kubectl('create', 'namespace', namespace);
  return {
    namespace,
    kubeconfigPath,
    operatorKubeconfigPath: kubeconfigPath,
    kubectlFolder: folder,
    kubectl,
    async request(_method, path) {
      return { status: 200, body: JSON.parse(await kubectl('get', '--raw', path)) as unknown };
    },
    async close() {
      await kubectl('delete', 'namespace', namespace, '--wait=false');
    },
  };
}

function requireSuccess(
  args: readonly string[],
  result: { code: number | undefined; stdout: string; stderr: string },
): string {
  if (result.code === 0) return result.stdout;
  const [line = `exit code ${result.code}`] = result.stderr.trim().split('\n');
  throw new DemoError(`kubectl ${args.join(' ')}: ${line}`);
}

/** The demo cannot continue, or a step had an unexpected result. */
export class DemoError extends Error {
  override readonly name = 'DemoError';
}
