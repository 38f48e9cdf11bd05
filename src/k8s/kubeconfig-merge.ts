import { dirname, isAbsolute, join } from 'node:path';
import { parse } from 'yaml';

/** A kubeconfig file as read. */
export interface KubeconfigFile {
  readonly path: string;
  readonly text: string;
}

/** A mapping of a kubeconfig, its content unchecked. */
export type YamlMapping = Record<string, unknown>;

/** The current context of one or more kubeconfig files, with what it names, each field as the file has it. */
export interface CurrentContext {
  readonly name: string;
  readonly namespace: string | undefined;
  readonly cluster: YamlMapping;
  readonly user: YamlMapping;
}

/** What is wrong with a kubeconfig, in one line. */
export class KubeconfigError extends Error {
  override readonly name = 'KubeconfigError';
}

/**
 * Merges files as kubectl does: the first file that sets a name or the current context wins, and paths are relative to
 * the file that holds them. Then takes the current context out of it. Done here and not by client-node's `KubeConfig`,
 * which lets the last file win, refuses a name that comes twice, and fails on faults of entries that are not used.
 *
 * @param contextName the context to take instead of the current one
 */
export function currentContext(files: readonly KubeconfigFile[], contextName?: string): CurrentContext {
  const documents = files.map((file) => ({ path: file.path, fields: parseFile(file) }));
  const source = files.map((file) => file.path).join(', ');
  const name = contextName ?? documents.map(({ fields }) => fields['current-context']).find(isNonEmptyString);
  if (name === undefined) {
    throw new KubeconfigError(
      `kubeconfig ${source}: current-context is not set; set it with kubectl config use-context NAME`,
    );
  }

  /** The named entry of the first file that has one. */
  function entry(list: string, kind: string, entryName: string): YamlMapping {
    for (const { path, fields } of documents) {
      const entries = Array.isArray(fields[list]) ? fields[list].filter(isMapping) : [];
      const match = entries.find((candidate) => candidate['name'] === entryName);
      if (match === undefined) continue;
      const content = match[kind] ?? {};
      if (!isMapping(content))
        throw new KubeconfigError(`kubeconfig ${path}: ${kind} ${entryName} is not a mapping`);
      return withAbsolutePaths(content, dirname(path));
    }
    if (kind === 'context') throw new KubeconfigError(`kubeconfig ${source}: context ${name} not found`);
    throw new KubeconfigError(
      `kubeconfig ${source}: context ${name} refers to ${kind} ${entryName}, which does not exist`,
    );
  }

  const context = entry('contexts', 'context', name);
  const clusterName = context['cluster'];
  if (!isNonEmptyString(clusterName))
    throw new KubeconfigError(`kubeconfig ${source}: context ${name} has no cluster`);
  const namespace = context['namespace'];
  return {
    name,
    namespace: isNonEmptyString(namespace) ? namespace : undefined,
    cluster: entry('clusters', 'cluster', clusterName),
    user: isNonEmptyString(context['user']) ? entry('users', 'user', context['user']) : {},
  };
}

/** One file's top level, unchecked below that. */
function parseFile({ path, text }: KubeconfigFile): YamlMapping {
  let document: unknown;
  try {
    document = parse(text);
  } catch (error) {
    const [line = ''] = (error instanceof Error ? error.message : String(error)).split('\n');
    throw new KubeconfigError(`kubeconfig ${path}: invalid YAML: ${line.replace(/:$/, '')}`);
  }
  // An empty file is an empty kubeconfig to kubectl too.
  if (document === null || document === undefined) return {};
  if (!isMapping(document))
    throw new KubeconfigError(`kubeconfig ${path}: not a kubeconfig: top level is not a mapping`);
  return document;
}

/** Of clusters and users. */
const PATH_FIELDS = ['certificate-authority', 'client-certificate', 'client-key', 'tokenFile'];

function withAbsolutePaths(content: YamlMapping, directory: string): YamlMapping {
  const result = { ...content };
  for (const field of PATH_FIELDS) {
    const path = result[field];
    if (isNonEmptyString(path) && !isAbsolute(path)) result[field] = join(directory, path);
  }
  const exec = result['exec'];
  // A bare command is looked up in PATH; only one with a directory in it is relative to the file.
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

/** True for a mapping. */
export function isMapping(value: unknown): value is YamlMapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** True for a text that is not empty: an empty field counts as left out. */
export function isNonEmptyString(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}
