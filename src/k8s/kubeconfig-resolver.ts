import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { errorMessage } from '../error-message.ts';
import { oneLine } from './api-error.ts';
import { containsCertificate, type Credentials, type Impersonation } from './credentials.ts';
import { runExecPlugin, type PluginTerminal } from './exec-plugin.ts';
import {
  isMapping,
  KubeconfigError,
  selectContext,
  stringField,
  type CurrentContext,
  type KubeconfigOverrides,
  type YamlMapping,
} from './kubeconfig-merge.ts';
import { kubeconfigErrors } from './kubeconfig-validation.ts';
import type { OidcResult } from './oidc-process.ts';

/** Limit for an error of a library, which may be a page long. */
const MAX_ERROR_LENGTH = 300;

/** A connection that a kubeconfig describes. */
export interface ResolvedKubeconfig {
  /** Name of the context; "" if none is selected. */
  readonly context: string;
  readonly server: URL;
  readonly namespace: string | undefined;
  readonly proxyUrl: string | undefined;
  readonly credentials: Credentials;
  /** File that contains the bearer token; `credentials.authorization` contains its present content. */
  readonly tokenFile: string | undefined;
}

/** A user name and a password. */
export interface BasicCredentials {
  readonly username: string;
  readonly password: string;
}

/** What a program accepts in a kubeconfig. */
export interface KubeconfigRules {
  readonly overrides?: KubeconfigOverrides | undefined;
  readonly terminal: PluginTerminal;
  /**
   * True: servers without https and without verification are accepted, as by kubectl, which sends no credentials to
   * an http server. False: both are rejected, because the operator may write all tunnels.
   */
  readonly acceptsInsecureServers: boolean;
  /**
   * Asks for credentials if the context contains none. Undefined: they are omitted.
   */
  readonly askForCredentials?: (() => Promise<BasicCredentials>) | undefined;
}

/**
 * Selects a context of kubeconfig files. @throws KubeconfigError one line that begins with the names of the files
 */
export async function readContext(
  paths: readonly string[],
  overrides?: KubeconfigOverrides,
): Promise<CurrentContext> {
  const files = await Promise.all(
    paths.map(async (path) => {
      try {
        return { path, text: await readFile(path, 'utf8') };
      } catch (error) {
        throw new KubeconfigError(`kubeconfig ${path}: ${errorMessage(error)}`, { cause: error });
      }
    }),
  );
  return selectContext(files, overrides);
}

/**
 * Resolves a context: reads its files, runs its exec plugin or refreshes its OIDC token.
 * @throws KubeconfigError one line that begins with the names of the files and of the context
 */
export async function resolveContext(
  context: CurrentContext,
  rules: KubeconfigRules,
): Promise<ResolvedKubeconfig> {
  const source = context.name === '' ? context.source : `${context.source}, context ${context.name}`;
  if (context.noServer !== undefined) throw new KubeconfigError(`${context.source}: ${context.noServer}`);
  const errors = kubeconfigErrors(context);
  if (errors.length > 0) throw new KubeconfigError(`${source}: ${errors.join('; ')}`);
  const server = readServer(source, context, rules);
  try {
    return {
      context: context.name,
      server,
      namespace: context.namespace,
      proxyUrl: stringField(context.cluster, 'proxy-url'),
      ...(await resolveCredentials(context, server, rules)),
    };
  } catch (error) {
    throw new KubeconfigError(`${source}: ${oneLine(errorMessage(error), MAX_ERROR_LENGTH)}`, {
      cause: error,
    });
  }
}

