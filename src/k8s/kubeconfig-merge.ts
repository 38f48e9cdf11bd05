import { dirname, isAbsolute, join } from 'node:path';
import { parse } from 'yaml';
import { errorMessage } from '../error-message.ts';

/** A kubeconfig file and its content. */
export interface KubeconfigFile {
  readonly path: string;
  readonly text: string;
}

/** A mapping of a kubeconfig. */
export type YamlMapping = Readonly<Record<string, unknown>>;

/**
 * Values that replace those of the kubeconfig, as kubectl's flags do. Absent values and empty strings replace nothing.
 */
export interface KubeconfigOverrides {
  /** Names of entries; each must exist. */
  readonly context?: string | undefined;
  readonly cluster?: string | undefined;
  readonly user?: string | undefined;
  /** Fields of the cluster and of the user, by their names in a kubeconfig. */
  readonly clusterFields?: YamlMapping | undefined;
  readonly userFields?: YamlMapping | undefined;
}

/**
 * The selected context of one or more kubeconfig files, and the cluster and user that it refers to. Known fields have
 * the right type, and empty ones are absent.
 */
export interface CurrentContext {
  /** The files, for messages. */
  readonly source: string;
  /** "" if no context is selected. */
  readonly name: string;
  readonly namespace: string | undefined;
  readonly cluster: YamlMapping;
  readonly clusterName: string;
  readonly user: YamlMapping;
  readonly userName: string;
  /** Why the cluster has no server; undefined if it has one. */
  readonly noServer: string | undefined;
  /** Why the context has no user although it refers to one; undefined otherwise. */
  readonly noUser: string | undefined;
}

/** An error in a kubeconfig, described in one line. */
export class KubeconfigError extends Error {
  override readonly name = 'KubeconfigError';
}

/**
 * Merges files as kubectl does and selects a context: the first file that sets a name or the current context wins, and
 * paths are relative to their file. client-node's `KubeConfig` is not used because it lets the last file win, rejects a
 * name that occurs in two files, ignores values of the wrong type, and fails on errors in unused entries.
 *
 * @throws KubeconfigError
 */
export function selectContext(
  files: readonly KubeconfigFile[],
  overrides: KubeconfigOverrides = {},
): CurrentContext {
  const documents = files.map((file) => ({ path: file.path, fields: parseFile(file) }));
  const source =
    files.length === 0 ? 'no kubeconfig' : `kubeconfig ${files.map((file) => file.path).join(', ')}`;

  /** Returns the named entry of the first file that contains it. */
  function findEntry(list: string, kind: string, entryName: string): YamlMapping | undefined {
    for (const { path, fields } of documents) {
      const entries = Array.isArray(fields[list]) ? fields[list].filter(isMapping) : [];
      const [match, duplicate] = entries.filter((candidate) => candidate['name'] === entryName);
      if (match === undefined) continue;
      const label = `kubeconfig ${path}: ${kind} ${entryName}`;
      if (duplicate !== undefined) throw new KubeconfigError(`${label} occurs twice`);
      const content = match[kind] ?? {};
      if (!isMapping(content)) throw new KubeconfigError(`${label} is not a mapping`);
      return withAbsolutePaths(withCheckedTypes(label, content), dirname(path));
    }
    return undefined;
  }

  const name =
    nonEmpty(overrides.context) ??
    documents.map(({ fields }) => fields['current-context']).find(isNonEmptyString) ??
    '';
  const context = name === '' ? {} : findEntry('contexts', 'context', name);
  if (context === undefined) throw new KubeconfigError(`${source}: context ${name} not found`);
  const clusterName = nonEmpty(overrides.cluster) ?? stringField(context, 'cluster') ?? '';
  const userName = nonEmpty(overrides.user) ?? stringField(context, 'user') ?? '';
  const clusterEntry = clusterName === '' ? undefined : findEntry('clusters', 'cluster', clusterName);
  const userEntry = userName === '' ? undefined : findEntry('users', 'user', userName);
  if (clusterEntry === undefined && nonEmpty(overrides.cluster) !== undefined)
    throw new KubeconfigError(`${source}: cluster ${clusterName} not found`);
  if (userEntry === undefined && nonEmpty(overrides.user) !== undefined)
    throw new KubeconfigError(`${source}: user ${userName} not found`);
  const cluster = overrideCluster(clusterEntry ?? {}, overrides.clusterFields ?? {});

  function explainMissingServer(): string {
    if (clusterEntry !== undefined) {
      return name === '' ? `cluster ${clusterName} has no server` : `context ${name}: cluster has no server`;
    }
    if (name === '') return 'current-context is not set; set it with kubectl config use-context NAME';
    return clusterName === ''
      ? `context ${name} has no cluster`
      : `context ${name} refers to cluster ${clusterName}, which does not exist`;
  }
  return {
    source,
    name,
    namespace: stringField(context, 'namespace'),
    cluster,
    clusterName,
    user: overrideUser(userEntry ?? {}, overrides.userFields ?? {}),
    userName,
    noServer: cluster['server'] === undefined ? explainMissingServer() : undefined,
    noUser:
      userName !== '' && userEntry === undefined
        ? `context ${name} refers to user ${userName}, which does not exist`
        : undefined,
  };
}

