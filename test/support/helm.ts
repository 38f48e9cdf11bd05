/** The real helm with the chart of this checkout; the user's own Helm files are neither read nor written. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { createDisposableFolder } from '../../control-plane/process-supervisor.ts';
import { resolveBinaries } from '../../control-plane/resolve.ts';
import { run, type RunResult } from '../../control-plane/run.ts';

export const CHART = join(import.meta.dirname, '..', '..', 'charts', 'reverse-tunnel-operator');

/** Longer than any `--wait` in tests. */
const TIMEOUT_MS = 180_000;

/** API versions of a cluster with the usual companions, for `helm template`. */
const COMPANIONS = [
  'monitoring.coreos.com/v1/ServiceMonitor',
  'monitoring.coreos.com/v1/PodMonitor',
  'monitoring.coreos.com/v1/PrometheusRule',
  'cert-manager.io/v1/Certificate',
];

export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
}

/** Runs helm; `dispose` removes the files that it has written. */
export interface Helm {
  /** Runs helm to completion; any exit code is a result. */
  (args: readonly string[]): Promise<RunResult>;
  readonly dispose: () => Promise<void>;
}

/**
 * Creates a helm with an empty home. The environment variable HELM_PROGRAM selects another helm, such as Helm 3.
 *
 * @param kubeconfigPath undefined: rendering only
 */
export async function createHelm(kubeconfigPath?: string): Promise<Helm> {
  const program = process.env['HELM_PROGRAM'] ?? join((await resolveBinaries(['helm'])).folder, 'helm');
  const home = await createDisposableFolder(process.env['TMPDIR'] ?? '/tmp', 'reverse-tunnel-helm-');
  const helm = (args: readonly string[]): Promise<RunResult> =>
    run(program, args, {
      cwd: process.cwd(),
      env: {
        PATH: process.env['PATH'],
        HOME: home.path,
        HELM_CACHE_HOME: home.path,
        HELM_CONFIG_HOME: home.path,
        HELM_DATA_HOME: home.path,
        KUBECONFIG: kubeconfigPath ?? join(home.path, 'none'),
      },
      timeoutMs: TIMEOUT_MS,
    });
  return Object.assign(helm, { dispose: home.dispose });
}

/**
 * Returns arguments that render the chart for the cluster version of the tests, with or without the usual
 * companions.
 */
export function templateArgs(
  values: readonly string[],
  companions = true,
  release = 'tunnels',
  namespace = 'edge',
): string[] {
  return [
    ...['template', release, CHART, '--namespace', namespace, '--kube-version', '1.37.2'],
    ...(companions ? COMPANIONS.flatMap((kind) => ['--api-versions', kind]) : []),
    ...values,
  ];
}

/** Parses rendered objects. @throws Error when the text is not YAML */
export function manifests(text: string): Manifest[] {
  return parseAllDocuments(text).flatMap((document) => {
    if (document.errors[0] !== undefined) throw document.errors[0];
    const object = document.toJS() as Manifest | null;
    return object === null ? [] : [object];
  });
}

/** Returns the first object of a kind. @throws Error if there is none */
export function firstOfKind(objects: readonly Manifest[], kind: string): Manifest {
  const match = objects.find((object) => object.kind === kind);
  if (match === undefined) throw new Error(`no ${kind} is rendered`);
  return match;
}

/** Identifies an object as kubectl and kustomize do: kind, namespace and name. */
export function objectId({ apiVersion, kind, metadata }: Manifest): string {
  return [apiVersion.replace(/\/?v\d\w*$/, ''), kind, metadata.namespace ?? '', metadata.name].join('/');
}

/** Returns the chart's example values, which chart linters also use. */
export function variants(): { name: string; file: string }[] {
  const folder = join(CHART, 'ci');
  return readdirSync(folder).map((file) => ({
    name: file.replace('-values.yaml', ''),
    file: join(folder, file),
  }));
}
