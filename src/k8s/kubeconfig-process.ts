/**
 * A program of its own, started by `kubeconfig.ts`: reads the kubeconfig files given as arguments (`--context=NAME`: that
 * context instead of the current one), has
 * @kubernetes/client-node work out the credentials (files, exec plugins, OIDC), prints one line of JSON, and ends.
 * It is a process because importing that package costs 60 MiB and half a second, which the operator would carry on.
 */
import { readFile } from 'node:fs/promises';
import type { RequestOptions } from 'node:https';
import { parseArgs } from 'node:util';
import type { KubeConfig } from '@kubernetes/client-node';
import { oneLine } from './api-error.ts';
import { holdsCertificate } from './credentials.ts';
import {
  currentContext,
  isFields,
  isText,
  KubeconfigError,
  type CurrentContext,
} from './kubeconfig-merge.ts';

/** What the program prints: everything about a connection, or why there is none. */
export type KubeconfigAnswer = { readonly resolved: ResolvedKubeconfig } | { readonly error: string };

/** A connection, as JSON carries it. */
export interface ResolvedKubeconfig extends ResolvedCredentials {
  readonly context: string;
  readonly server: string;
  readonly namespace: string | undefined;
  readonly proxyUrl: string | undefined;
}

/** As `Credentials`; what is undefined is missing from the JSON. */
export interface ResolvedCredentials {
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
  readonly serverName: string | undefined;
  readonly authorization: string | undefined;
  /** Holds the bearer token; `authorization` is what was in it now. */
  readonly tokenFile: string | undefined;
  readonly impersonateUser: string | undefined;
  /** When an exec plugin's or OIDC provider's token expires, in milliseconds since 1970. */
  readonly expiresAtMs: number | undefined;
}

/** Everything about the context, or an error of one line that begins with the files' names. */
async function resolveKubeconfig(
  paths: readonly string[],
  wanted: string | undefined,
): Promise<ResolvedKubeconfig> {
  const files = await Promise.all(paths.map(async (path) => ({ path, text: await readFile(path, 'utf8') })));
  const context = currentContext(files, wanted);
  const where = `kubeconfig ${paths.join(', ')}, context ${context.name}`;
  const server = checkedServer(where, context);
  checkUser(where, context);
  const proxyUrl = text(context.cluster['proxy-url']);
  try {
    return {
      context: context.name,
      server,
      namespace: context.namespace,
      proxyUrl: proxyUrl === undefined ? undefined : checkedProxy(where, proxyUrl),
      ...(await credentialsOf(context)),
    };
  } catch (error) {
    if (error instanceof KubeconfigError) throw error;
    throw new KubeconfigError(`${where}: ${saidBy(error)}`);
  }
}

function checkedServer(where: string, { cluster }: CurrentContext): string {
  const server = text(cluster['server']);
  if (server === undefined) throw new KubeconfigError(`${where}: cluster has no server`);
  if (!URL.canParse(server)) throw new KubeconfigError(`${where}: server ${server} is not a URL`);
  if (hasPassword(server)) {
    throw new KubeconfigError(`${where}: server URL must not contain a password`);
  }
  if (new URL(server).protocol !== 'https:') {
    throw new KubeconfigError(
      `${where}: server ${server} is not https; credentials are never sent in plaintext`,
    );
  }
  if (cluster['insecure-skip-tls-verify'] === true) {
    throw new KubeconfigError(
      `${where}: insecure-skip-tls-verify is not supported; set certificate-authority-data instead`,
    );
  }
  return server;
}

/** Fields that would be passed over silently, and so make the operator act as somebody else than the user meant. */
function checkUser(where: string, { user }: CurrentContext): void {
  for (const field of ['as-uid', 'as-groups', 'as-user-extra']) {
    if (user[field] !== undefined)
      throw new KubeconfigError(`${where}: user field ${field} is not supported`);
  }
}

function checkedProxy(where: string, proxyUrl: string): string {
  const supported = ['http:', 'https:', 'socks5:'];
  if (!URL.canParse(proxyUrl) || !supported.includes(new URL(proxyUrl).protocol)) {
    // It may hold a password, also where it is no URL.
    const said = proxyUrl.replace(/[^/]*@/, '');
    throw new KubeconfigError(`${where}: proxy-url ${said} must be http, https or socks5`);
  }
  return proxyUrl;
}

function hasPassword(url: string): boolean {
  const { username, password } = new URL(url);
  return username !== '' || password !== '';
}