function readServer(
  source: string,
  { cluster }: CurrentContext,
  { acceptsInsecureServers }: KubeconfigRules,
): URL {
  const text = stringField(cluster, 'server') ?? '';
  // kubectl takes a server without a scheme for http.
  const href = acceptsInsecureServers && !text.includes('://') ? `http://${text}` : text;
  if (!URL.canParse(href)) throw new KubeconfigError(`${source}: server ${text} is not a URL`);
  const server = new URL(href);
  if (server.username !== '' || server.password !== '')
    throw new KubeconfigError(`${source}: server URL must not contain a password`);
  if (acceptsInsecureServers) {
    if (server.protocol !== 'https:' && server.protocol !== 'http:')
      throw new KubeconfigError(`${source}: server ${text} is neither https nor http`);
  } else if (server.protocol !== 'https:') {
    throw new KubeconfigError(
      `${source}: server ${text} is not https; credentials are never sent in plaintext`,
    );
  } else if (cluster['insecure-skip-tls-verify'] === true) {
    throw new KubeconfigError(
      `${source}: insecure-skip-tls-verify is not supported; set certificate-authority-data instead`,
    );
  }
  server.search = '';
  server.hash = '';
  return server;
}

/** Resolves the credentials in the order of client-go: a bearer token, a password, a certificate, then a plugin. */
async function resolveCredentials(
  { cluster, user, noUser }: CurrentContext,
  server: URL,
  rules: KubeconfigRules,
): Promise<Pick<ResolvedKubeconfig, 'credentials' | 'tokenFile'>> {
  const impersonation = readImpersonation(user);
  if (server.protocol === 'http:') return { credentials: { impersonation }, tokenFile: undefined };

  const ca = await readPem(cluster, 'certificate-authority');
  if (ca !== undefined && !containsCertificate(ca))
    throw new Error('certificate-authority of the cluster contains no certificate');
  const cert = await readPem(user, 'client-certificate');
  const key = cert === undefined ? undefined : await readPem(user, 'client-key');
  const tls = {
    ca,
    serverName: stringField(cluster, 'tls-server-name'),
    skipsVerification: cluster['insecure-skip-tls-verify'] === true ? true : undefined,
  };
  const tokenFile = stringField(user, 'tokenFile');
  const authorization = await readAuthorization(user);
  if (authorization !== undefined || cert !== undefined)
    return { credentials: { ...tls, cert, key, authorization, impersonation }, tokenFile };

  const { exec } = user;
  if (isMapping(exec)) {
    const plugin = await runExecPlugin(exec, pluginCluster(cluster, server, ca), rules.terminal);
    const bearer = plugin.token === undefined ? undefined : `Bearer ${plugin.token}`;
    const { cert: pluginCert, key: pluginKey, expiresAtMs } = plugin;
    return {
      credentials: {
        ...tls,
        cert: pluginCert,
        key: pluginKey,
        authorization: bearer,
        impersonation,
        expiresAtMs,
      },
      tokenFile: undefined,
    };
  }
  if (user['auth-provider'] !== undefined) {
    const token = await runOidcProcess(user);
    return {
      credentials: {
        ...tls,
        authorization: `Bearer ${token}`,
        impersonation,
        expiresAtMs: tokenExpiryMs(token),
      },
      tokenFile: undefined,
    };
  }
  if (rules.askForCredentials === undefined) {
    if (noUser !== undefined) throw new Error(noUser.replace(/^context .* refers/, 'refers'));
    return { credentials: { ...tls, impersonation }, tokenFile: undefined };
  }
  return {
    credentials: { ...tls, authorization: basic(await rules.askForCredentials()), impersonation },
    tokenFile: undefined,
  };
}

/** Returns the Authorization header of a user with a token or a password. A readable token file precedes a token. */
async function readAuthorization(user: YamlMapping): Promise<string | undefined> {
  const token = stringField(user, 'token');
  const tokenFile = stringField(user, 'tokenFile');
  if (tokenFile !== undefined) {
    const content = await readFile(tokenFile, 'utf8').catch((error: unknown) => {
      if (token === undefined) throw error;
      return token;
    });
    if (content.trim() === '') throw new Error(`token file ${tokenFile} is empty`);
    return `Bearer ${content.trim()}`;
  }
  if (token !== undefined) return `Bearer ${token}`;
  const username = stringField(user, 'username');
  const password = stringField(user, 'password');
  return username === undefined && password === undefined
    ? undefined
    : basic({ username: username ?? '', password: password ?? '' });
}

