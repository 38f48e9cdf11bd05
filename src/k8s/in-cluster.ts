import { readFile } from 'node:fs/promises';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import { errorMessage } from '../error-message.ts';
import { ConnectionError, type Connection } from './connection.ts';
import { createCredentialSource, containsCertificate, type Credentials } from './credentials.ts';

/** Where Kubernetes mounts a pod's service account. */
export const SERVICE_ACCOUNT_DIRECTORY = '/var/run/secrets/kubernetes.io/serviceaccount';

/**
 * The connection of a pod by its service account: `token` and `ca.crt`, both rotated by the kubelet and therefore read
 * again, and `namespace`. Not by @kubernetes/client-node, for it is these few lines against 60 MiB of memory.
 */
export async function connectInCluster(
  host: string,
  port: string,
  directory: string,
  clock: Clock,
): Promise<Connection> {
  async function load(): Promise<Credentials> {
    const [tokenPath, caPath] = [join(directory, 'token'), join(directory, 'ca.crt')];
    const [text, ca] = await Promise.all([read(tokenPath), read(caPath)]);
    const token = text.trim();
    if (token === '') throw new ConnectionError(`service account: ${tokenPath} is empty`);
    if (!containsCertificate(ca))
      throw new ConnectionError(`service account: ${caPath} contains no certificate`);
    return { ca, authorization: `Bearer ${token}` };
  }
  const initial = await load();
  const namespace = await readFile(join(directory, 'namespace'), 'utf8').catch(() => '');
  return {
    server: new URL(`https://${isIPv6(host) ? `[${host}]` : host}:${port}`),
    proxyUrl: undefined,
    namespace: namespace.trim() === '' ? undefined : namespace.trim(),
    source: 'in-cluster',
    credentials: createCredentialSource(initial, { renew: load, reload: load }, clock),
  };
}

async function read(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new ConnectionError(`service account: ${errorMessage(error)}`, { cause: error });
  }
}
