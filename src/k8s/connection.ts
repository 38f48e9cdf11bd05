import { access, readFile } from 'node:fs/promises';
import { isIPv6 } from 'node:net';
import { delimiter, join } from 'node:path';
import type { Clock } from '../clock.ts';
import { errorMessage } from '../error-message.ts';
import {
  type CredentialSource,
  createCredentialSource,
  containsCertificate,
  type Credentials,
  type CredentialLoader,
} from './credentials.ts';
import { KubeconfigError } from './kubeconfig-merge.ts';
import {
  readContext,
  resolveContext,
  type KubeconfigRules,
  type ResolvedKubeconfig,
} from './kubeconfig-resolver.ts';

/** An API server's address and the credentials for it. */
export interface Connection {
  readonly server: URL;
  /** Proxy from the kubeconfig, or with kubectl's rules from the environment. */
  readonly proxyUrl: string | undefined;
  /** Namespace of the pod or of the kubeconfig context; undefined if neither sets one. */
  readonly namespace: string | undefined;
  /** Origin of the configuration, for logs: `in-cluster`, or the kubeconfig's path and context. */
  readonly source: string;
  readonly credentials: CredentialSource;
}

/**
 * No usable configuration of an API server. The message is one line: what was checked, what is wrong, how to fix it.
 */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError';
}

/** Returns the server's URL for logs, and the proxy's URL without its password. */
export function describeServer({ server, proxyUrl }: Pick<Connection, 'server' | 'proxyUrl'>): string {
  if (proxyUrl === undefined) return server.origin;
  const { protocol, host } = new URL(proxyUrl);
  return `${server.origin} through the proxy ${protocol}//${host}`;
}

/** The sources of an API server's configuration. */
export interface ConnectionOptions {
  /** Path given by the user; if set, no other source is used. */
  readonly kubeconfig: string | undefined;
  /** Environment of the process: KUBERNETES_SERVICE_HOST and _PORT, KUBECONFIG, HOME. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  /** Mount path of the pod's service account; tests set it. */
  readonly serviceAccountDirectory?: string;
}

/**
 * Finds the API server of the operator. The order is: the given kubeconfig, the pod's service account, KUBECONFIG (a list
 * of files, of which missing ones are ignored), `~/.kube/config`. Rejects with `ConnectionError`.
 */
export async function resolveConnection(options: ConnectionOptions): Promise<Connection> {
  const { env, clock, kubeconfig } = options;
  const rules: KubeconfigRules = {
    terminal: { hasInput: false, inheritsStderr: false, timeoutMs: PLUGIN_TIMEOUT_MS, env },
    acceptsInsecureServers: false,
  };
  if (kubeconfig !== undefined) {
    if (!(await exists(kubeconfig))) throw new ConnectionError(`kubeconfig ${kubeconfig}: no such file`);
    return connectWithKubeconfig([kubeconfig], rules, clock);
  }

  const directory = options.serviceAccountDirectory ?? SERVICE_ACCOUNT_DIRECTORY;
  const pod = await findPod(env, directory);
  if (pod !== undefined) return connectInCluster(pod, clock);

  const kubeconfigPaths = kubeconfigList(env);
  if (kubeconfigPaths.length > 0) {
    const existingPaths = await existingFiles(kubeconfigPaths);
    if (existingPaths.length === 0)
      throw new ConnectionError(`KUBECONFIG=${env['KUBECONFIG']}: no such file`);
    return connectWithKubeconfig(existingPaths, rules, clock);
  }

  const defaultPath = defaultKubeconfig(env);
  if (defaultPath !== undefined && (await exists(defaultPath)))
    return connectWithKubeconfig([defaultPath], rules, clock);
  throw new ConnectionError(
    `no API server configured: ${describePod(env, directory)}, KUBECONFIG is not set and ` +
      `${defaultPath === undefined ? 'HOME is not set' : `${defaultPath} does not exist`}; set --kubeconfig`,
  );
}

/** Returns the files in KUBECONFIG, without duplicates. */
export function kubeconfigList(env: ConnectionOptions['env']): string[] {
  return [...new Set((env['KUBECONFIG'] ?? '').split(delimiter).filter((path) => path !== ''))];
}

/**
 * Returns the default path of the kubeconfig; undefined without HOME. `os.homedir` is not used: it throws for a user ID
 * that the system does not know, as is common in containers, and kubectl reads HOME as well.
 */
export function defaultKubeconfig(env: ConnectionOptions['env']): string | undefined {
  const home = env['HOME'];
  return home === undefined || home === '' ? undefined : join(home, '.kube', 'config');
}