/** What client-node makes of the user: it reads the files, runs the plugin, refreshes the OIDC token. */
async function credentialsOf(context: CurrentContext): Promise<ResolvedCredentials> {
  const { KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  // JSON is YAML. Only the entries in use, without the proxy: it is the operator's connections that go through it.
  const { 'proxy-url': _proxyUrl, ...cluster } = context.cluster;
  config.loadFromString(
    JSON.stringify({
      'current-context': 'current',
      contexts: [{ name: 'current', context: { cluster: 'current', user: 'current' } }],
      clusters: [{ name: 'current', cluster }],
      users: [{ name: 'current', user: context.user }],
    }),
  );
  tellExecPlugin(context);
  const options: RequestOptions = {};
  try {
    await config.applyToHTTPSOptions(options);
  } catch (error) {
    // What the parser says quotes what it was given, and a plugin that prints no JSON may print its token.
    if (!(error instanceof SyntaxError) || !isFields(context.user['exec'])) throw error;
    throw new Error(`the exec plugin ${String(context.user['exec']['command'])} printed invalid JSON`, {
      cause: error,
    });
  }

  const tokenFile = text(context.user['tokenFile']);
  const token = tokenFile === undefined ? undefined : (await readFile(tokenFile, 'utf8')).trim();
  if (token === '') throw new Error(`token file ${tokenFile} is empty`);
  const ca = pem(options.ca);
  if (ca !== undefined && !holdsCertificate(ca)) {
    throw new Error('certificate-authority of the cluster contains no certificate');
  }
  const headers = new Headers(
    Object.entries(options.headers ?? {}).map(([name, value]) => [name, String(value)]),
  );
  const basic = options.auth == null ? undefined : `Basic ${Buffer.from(options.auth).toString('base64')}`;
  // Basic authentication is gone from the API server, but gateways in front of it still use it.
  // A token file comes before a token in kubectl too; client-node knows no token files.
  const authorization = token === undefined ? (headers.get('authorization') ?? basic) : `Bearer ${token}`;
  return {
    ca,
    cert: pem(options.cert),
    key: pem(options.key),
    serverName: text(options.servername),
    authorization,
    tokenFile,
    impersonateUser: headers.get('impersonate-user') ?? undefined,
    expiresAtMs: expiryOf(config, context, authorization),
  };
}

/** What exec plugins are told by their protocol, and client-node leaves out. They inherit this environment. */
function tellExecPlugin({ cluster, user }: CurrentContext): void {
  const { exec } = user;
  if (!isFields(exec)) return;
  const clusterInfo = {
    server: cluster['server'],
    'tls-server-name': cluster['tls-server-name'],
    'certificate-authority-data': cluster['certificate-authority-data'],
    'proxy-url': cluster['proxy-url'],
  };
  process.env['KUBERNETES_EXEC_INFO'] = JSON.stringify({
    apiVersion: exec['apiVersion'],
    kind: 'ExecCredential',
    spec: { interactive: false, ...(exec['provideClusterInfo'] === true ? { cluster: clusterInfo } : {}) },
  });
}

/**
 * Only for credentials that running again renews. An exec plugin's expiry is known to client-node's cache alone; should
 * that move, the expiry is unknown and a refused token is renewed after the refusal.
 */
function expiryOf(
  config: KubeConfig,
  { user }: CurrentContext,
  authorization: string | undefined,
): number | undefined {
  if (user['exec'] !== undefined) {
    const internals: { authenticators?: { tokenCache?: { current?: ExecCredential } }[] } = JSON.parse(
      JSON.stringify(config),
    );
    const cached = internals.authenticators?.find(({ tokenCache }) => tokenCache?.current !== undefined);
    const expiry = Date.parse(cached?.tokenCache?.current?.status?.expirationTimestamp ?? '');
    return Number.isNaN(expiry) ? undefined : expiry;
  }
  const provider = user['auth-provider'];
  if (!isFields(provider) || provider['name'] !== 'oidc') return undefined;
  const [, payload = ''] = (authorization ?? '').split('.');
  const claims: { exp?: unknown } = JSON.parse(Buffer.from(payload, 'base64url').toString() || '{}');
  return typeof claims.exp === 'number' ? claims.exp * 1000 : undefined;
}

interface ExecCredential {
  status?: { expirationTimestamp?: string };
}

function pem(value: unknown): string | undefined {
  return typeof value === 'string' || Buffer.isBuffer(value) ? value.toString() : undefined;
}

function text(value: unknown): string | undefined {
  return isText(value) ? value : undefined;
}

/** A plugin's stderr may be a page. */
function saidBy(error: unknown): string {
  return oneLine(error instanceof Error ? error.message : String(error), 300);
}

// Never by exit code or stderr: what a plugin prints there is not for this program to sort out.
let answer: KubeconfigAnswer;
try {
  const { values, positionals } = parseArgs({
    options: { context: { type: 'string' } },
    allowPositionals: true,
  });
  answer = { resolved: await resolveKubeconfig(positionals, values.context) };
} catch (error) {
  answer = { error: saidBy(error) };
}
process.stdout.write(`${JSON.stringify(answer)}\n`);
