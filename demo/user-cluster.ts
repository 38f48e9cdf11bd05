import { randomBytes } from 'node:crypto';
import type { Cluster } from './cluster.ts';
import { provideKubectl, runKubectl } from './kubectl.ts';

/** Connects to the user's cluster, and creates a namespace there. */
export async function connectToUserCluster(kubeconfigPath: string): Promise<Cluster> {
  const namespace = `reverse-tunnel-demo-${randomBytes(3).toString('hex')}`;
  const found = await provideKubectl();
  const kubectl = (...args: string[]): Promise<string> =>
    runKubectl(found, ['--kubeconfig', kubeconfigPath, '-n', namespace, ...args]);
  await kubectl('create', 'namespace', namespace);
  return {
    namespace,
    description: `your cluster, namespace ${namespace}`,
    kubeconfigPath,
    operatorKubeconfigPath: kubeconfigPath,
    kubectlFolder: found.folder,
    kubectl,
    async request(_method, path) {
      return { status: 200, body: JSON.parse(await kubectl('get', '--raw', path)) as unknown };
    },
    async close() {
      await kubectl('delete', 'namespace', namespace, '--wait=false');
    },
  };
}
