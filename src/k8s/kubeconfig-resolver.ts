/**
 * A separate program that `connection.ts` runs. It reads the kubeconfig files given as arguments (`--context=NAME`
 * selects a context other than the current one), resolves the credentials with @kubernetes/client-node (files, exec
 * plugins, OIDC), prints one line of JSON and exits. It is a separate process because importing that package costs 60
 * MiB and half a second, and the operator would keep that memory.
 */
import { readFile } from 'node:fs/promises';
import type { RequestOptions } from 'node:https';
import { parseArgs } from 'node:util';
import type { KubeConfig } from '@kubernetes/client-node';
import { errorMessage } from '../error-message.ts';
import { oneLine } from './api-error.ts';
import { containsCertificate } from './credentials.ts';
import {
  currentContext,
  isMapping,
  isNonEmptyString,
  KubeconfigError,
  type CurrentContext,
} from './kubeconfig-merge.ts';

/** Limit for an error; a plugin's stderr may be a page long. */
const MAX_ERROR_LENGTH = 300;

/** The program's output: a resolved connection, or an error. */
export type KubeconfigResult = { readonly resolved: ResolvedKubeconfig } | { readonly error: string };

/** A connection in JSON. */
export interface ResolvedKubeconfig extends ResolvedCredentials {
  readonly context: string;
  readonly server: string;
  readonly namespace: string | undefined;
  readonly proxyUrl: string | undefined;
}

/** The fields of `Credentials`; undefined fields are absent from the JSON. */
export interface ResolvedCredentials {
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
  readonly serverName: string | undefined;
  readonly authorization: string | undefined;
  /** File that contains the bearer token; `authorization` is its present content. */
  readonly tokenFile: string | undefined;
  readonly impersonateUser: string | undefined;
  /** Expiry of an exec plugin's or OIDC provider's token, in milliseconds since 1970. */
  readonly expiresAtMs: number | undefined;
}

/** Resolves the context. Errors are one line that begins with the names of the files. */
async function resolveKubeconfig(
  paths: readonly string[],
  contextName: string | undefined,
): Promise<ResolvedKubeconfig> {
  const files = await Promise.all(paths.map(async (path) => ({ path, text: await readFile(path, 'utf8') })));
  const context = currentContext(files, contextName);
  const source = `kubeconfig ${paths.join(', ')}, context ${context.name}`;
  const server = validateServer(source, context);
  validateUser(source, context);
  const proxyUrl = optionalString(context.cluster['proxy-url']);
  try {
    return {
      context: context.name,
      server,
      namespace: context.namespace,
      proxyUrl: proxyUrl === undefined ? undefined : validateProxyUrl(source, proxyUrl),
      ...(await resolveCredentials(context)),
    };
  } catch (error) {
    if (error instanceof KubeconfigError) throw error;
    throw new KubeconfigError(`${source}: ${oneLine(errorMessage(error), MAX_ERROR_LENGTH)}`);
  }
}

function validateServer(source: string, { cluster }: CurrentContext): string {
  const server = optionalString(cluster['server']);
  if (server === undefined) throw new KubeconfigError(`${source}: cluster has no server`);
  if (!URL.canParse(server)) throw new KubeconfigError(`${source}: server ${server} is not a URL`);
  if (hasPassword(server)) {
    throw new KubeconfigError(`${source}: server URL must not contain a password`);
  }
  if (new URL(server).protocol !== 'https:') {
    throw new KubeconfigError(
      `${source}: server ${server} is not https; credentials are never sent in plaintext`,
    );
  }
  if (cluster['insecure-skip-tls-verify'] === true) {
    throw new KubeconfigError(
      `${source}: insecure-skip-tls-verify is not supported; set certificate-authority-data instead`,
    );
  }
  return server;
}

/** Rejects fields that client-node ignores, because the operator would act as another user than configured. */
function validateUser(source: string, { user }: CurrentContext): void {
  for (const field of ['as-uid', 'as-groups', 'as-user-extra']) {
    if (user[field] !== undefined)
      throw new KubeconfigError(`${source}: user field ${field} is not supported`);
  }
}

function validateProxyUrl(source: string, proxyUrl: string): string {
  const supported = ['http:', 'https:', 'socks5:'];
  if (!URL.canParse(proxyUrl) || !supported.includes(new URL(proxyUrl).protocol)) {
    // The URL may contain a password, even if it is invalid.
    const redacted = proxyUrl.replace(/[^/]*@/, '');
    throw new KubeconfigError(`${source}: proxy-url ${redacted} must be http, https or socks5`);
  }
  return proxyUrl;
}

