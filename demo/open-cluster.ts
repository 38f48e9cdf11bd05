import { PUBLISHED_BINARIES } from '../control-plane/binaries.ts';
import { ControlPlaneError } from '../control-plane/errors.ts';
import { resolveBinaries } from '../control-plane/resolve.ts';
import { startControlPlane } from '../control-plane/start.ts';
import { EMBEDDED_DESCRIPTION, startEmbeddedApiServer } from '../embedded-api-server/start.ts';
import { OPERATOR_RBAC_RULES } from '../test/support/operator-process.ts';
import type { Cluster } from './cluster.ts';
import { findKubectl, requireSuccess, runKubectl } from './kubectl.ts';
import { runTableCommand } from './table-command.ts';
import { connectToUserCluster } from './user-cluster.ts';

const CRD_FOLDER = new URL('../crds', import.meta.url).pathname;
const NAMESPACE = 'default';

/** Which cluster to open. */
export interface ClusterOptions {
  /** The kubeconfig of the user's cluster; undefined for a temporary cluster. */
  readonly kubeconfigPath?: string | undefined;
  /**
   * Whether a temporary cluster must have a real API server, which is built if necessary. Default: one that is cached or
   * can be downloaded, otherwise the embedded one.
   */
  readonly real?: boolean;
}

/** Opens the cluster and applies the CRDs. */
export async function openCluster({ kubeconfigPath, real = false }: ClusterOptions = {}): Promise<Cluster> {
  if (kubeconfigPath !== undefined) return await withCrds(await connectToUserCluster(kubeconfigPath));
  if (real || (await isControlPlaneAvailable())) return await withCrds(await startRealCluster());
  return await startEmbeddedCluster();
}

/** Reports whether a control plane is cached or could be downloaded. */
async function isControlPlaneAvailable(): Promise<boolean> {
  try {
    await resolveBinaries(PUBLISHED_BINARIES, { allow: 'download' });
    return true;
  } catch (error) {
    // KUBEBUILDER_ASSETS is an explicit choice.
    if (!(error instanceof ControlPlaneError) || (process.env['KUBEBUILDER_ASSETS'] ?? '') !== '')
      throw error;
    return false;
  }
}

async function startRealCluster(): Promise<Cluster> {
  const controlPlane = await startControlPlane();
  const account = {
    namespace: NAMESPACE,
    serviceAccount: 'reverse-tunnel-operator',
    rules: OPERATOR_RBAC_RULES,
  };
  const operator = await controlPlane.kubeconfigFor(account);
  return {
    namespace: NAMESPACE,
    description: `kube-apiserver and etcd, ${controlPlane.url}`,
    kubeconfigPath: controlPlane.kubeconfigPath,
    operatorKubeconfigPath: operator.kubeconfigPath,
    kubectlFolder: controlPlane.binaries,
    kubectl: async (...args) => requireSuccess(args, await controlPlane.kubectl(args)),
    request: controlPlane.request,
    close: () => controlPlane.stop(),
  };
}

async function startEmbeddedCluster(): Promise<Cluster> {
  const server = await startEmbeddedApiServer();
  console.log(`Using the ${EMBEDDED_DESCRIPTION}; npm run demo -- --real builds etcd and kube-apiserver`);
  const kubectl = await findKubectl();
  if (kubectl === undefined)
    console.log('kubectl is not installed: the demo prints the tables of the API server');
  return {
    namespace: NAMESPACE,
    description: `embedded API server, ${server.url}`,
    kubeconfigPath: server.kubeconfigPath,
    operatorKubeconfigPath: server.kubeconfigPath,
    kubectlFolder: kubectl?.folder,
    kubectl: async (...args) =>
      kubectl === undefined
        ? await runTableCommand(server, NAMESPACE, args)
        : await runKubectl(kubectl, ['--kubeconfig', server.kubeconfigPath, '-n', NAMESPACE, ...args]),
    request: server.request,
    close: () => server.stop(),
  };
}

async function withCrds(cluster: Cluster): Promise<Cluster> {
  try {
    await cluster.kubectl('apply', '--server-side', '-f', CRD_FOLDER);
    await cluster.kubectl('wait', '--for=condition=Established', '--timeout=30s', '-f', CRD_FOLDER);
    return cluster;
  } catch (error) {
    await cluster.close();
    throw error;
  }
}