/** Returns the value of a string field, or undefined if it is absent. */
export function stringField(content: YamlMapping, field: string): string | undefined {
  const value = content[field];
  return isNonEmptyString(value) ? value : undefined;
}

/** Applies the flags of a cluster. They replace each other's counterparts in the file, as in kubectl. */
function overrideCluster(cluster: YamlMapping, overrides: YamlMapping): YamlMapping {
  const fields = withoutEmpty(overrides);
  const base = { ...cluster };
  if (fields['insecure-skip-tls-verify'] === true || fields['certificate-authority'] !== undefined) {
    delete base['certificate-authority'];
    delete base['certificate-authority-data'];
    delete base['insecure-skip-tls-verify'];
  }
  // The name in the file belongs to the server in the file.
  if (fields['server'] !== undefined) delete base['tls-server-name'];
  return { ...base, ...fields };
}

/** Applies the flags of a user. A certificate or key replaces the one in the file, be it a path or data. */
function overrideUser(user: YamlMapping, overrides: YamlMapping): YamlMapping {
  const fields = withoutEmpty(overrides);
  const base = { ...user };
  for (const field of ['client-certificate', 'client-key']) {
    if (fields[field] !== undefined) delete base[`${field}-data`];
  }
  return { ...base, ...fields };
}

/** Parses the top level of one file; nested values are checked when they are selected. */
function parseFile({ path, text }: KubeconfigFile): YamlMapping {
  let document: unknown;
  try {
    // kubectl reads YAML 1.1, in which `yes` is a boolean, and takes the last of two equal keys.
    document = parse(text, { version: '1.1', uniqueKeys: false, logLevel: 'error' });
  } catch (error) {
    const [line = ''] = errorMessage(error).split('\n');
    throw new KubeconfigError(`kubeconfig ${path}: invalid YAML: ${line.replace(/:$/, '')}`);
  }
  // kubectl also takes an empty file for an empty kubeconfig.
  if (document === null || document === undefined) return {};
  if (!isMapping(document))
    throw new KubeconfigError(`kubeconfig ${path}: not a kubeconfig: top level is not a mapping`);
  return document;
}

/** Fields that are not listed are left unchecked. */
const BOOLEAN_FIELDS: ReadonlySet<string> = new Set(['insecure-skip-tls-verify', 'disable-compression']);
const STRING_FIELDS: ReadonlySet<string> = new Set(
  (
    'cluster user namespace server tls-server-name certificate-authority certificate-authority-data proxy-url ' +
    'client-certificate client-certificate-data client-key client-key-data token tokenFile username password as as-uid'
  ).split(' '),
);

/**
 * Returns the content without empty fields. A value of another type, such as a token that YAML takes for a number, is an
 * error: if it were ignored, the request would be sent as another user.
 */
function withCheckedTypes(label: string, content: YamlMapping): YamlMapping {
  for (const [field, value] of Object.entries(content)) {
    if (value === null || value === undefined) continue;
    const expected = STRING_FIELDS.has(field) ? 'string' : BOOLEAN_FIELDS.has(field) ? 'boolean' : undefined;
    if (expected !== undefined && typeof value !== expected) {
      throw new KubeconfigError(
        `${label}: ${field} must be a ${expected}, not a ${Array.isArray(value) ? 'list' : typeof value}${
          expected === 'string' && typeof value !== 'object' ? ' (quote it)' : ''
        }`,
      );
    }
  }
  return withoutEmpty(content);
}

function withoutEmpty(content: YamlMapping): YamlMapping {
  return Object.fromEntries(
    Object.entries(content).filter(
      ([, value]) =>
        value !== null &&
        value !== undefined &&
        value !== '' &&
        !(Array.isArray(value) && value.length === 0),
    ),
  );
}

/** Path fields of clusters and users. */
const PATH_FIELDS = ['certificate-authority', 'client-certificate', 'client-key', 'tokenFile'];

function withAbsolutePaths(content: YamlMapping, directory: string): YamlMapping {
  const result: Record<string, unknown> = { ...content };
  for (const field of PATH_FIELDS) {
    const path = result[field];
    if (isNonEmptyString(path) && !isAbsolute(path)) result[field] = join(directory, path);
  }
  const exec = result['exec'];
  // A bare command is looked up in PATH; a command with a directory is relative to the file.
  if (
    isMapping(exec) &&
    isNonEmptyString(exec['command']) &&
    exec['command'].includes('/') &&
    !isAbsolute(exec['command'])
  ) {
    result['exec'] = { ...exec, command: join(directory, exec['command']) };
  }
  return result;
}

/** Reports whether a value is a mapping. */
export function isMapping(value: unknown): value is YamlMapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isNonEmptyString(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}
