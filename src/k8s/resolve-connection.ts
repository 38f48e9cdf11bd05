import { access } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import type { Clock } from '../clock.ts';
import { ConnectionError, type Connection } from './connection.ts';
import { connectInCluster, SERVICE_ACCOUNT_DIRECTORY } from './in-cluster.ts';
import { connectWithKubeconfig } from './kubeconfig.ts';

/** Where to look for an API server. */
export interface ConnectionOptions {
  /** Path given by the user; only this file counts then. */
  readonly kubeconfig: string | undefined;
  /** Context to take instead of the current one. With it only kubeconfig files count. */
  readonly context?: string | undefined;
  /** The process's environment: KUBERNETES_SERVICE_HOST and _PORT, KUBECONFIG, HOME. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  /** Where the pod's service account is mounted; for tests. */
  readonly serviceAccountDirectory?: string;
}

/**
 * Finds the API server: the kubeconfig given, else the pod's service account, else KUBECONFIG (a list of files, of which
 * missing ones are passed over), else `~/.kube/config`. Rejects with `ConnectionError`.
 */
export async function resolveConnection(options: ConnectionOptions): Promise<Connection> {
  const { env, clock, kubeconfig, context } = options;
  if (kubeconfig !== undefined) {
    if (!(await exists(kubeconfig))) throw new ConnectionError(`kubeconfig ${kubeconfig}: no such file`);
    return connectWithKubeconfig([kubeconfig], clock, context);
  }

  const directory = options.serviceAccountDirectory ?? SERVICE_ACCOUNT_DIRECTORY;
  const host = env['KUBERNETES_SERVICE_HOST'];
  const port = env['KUBERNETES_SERVICE_PORT'];
  const inPod = host !== undefined && host !== '' && port !== undefined && port !== '';
  if (inPod && context === undefined && (await exists(join(directory, 'token')))) {
    return connectInCluster(host, port, directory, clock);
  }

  const kubeconfigPaths = (env['KUBECONFIG'] ?? '').split(delimiter).filter((path) => path !== '');
  if (kubeconfigPaths.length > 0) {
    const existingPaths: string[] = [];
    for (const path of kubeconfigPaths) if (await exists(path)) existingPaths.push(path);
    if (existingPaths.length === 0)
      throw new ConnectionError(`KUBECONFIG=${env['KUBECONFIG']}: no such file`);
    return connectWithKubeconfig(existingPaths, clock, context);
  }

  const defaultPath = join(env['HOME'] ?? homedir(), '.kube', 'config');
  if (await exists(defaultPath)) return connectWithKubeconfig([defaultPath], clock, context);
  throw new ConnectionError(
    `no API server configured: ${inPod ? `no service account token in ${directory}` : 'not in a pod'}, ` +
      `KUBECONFIG is not set and ${defaultPath} does not exist; set --kubeconfig`,
  );
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    // One that is there but must not be read is an error of its own, met when it is read.
    return error instanceof Error && 'code' in error && error.code === 'EACCES';
  }
}