/** The API server no longer supports basic authentication, but gateways in front of it do. */
function basic({ username, password }: BasicCredentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

/** Reads a field that is a path, or its counterpart with base64 data. */
async function readPem(content: YamlMapping, field: string): Promise<string | undefined> {
  const data = stringField(content, `${field}-data`);
  if (data !== undefined) {
    if (!/^[A-Za-z0-9+/\s]+={0,2}\s*$/.test(data)) throw new Error(`${field}-data is not base64`);
    return Buffer.from(data, 'base64').toString();
  }
  const path = stringField(content, field);
  return path === undefined ? undefined : await readFile(path, 'utf8');
}

/** Returns the account to impersonate; undefined if the fields of the user name none. */
export function readImpersonation(user: YamlMapping): Impersonation | undefined {
  const name = stringField(user, 'as');
  if (name === undefined) return undefined;
  const groups = Array.isArray(user['as-groups']) ? user['as-groups'].map(String) : [];
  const extra = isMapping(user['as-user-extra']) ? Object.entries(user['as-user-extra']) : [];
  return {
    user: name,
    uid: stringField(user, 'as-uid'),
    groups,
    extra: extra.flatMap(([key, values]) =>
      Array.isArray(values) ? values.map((value) => [key, String(value)] as const) : [],
    ),
  };
}

/** Name of the extension whose content is passed on to exec plugins. */
const CLUSTER_EXTENSION = 'client.authentication.k8s.io/exec';

/** Returns the `cluster` of a plugin's input. The CA is the content of the file, if the kubeconfig contains a path. */
function pluginCluster(cluster: YamlMapping, server: URL, ca: string | undefined): YamlMapping {
  const extensions = Array.isArray(cluster['extensions']) ? cluster['extensions'].filter(isMapping) : [];
  const config = extensions.find(({ name }) => name === CLUSTER_EXTENSION)?.['extension'];
  const fields = {
    server: server.pathname === '/' ? (stringField(cluster, 'server') ?? server.origin) : server.href,
    'tls-server-name': cluster['tls-server-name'],
    'insecure-skip-tls-verify': cluster['insecure-skip-tls-verify'] === true ? true : undefined,
    'certificate-authority-data': ca === undefined ? undefined : Buffer.from(ca).toString('base64'),
    'proxy-url': cluster['proxy-url'],
    'disable-compression': cluster['disable-compression'] === true ? true : undefined,
    config: config ?? null,
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/** The OIDC program in the same directory: TypeScript in `src`, JavaScript in `dist`. */
const OIDC_PROCESS_PATH = fileURLToPath(
  new URL(`./oidc-process${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url),
);
/** Allows for an identity provider that is slow. */
const OIDC_TIMEOUT_MS = 60_000;

/** Returns a valid ID token of a user with the auth provider `oidc`. */
function runOidcProcess(user: YamlMapping): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      process.execPath,
      [OIDC_PROCESS_PATH],
      { timeout: OIDC_TIMEOUT_MS, maxBuffer: 1024 * 1024 },
      (failure, stdout, stderr) => {
        const result = parseResult(stdout);
        if (result !== undefined && 'token' in result) resolve(result.token);
        else if (result !== undefined) reject(new Error(`auth-provider oidc: ${result.error}`));
        else if (failure?.killed === true)
          reject(new Error(`auth-provider oidc: no ID token within ${OIDC_TIMEOUT_MS / 1000} s`));
        else {
          const line = stderr.split('\n').find((candidate) => /error/i.test(candidate)) ?? 'no error output';
          reject(new Error(`auth-provider oidc: ${line.trim()}`, { cause: failure }));
        }
      },
    );
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(JSON.stringify(user));
  });
}

function parseResult(stdout: string): OidcResult | undefined {
  try {
    const result: OidcResult = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '');
    return result;
  } catch {
    return undefined;
  }
}

/** Returns the expiry of a JWT in milliseconds since 1970. */
function tokenExpiryMs(token: string): number | undefined {
  const [, payload = ''] = token.split('.');
  try {
    const claims: { exp?: unknown } = JSON.parse(Buffer.from(payload, 'base64url').toString());
    return typeof claims.exp === 'number' ? claims.exp * 1000 : undefined;
  } catch {
    return undefined;
  }
}