/** Returns the paths that exist, in the same order. */
export async function existingFiles(paths: readonly string[]): Promise<string[]> {
  const existingPaths: string[] = [];
  for (const path of paths) if (await exists(path)) existingPaths.push(path);
  return existingPaths;
}

/** The API server of a pod, and the mounted service account. */
export interface Pod {
  readonly host: string;
  readonly port: string;
  readonly directory: string;
}

/** Returns the pod in which this process runs; undefined outside of pods and without a mounted service account. */
export async function findPod(
  env: ConnectionOptions['env'],
  directory: string = SERVICE_ACCOUNT_DIRECTORY,
): Promise<Pod | undefined> {
  const host = env['KUBERNETES_SERVICE_HOST'] ?? '';
  const port = env['KUBERNETES_SERVICE_PORT'] ?? '';
  if (host === '' || port === '' || !(await exists(join(directory, 'token')))) return undefined;
  return { host, port, directory };
}

/** Describes why `findPod` returned undefined. */
export function describePod(
  env: ConnectionOptions['env'],
  directory: string = SERVICE_ACCOUNT_DIRECTORY,
): string {
  const { KUBERNETES_SERVICE_HOST: host = '', KUBERNETES_SERVICE_PORT: port = '' } = env;
  return host === '' || port === '' ? 'not in a pod' : `no service account token in ${directory}`;
}

/** Reports whether a file exists, readable or not. */
export async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    // A file that exists but is not readable fails later, when it is read.
    return error instanceof Error && 'code' in error && error.code === 'EACCES';
  }
}

/** Where Kubernetes mounts a pod's service account. */
const SERVICE_ACCOUNT_DIRECTORY = '/var/run/secrets/kubernetes.io/serviceaccount';

/**
 * Connects with a pod's service account. The kubelet rotates `token` and `ca.crt`, so they are reloaded; `namespace`
 * is read once.
 *
 * @param overrides credentials that replace those of the service account
 */
export async function connectInCluster(
  { host, port, directory }: Pod,
  clock: Clock,
  overrides: Credentials = {},
): Promise<Connection> {
  async function load(): Promise<Credentials> {
    const [tokenPath, caPath] = [join(directory, 'token'), join(directory, 'ca.crt')];
    const [text, ca] = await Promise.all([read(tokenPath), read(caPath)]);
    const token = text.trim();
    if (token === '') throw new ConnectionError(`service account: ${tokenPath} is empty`);
    if (!containsCertificate(ca))
      throw new ConnectionError(`service account: ${caPath} contains no certificate`);
    return { ca, authorization: `Bearer ${token}`, ...overrides };
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

/** Allows for an exec plugin that asks its provider over the network. */
const PLUGIN_TIMEOUT_MS = 60_000;

/**
 * Connects with a context of existing kubeconfig files. The credentials are resolved again when they expire or are
 * rejected; a token file is reloaded in between. Rejects with `ConnectionError`.
 */
export async function connectWithKubeconfig(
  paths: readonly string[],
  rules: KubeconfigRules,
  clock: Clock,
): Promise<Connection> {
  const source = `kubeconfig ${paths.join(', ')}`;
  const resolve = (): Promise<ResolvedKubeconfig> => resolveOnce(paths, rules);
  const initial = await resolve();
  const { server, proxyUrl, namespace, context } = initial;
  let { tokenFile } = initial;
  const loader: CredentialLoader = {
    async renew() {
      const renewed = await resolve();
      // The existing connections lead to the old server, and the new credentials are not meant for it.
      if (renewed.server.href !== server.href) {
        throw new ConnectionError(
          `${source}: server changed from ${server.href} to ${renewed.server.href}; restart to apply it`,
        );
      }
      // The user may have switched to another kind of credentials.
      tokenFile = renewed.tokenFile;
      return renewed.credentials;
    },
    async reload(last) {
      if (tokenFile === undefined) return last;
      const token = (await readFile(tokenFile, 'utf8')).trim();
      // A file that is overwritten in place instead of being replaced is empty for a moment.
      return token === '' ? last : { ...last, authorization: `Bearer ${token}` };
    },
  };
  return {
    server,
    proxyUrl,
    namespace,
    source: context === '' ? source : `${source}, context ${context}`,
    credentials: createCredentialSource(initial.credentials, loader, clock),
  };
}

async function resolveOnce(paths: readonly string[], rules: KubeconfigRules): Promise<ResolvedKubeconfig> {
  try {
    return await resolveContext(await readContext(paths, rules.overrides), rules);
  } catch (error) {
    if (!(error instanceof KubeconfigError)) throw error;
    throw new ConnectionError(error.message, { cause: error });
  }
}
