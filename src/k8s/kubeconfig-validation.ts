import { isMapping, stringField, type CurrentContext, type YamlMapping } from './kubeconfig-merge.ts';

/** Versions of the exec plugin protocol that clients support (client-go 0.37). */
export const EXEC_API_VERSIONS: readonly string[] = [
  'client.authentication.k8s.io/v1',
  'client.authentication.k8s.io/v1beta1',
];

/** Auth providers that were removed from Kubernetes clients, and what replaces them. */
const REMOVED_PROVIDERS: ReadonlyMap<string, string> = new Map([
  ['gcp', 'use the exec plugin gke-gcloud-auth-plugin'],
  ['azure', 'use the exec plugin kubelogin (https://github.com/Azure/kubelogin)'],
]);

const PROXY_SCHEMES: ReadonlySet<string> = new Set(['http:', 'https:', 'socks5:']);

/**
 * Returns what kubectl rejects in a cluster and a user (clientcmd's `ConfirmUsable`, client-go's transport), one line
 * per error, without the name of the files.
 */
export function kubeconfigErrors({
  cluster,
  clusterName,
  user,
  userName,
}: CurrentContext): readonly string[] {
  return [...clusterErrors(clusterName, cluster), ...userErrors(userName, user)];
}

function clusterErrors(name: string, cluster: YamlMapping): string[] {
  const errors: string[] = [];
  const label = name === '' ? 'cluster' : `cluster ${name}`;
  const hasCa = has(cluster, 'certificate-authority') || has(cluster, 'certificate-authority-data');
  errors.push(...bothSet(label, cluster, 'certificate-authority'));
  if (hasCa && cluster['insecure-skip-tls-verify'] === true)
    errors.push(`${label}: a certificate authority and insecure-skip-tls-verify exclude each other`);
  const proxyUrl = stringField(cluster, 'proxy-url');
  if (proxyUrl !== undefined) errors.push(...proxyErrors(`${label}: proxy-url`, proxyUrl));
  return errors;
}

/**
 * Returns an error if a proxy's URL cannot be used. Its password is omitted.
 *
 * @param label what contains the URL
 */
export function proxyErrors(label: string, proxyUrl: string): string[] {
  if (URL.canParse(proxyUrl) && PROXY_SCHEMES.has(new URL(proxyUrl).protocol)) return [];
  // The URL may contain a password, even if it is invalid.
  return [`${label} ${proxyUrl.replace(/[^/]*@/, '')} must be http, https or socks5`];
}

function userErrors(name: string, user: YamlMapping): string[] {
  const label = name === '' ? 'user' : `user ${name}`;
  const errors = [...bothSet(label, user, 'client-certificate'), ...bothSet(label, user, 'client-key')];
  const hasCertificate = has(user, 'client-certificate') || has(user, 'client-certificate-data');
  if (hasCertificate && !has(user, 'client-key') && !has(user, 'client-key-data'))
    errors.push(`${label}: client-certificate requires client-key or client-key-data`);
  if (has(user, 'token') && (has(user, 'username') || has(user, 'password')))
    errors.push(`${label}: token and username or password exclude each other`);
  if (!has(user, 'as') && ['as-uid', 'as-groups', 'as-user-extra'].some((field) => has(user, field)))
    errors.push(`${label}: as-uid, as-groups and as-user-extra require as`);
  if (has(user, 'as-groups') && !isStringList(user['as-groups']))
    errors.push(`${label}: as-groups must be a list of strings`);
  const extra = user['as-user-extra'];
  if (extra !== undefined && !(isMapping(extra) && Object.values(extra).every(isStringList)))
    errors.push(`${label}: as-user-extra must be a mapping of lists of strings`);
  const { exec } = user;
  const provider = user['auth-provider'];
  if (exec !== undefined && provider !== undefined)
    errors.push(`${label}: auth-provider and exec exclude each other`);
  if (exec !== undefined) errors.push(...execErrors(`${label}: exec`, exec));
  if (provider !== undefined) errors.push(...providerErrors(`${label}: auth-provider`, provider));
  return errors;
}

function execErrors(label: string, exec: unknown): string[] {
  if (!isMapping(exec)) return [`${label} must be a mapping`];
  const errors: string[] = [];
  const apiVersion = stringField(exec, 'apiVersion');
  const interactiveMode = stringField(exec, 'interactiveMode');
  if (stringField(exec, 'command') === undefined) errors.push(`${label}.command is required`);
  if (apiVersion === undefined || !EXEC_API_VERSIONS.includes(apiVersion)) {
    const actual = apiVersion === undefined ? 'is required' : `"${apiVersion}" is not supported`;
    errors.push(`${label}.apiVersion ${actual}; it must be ${EXEC_API_VERSIONS.join(' or ')}`);
  }
  // Only v1beta1 has a default.
  if (interactiveMode === undefined && apiVersion === EXEC_API_VERSIONS[0]) {
    errors.push(`${label}.interactiveMode is required; it must be Never, IfAvailable or Always`);
  } else if (interactiveMode !== undefined && !['Never', 'IfAvailable', 'Always'].includes(interactiveMode)) {
    errors.push(`${label}.interactiveMode "${interactiveMode}" must be Never, IfAvailable or Always`);
  }
  const { args, env } = exec;
  if (args != null && !isStringList(args)) errors.push(`${label}.args must be a list of strings`);
  const isEnv =
    env == null ||
    (Array.isArray(env) && env.every((item) => isMapping(item) && stringField(item, 'name') !== undefined));
  if (!isEnv) errors.push(`${label}.env must be a list of names and values`);
  return errors;
}

function providerErrors(label: string, provider: unknown): string[] {
  const name = isMapping(provider) ? stringField(provider, 'name') : undefined;
  if (name === 'oidc') return [];
  if (name === undefined) return [`${label} has no name`];
  return [`${label} ${name} is not supported: ${REMOVED_PROVIDERS.get(name) ?? 'only oidc exists'}`];
}

function bothSet(label: string, content: YamlMapping, field: string): string[] {
  return has(content, field) && has(content, `${field}-data`)
    ? [`${label}: ${field} and ${field}-data exclude each other`]
    : [];
}

function has(content: YamlMapping, field: string): boolean {
  return content[field] !== undefined;
}

function isStringList(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}
