import { readFile } from 'node:fs/promises';
import type { Clock } from '../clock.ts';
import { errorMessage } from '../error-message.ts';
import {
  connectInCluster,
  connectWithKubeconfig,
  ConnectionError,
  defaultKubeconfig,
  describePod,
  existingFiles,
  exists,
  findPod,
  kubeconfigList,
  type Connection,
  type Pod,
} from './connection.ts';
import type { Credentials } from './credentials.ts';
import { KubeconfigError, type CurrentContext, type KubeconfigOverrides } from './kubeconfig-merge.ts';
import {
  readContext,
  readImpersonation,
  type BasicCredentials,
  type KubeconfigRules,
} from './kubeconfig-resolver.ts';
import { proxyErrors } from './kubeconfig-validation.ts';
import { proxyFromEnvironment } from './proxy-environment.ts';

/** The sources of a connection that a user's command opens. */
export interface KubectlConnectionOptions {
  /** Path given by the user; if set, no other file is read. */
  readonly kubeconfig: string | undefined;
  readonly overrides: KubeconfigOverrides;
  /** Environment of the process: KUBECONFIG, HOME, KUBERNETES_*, POD_NAMESPACE, proxies. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  /**
   * Asks the user for a name and a password. Undefined if standard input is not a terminal; an exec plugin then gets no
   * input either.
   */
  readonly askForCredentials: (() => Promise<BasicCredentials>) | undefined;
  /** Mount path of the pod's service account; tests set it. */
  readonly serviceAccountDirectory?: string;
}

/**
 * Finds the API server as kubectl does (client-go's clientcmd): the given kubeconfig, otherwise the files in KUBECONFIG,
 * otherwise `~/.kube/config`, each with the overrides; the pod's service account only if these contain no server. Rejects
 * with `ConnectionError`.
 *
 * It differs from kubectl in two points. Without any server, kubectl connects to http://localhost:8080, whose error
 * message hides the cause. And in a pod, kubectl also connects there if an account to impersonate is given.
 */
export async function resolveKubectlConnection(options: KubectlConnectionOptions): Promise<Connection> {
  const { env, clock, overrides, askForCredentials } = options;
  const paths = await findFiles(options);
  const context = await readSelected(paths, overrides);
  const pod = await findPod(env, options.serviceAccountDirectory);
  if (context.noServer !== undefined) {
    if (pod !== undefined) return await connectPod(pod, options);
    const server = env['KUBERNETES_MASTER'] ?? '';
    if (server !== '') {
      const clusterFields = { ...overrides.clusterFields, server };
      return await resolveKubectlConnection({ ...options, overrides: { ...overrides, clusterFields } });
    }
    throw new ConnectionError(explainMissingServer(paths, context, options));
  }
  const rules: KubeconfigRules = {
    overrides,
    terminal: { hasInput: askForCredentials !== undefined, inheritsStderr: true, timeoutMs: undefined, env },
    acceptsInsecureServers: true,
    askForCredentials: rememberAnswer(options, context),
  };
  const connection = await connectWithKubeconfig(paths, rules, clock);
  return {
    ...connection,
    proxyUrl: connection.proxyUrl ?? environmentProxy(connection.server, env),
    namespace: connection.namespace ?? (pod === undefined ? undefined : await podNamespace(pod, env)),
  };
}

/** Returns the kubeconfig files that exist. Only a file given by the user must exist. */
async function findFiles({ kubeconfig, env }: KubectlConnectionOptions): Promise<string[]> {
  if (kubeconfig !== undefined) {
    if (!(await exists(kubeconfig))) throw new ConnectionError(`kubeconfig ${kubeconfig}: no such file`);
    return [kubeconfig];
  }
  const home = defaultKubeconfig(env);
  const listed = (env['KUBECONFIG'] ?? '') === '' ? (home === undefined ? [] : [home]) : kubeconfigList(env);
  return await existingFiles(listed);
}

async function readSelected(
  paths: readonly string[],
  overrides: KubeconfigOverrides,
): Promise<CurrentContext> {
  try {
    return await readContext(paths, overrides);
  } catch (error) {
    if (!(error instanceof KubeconfigError)) throw error;
    throw new ConnectionError(error.message, { cause: error });
  }
}

function explainMissingServer(
  paths: readonly string[],
  context: CurrentContext,
  { env, serviceAccountDirectory }: KubectlConnectionOptions,
): string {
  if (paths.length > 0) return `${context.source}: ${context.noServer}`;
  const home = defaultKubeconfig(env);
  const files =
    (env['KUBECONFIG'] ?? '') === ''
      ? `KUBECONFIG is not set and ${home === undefined ? 'HOME is not set' : `${home} does not exist`}`
      : `KUBECONFIG=${env['KUBECONFIG']}: no such file`;
  return `no API server configured: ${files}, ${describePod(env, serviceAccountDirectory)}; set --kubeconfig or --server`;
}

/** Connects with the pod's service account and the flags that kubectl applies to it. */
async function connectPod(
  pod: Pod,
  { env, clock, overrides }: KubectlConnectionOptions,
): Promise<Connection> {
  const token = overrides.userFields?.['token'];
  const caPath = overrides.clusterFields?.['certificate-authority'];
  const impersonation = readImpersonation(overrides.userFields ?? {});
  let credentials: Credentials = impersonation === undefined ? {} : { impersonation };
  if (typeof token === 'string' && token !== '')
    credentials = { ...credentials, authorization: `Bearer ${token}` };
  if (typeof caPath === 'string' && caPath !== '') {
    const ca = await readFile(caPath, 'utf8').catch((error: unknown) => {
      throw new ConnectionError(`--certificate-authority: ${errorMessage(error)}`, { cause: error });
    });
    credentials = { ...credentials, ca };
  }
  const connection = await connectInCluster(pod, clock, credentials);
  return {
    ...connection,
    proxyUrl: environmentProxy(connection.server, env),
    namespace: await podNamespace(pod, env),
  };
}

/** Returns the namespace of the pod; undefined if it is unknown. */
async function podNamespace(
  { directory }: Pod,
  env: KubectlConnectionOptions['env'],
): Promise<string | undefined> {
  const name = env['POD_NAMESPACE'] ?? '';
  if (name !== '') return name;
  const content = await readFile(`${directory}/namespace`, 'utf8').catch(() => '');
  return content.trim() === '' ? undefined : content.trim();
}

function environmentProxy(server: URL, env: KubectlConnectionOptions['env']): string | undefined {
  const proxyUrl = proxyFromEnvironment(server, env);
  if (proxyUrl === undefined) return undefined;
  const [error] = proxyErrors('proxy of the environment', proxyUrl);
  if (error !== undefined) throw new ConnectionError(error);
  return proxyUrl;
}

/** Asks once per process, even if the credentials are renewed later. */
function rememberAnswer(
  { askForCredentials }: KubectlConnectionOptions,
  { noUser }: CurrentContext,
): () => Promise<BasicCredentials> {
  let answer: Promise<BasicCredentials> | undefined;
  return () => {
    if (askForCredentials === undefined) {
      throw new Error(
        `${noUser ?? 'user has no credentials'}, and standard input is not a terminal on which to ask for a user name and password`,
      );
    }
    answer ??= askForCredentials();
    return answer;
  };
}
