import { dirname, isAbsolute, join } from 'node:path';
import { parse } from 'yaml';
import { errorMessage } from '../error-message.ts';

/** A kubeconfig file and its content. */
export interface KubeconfigFile {
  readonly path: string;
  readonly text: string;
}

/** A mapping of a kubeconfig with unchecked content. */
export type YamlMapping = Record<string, unknown>;

/**
 * The selected context of one or more kubeconfig files, and the cluster and user that it refers to, each field as in
 * its file.
 */
export interface CurrentContext {
  readonly name: string;
  readonly namespace: string | undefined;
  readonly cluster: YamlMapping;
  readonly user: YamlMapping;
}

/** An error in a kubeconfig, described in one line. */
export class KubeconfigError extends Error {
  override readonly name = 'KubeconfigError';
}

/**
 * Merges files as kubectl does and returns the current context: the first file that sets a name or the current
 * context wins, and paths are relative to their file. client-node's `KubeConfig` is not used because it lets the last
 * file win, rejects a name that occurs twice, and fails on errors in unused entries.
 *
 * @param contextName context to use instead of the current one
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

  /** Returns the named entry of the first file that contains it. */
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

/** Parses the top level of one file; nested values are not checked. */
function parseFile({ path, text }: KubeconfigFile): YamlMapping {
  let document: unknown;
  try {
    document = parse(text);
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

/** Path fields of clusters and users. */
const PATH_FIELDS = ['certificate-authority', 'client-certificate', 'client-key', 'tokenFile'];

function withAbsolutePaths(content: YamlMapping, directory: string): YamlMapping {
  const result = { ...content };
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

/** Reports whether a value is a non-empty string; an empty field counts as absent. */
export function isNonEmptyString(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}
