import {
  type CredentialSource,
  createCredentialSource,
  containsCertificate,
  type Credentials,
  type CredentialLoader,
} from './credentials.ts';
import { access, readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import type { Clock } from '../clock.ts';
import { isIPv6 } from 'node:net';
import { errorMessage } from '../error-message.ts';
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { KubeconfigResult, ResolvedKubeconfig } from './kubeconfig-resolver.ts';

/** Where the API server is, and how to prove who one is. */
export interface Connection {
  readonly server: URL;
  /** Proxy to go through, as the kubeconfig has it. */
  readonly proxyUrl: string | undefined;
  /** The pod's namespace, or the context's; undefined when neither says one. */
  readonly namespace: string | undefined;
  /** Where this was found, for the log: `in-cluster`, or the kubeconfig's path and context. */
  readonly source: string;
  readonly credentials: CredentialSource;
}

/** There is no way to the API server: one line that says what was looked at, what is wrong there, and what to do. */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError';
}

/** The server as log lines name it, with the proxy in front of it; without the proxy's password. */
export function describeServer({ server, proxyUrl }: Pick<Connection, 'server' | 'proxyUrl'>): string {
  if (proxyUrl === undefined) return server.origin;
  const { protocol, host } = new URL(proxyUrl);
  return `${server.origin} through the proxy ${protocol}//${host}`;
}

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

/** The sibling program: beside this file in `src` as TypeScript, in `dist` as JavaScript. */
const RESOLVER_PATH = fileURLToPath(
  new URL(`./kubeconfig-resolver${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url),
);

/** For an exec plugin that asks its provider over the network; one that waits for a person never answers. */
const RESOLVER_TIMEOUT_MS = 60_000;

/**
 * The connection of a context of kubeconfig files that exist, the current one unless another is wanted. The credentials are worked out again, in the
 * same way, when they expire or are refused; a token file is read again meanwhile.
 */
export async function connectWithKubeconfig(
  paths: readonly string[],
  clock: Clock,
  contextName?: string,
): Promise<Connection> {
  const args = [...(contextName === undefined ? [] : [`--context=${contextName}`]), '--', ...paths];
  const source = `kubeconfig ${paths.join(', ')}`;
  const initial = await runResolver(source, args);
  const { server, proxyUrl, namespace, context } = initial;
  let { tokenFile } = initial;
  const loader: CredentialLoader = {
    async renew() {
      const renewed = await runResolver(source, args);
      // The connections stand to the old one, and new credentials are not for it.
      if (renewed.server !== server) {
        throw new ConnectionError(
          `${source}: server changed from ${server} to ${renewed.server}; restart to apply it`,
        );
      }
      // The user may have moved from one kind of credentials to another.
      tokenFile = renewed.tokenFile;
      return toCredentials(renewed);
    },
    async reload(last) {
      if (tokenFile === undefined) return last;
      const token = (await readFile(tokenFile, 'utf8')).trim();
      // As it is for a moment where a file is written over instead of being replaced.
      return token === '' ? last : { ...last, authorization: `Bearer ${token}` };
    },
  };
  return {
    server: new URL(server),
    proxyUrl,
    namespace,
    source: `${source}, context ${context}`,
    credentials: createCredentialSource(toCredentials(initial), loader, clock),
  };
}

/** The part that is allowed to change while the operator runs. */
function toCredentials(resolved: ResolvedKubeconfig): Credentials {
  const { ca, cert, key, serverName, authorization, impersonateUser, expiresAtMs } = resolved;
  return { ca, cert, key, serverName, authorization, impersonateUser, expiresAtMs };
}

/** Runs the program once. Rejects with `ConnectionError`: what it said, or how it ended without saying anything. */
function runResolver(source: string, args: readonly string[]): Promise<ResolvedKubeconfig> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      process.execPath,
      [RESOLVER_PATH, ...args],
      { timeout: RESOLVER_TIMEOUT_MS, maxBuffer: 16 * 1024 * 1024 },
      (failure, stdout, stderr) => {
        const result = parseResult(stdout);
        if (result !== undefined && 'resolved' in result) resolve(result.resolved);
        else if (result !== undefined) reject(new ConnectionError(result.error));
        else if (failure?.killed === true) {
          reject(
            new ConnectionError(
              `${source}: credentials not available within ${RESOLVER_TIMEOUT_MS / 1000} s`,
            ),
          );
        } else {
          const errorLine = stderr.split('\n').find((line) => /error/i.test(line)) ?? 'no error output';
          reject(
            new ConnectionError(`${source}: cannot resolve credentials: ${errorLine.trim()}`, {
              cause: failure,
            }),
          );
        }
      },
    );
    // Nobody types here: a plugin that asks for a password reads the end at once instead of waiting.
    child.stdin?.end();
  });
}

/** The last line, since an exec plugin's libraries may print before it; undefined when the program did not get there. */
function parseResult(stdout: string): KubeconfigResult | undefined {
  try {
    const result: KubeconfigResult = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '');
    return result;
  } catch {
    return undefined;
  }
}
