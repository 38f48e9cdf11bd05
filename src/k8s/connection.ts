import { execFile } from 'node:child_process';
import { access, readFile } from 'node:fs/promises';
import { isIPv6 } from 'node:net';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Clock } from '../clock.ts';
import { errorMessage } from '../error-message.ts';
import {
  type CredentialSource,
  createCredentialSource,
  containsCertificate,
  type Credentials,
  type CredentialLoader,
} from './credentials.ts';
import type { KubeconfigResult, ResolvedKubeconfig } from './kubeconfig-resolver.ts';

/** An API server's address and the credentials for it. */
export interface Connection {
  readonly server: URL;
  /** Proxy from the kubeconfig. */
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
  /** Context to use instead of the current one; if set, only kubeconfig files are used. */
  readonly context?: string | undefined;
  /** Environment of the process: KUBERNETES_SERVICE_HOST and _PORT, KUBECONFIG, HOME. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  /** Mount path of the pod's service account; tests set it. */
  readonly serviceAccountDirectory?: string;
}

/**
 * Finds the API server. The order is: the given kubeconfig, the pod's service account, KUBECONFIG (a list of files,
 * of which missing ones are ignored), `~/.kube/config`. Rejects with `ConnectionError`.
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
    // A file that exists but is not readable fails later, when it is read.
    return error instanceof Error && 'code' in error && error.code === 'EACCES';
  }
}

/** Where Kubernetes mounts a pod's service account. */
const SERVICE_ACCOUNT_DIRECTORY = '/var/run/secrets/kubernetes.io/serviceaccount';

/**
 * Connects with a pod's service account. The kubelet rotates `token` and `ca.crt`, so they are reloaded; `namespace`
 * is read once. It does not use @kubernetes/client-node, which would cost 60 MiB of memory for these few lines.
 */
async function connectInCluster(
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

/** The resolver program in the same directory: TypeScript in `src`, JavaScript in `dist`. */
const RESOLVER_PATH = fileURLToPath(
  new URL(`./kubeconfig-resolver${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url),
);

/**
 * Allows for an exec plugin that asks its provider over the network. A plugin that waits for user input never
 * returns.
 */
const RESOLVER_TIMEOUT_MS = 60_000;

/**
 * Connects with a context of existing kubeconfig files. The credentials are resolved again when they expire or are
 * rejected; a token file is reloaded in between.
 * @param contextName default: the current context
 */
async function connectWithKubeconfig(
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
      // The existing connections lead to the old server, and the new credentials are not meant for it.
      if (renewed.server !== server) {
        throw new ConnectionError(
          `${source}: server changed from ${server} to ${renewed.server}; restart to apply it`,
        );
      }
      // The user may have switched to another kind of credentials.
      tokenFile = renewed.tokenFile;
      return toCredentials(renewed);
    },
    async reload(last) {
      if (tokenFile === undefined) return last;
      const token = (await readFile(tokenFile, 'utf8')).trim();
      // A file that is overwritten in place instead of being replaced is empty for a moment.
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

/** Returns the part that may change while the operator runs. */
function toCredentials(resolved: ResolvedKubeconfig): Credentials {
  const { ca, cert, key, serverName, authorization, impersonateUser, expiresAtMs } = resolved;
  return { ca, cert, key, serverName, authorization, impersonateUser, expiresAtMs };
}

/**
 * Runs the resolver once. Rejects with `ConnectionError`, which contains the resolver's error or how it ended without
 * one.
 */
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
    // Without input, a plugin that asks for a password fails immediately instead of waiting.
    child.stdin?.end();
  });
}

/**
 * Parses the last line, because libraries of an exec plugin may print before it. Returns undefined if the resolver
 * printed no result.
 */
function parseResult(stdout: string): KubeconfigResult | undefined {
  try {
    const result: KubeconfigResult = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '');
    return result;
  } catch {
    return undefined;
  }
}