function hasPassword(url: string): boolean {
  const { username, password } = new URL(url);
  return username !== '' || password !== '';
}

/** Resolves the credentials with client-node, which reads the files, runs the plugin and refreshes the OIDC token. */
async function resolveCredentials(context: CurrentContext): Promise<ResolvedCredentials> {
  const { KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  // JSON is YAML. Only the entries in use are passed, and no proxy, because the operator itself connects through it.
  const { 'proxy-url': _proxyUrl, ...cluster } = context.cluster;
  config.loadFromString(
    JSON.stringify({
      'current-context': 'current',
      contexts: [{ name: 'current', context: { cluster: 'current', user: 'current' } }],
      clusters: [{ name: 'current', cluster }],
      users: [{ name: 'current', user: context.user }],
    }),
  );
  setExecInfo(context);
  const options: RequestOptions = {};
  try {
    await config.applyToHTTPSOptions(options);
  } catch (error) {
    // The parser's message quotes its input, and a plugin that does not print JSON may print its token.
    if (!(error instanceof SyntaxError) || !isMapping(context.user['exec'])) throw error;
    throw new Error(`the exec plugin ${String(context.user['exec']['command'])} printed invalid JSON`, {
      cause: error,
    });
  }

  const tokenFile = optionalString(context.user['tokenFile']);
  const token = tokenFile === undefined ? undefined : (await readFile(tokenFile, 'utf8')).trim();
  if (token === '') throw new Error(`token file ${tokenFile} is empty`);
  const ca = pemText(options.ca);
  if (ca !== undefined && !containsCertificate(ca)) {
    throw new Error('certificate-authority of the cluster contains no certificate');
  }
  const headers = new Headers(
    Object.entries(options.headers ?? {}).map(([name, value]) => [name, String(value)]),
  );
  const basic = options.auth == null ? undefined : `Basic ${Buffer.from(options.auth).toString('base64')}`;
  // The API server no longer supports basic authentication, but gateways in front of it do. In kubectl too, a token
  // file takes precedence over a token; client-node does not support token files.
  const authorization = token === undefined ? (headers.get('authorization') ?? basic) : `Bearer ${token}`;
  return {
    ca,
    cert: pemText(options.cert),
    key: pemText(options.key),
    serverName: optionalString(options.servername),
    authorization,
    tokenFile,
    impersonateUser: headers.get('impersonate-user') ?? undefined,
    expiresAtMs: credentialExpiryMs(config, context, authorization),
  };
}

/**
 * Sets the input of exec plugins, which their protocol requires and client-node omits. They inherit this environment.
 */
function setExecInfo({ cluster, user }: CurrentContext): void {
  const { exec } = user;
  if (!isMapping(exec)) return;
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
 * Returns the expiry of credentials that another run renews. Only client-node's cache knows the expiry of an exec
 * plugin's token; if the cache's location in client-node changes, the expiry is unknown and a token is renewed only
 * after it is rejected.
 */
function credentialExpiryMs(
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
  if (!isMapping(provider) || provider['name'] !== 'oidc') return undefined;
  const [, payload = ''] = (authorization ?? '').split('.');
  const claims: { exp?: unknown } = JSON.parse(Buffer.from(payload, 'base64url').toString() || '{}');
  return typeof claims.exp === 'number' ? claims.exp * 1000 : undefined;
}

interface ExecCredential {
  status?: { expirationTimestamp?: string };
}

function pemText(value: unknown): string | undefined {
  return typeof value === 'string' || Buffer.isBuffer(value) ? value.toString() : undefined;
}

function optionalString(value: unknown): string | undefined {
  return isNonEmptyString(value) ? value : undefined;
}

// The result never depends on exit codes or stderr, because plugins use these in their own ways.
let result: KubeconfigResult;
try {
  const { values, positionals } = parseArgs({
    options: { context: { type: 'string' } },
    allowPositionals: true,
  });
  result = { resolved: await resolveKubeconfig(positionals, values.context) };
} catch (error) {
  result = { error: oneLine(errorMessage(error), MAX_ERROR_LENGTH) };
}
process.stdout.write(`${JSON.stringify(result)}\n`);
