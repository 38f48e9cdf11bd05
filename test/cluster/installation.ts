/** The operator as users install it: the chart with the image of this checkout, in a namespace that restricts pods. */
import { join } from 'node:path';
import { CHART } from '../support/helm.ts';
import type { ClusterTools, HelmVersion } from './cluster-tools.ts';

/** Also the name of the release, so that the Service is the one that `examples/kubernetes` names. */
export const NAMESPACE = 'reverse-tunnel-operator';
export const DEPLOYMENT = `deployment/${NAMESPACE}`;
/** The address of the Service in its certificate. */
export const SERVICE_NAME = `${NAMESPACE}.${NAMESPACE}.svc.cluster.local`;
const TIMEOUT = ['--timeout', '300s'];
const WAIT = ['--wait', ...TIMEOUT];
/** Length of the problems that `doctor` found, in the message of a failed step. */
const MAX_PROBLEMS_LENGTH = 800;

/** Values that select the image that was loaded into the node. */
export const IMAGE_VALUES = ['--set', 'image.tag=dev', '--set', 'image.pullPolicy=Never'];

/** The auth modes with the values that each needs. */
export const AUTH_MODES: Readonly<Record<string, readonly string[]>> = {
  insecure: ['--set', 'auth.mode=insecure'],
  mtls: ['--set', 'auth.mode=mtls', '--set', 'tls.selfSigned.enabled=true'],
  token: ['--set', 'auth.mode=token', '--set', 'tls.selfSigned.enabled=true'],
  'mtls-or-token': ['--set', 'auth.mode=mtls-or-token', '--set', 'tls.selfSigned.enabled=true'],
};
export const MTLS = AUTH_MODES['mtls'] ?? [];

/** Creates a namespace, unless it exists, whose pods must comply with the Pod Security level `restricted`. */
export async function createRestrictedNamespace({ apply }: ClusterTools, name = NAMESPACE): Promise<void> {
  const labels = { 'pod-security.kubernetes.io/enforce': 'restricted' };
  await apply(JSON.stringify({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } }));
}

/** Installs or upgrades the release; resolves when all pods are ready. */
export async function install(
  { helm }: ClusterTools,
  version: HelmVersion,
  values: readonly string[],
  chart = CHART,
): Promise<void> {
  await helm(
    version,
    'upgrade',
    '--install',
    NAMESPACE,
    chart,
    '--namespace',
    NAMESPACE,
    ...IMAGE_VALUES,
    ...values,
    ...WAIT,
  );
}

export async function uninstall({ helm }: ClusterTools, version: HelmVersion): Promise<void> {
  await helm(version, 'uninstall', NAMESPACE, '--namespace', NAMESPACE, ...WAIT);
}

/** Runs `helm test` and returns the last line of the pod's log. */
export async function helmTest({ helm, kubectl }: ClusterTools, version: HelmVersion): Promise<string> {
  await helm(version, 'test', NAMESPACE, '--namespace', NAMESPACE, ...TIMEOUT);
  const log = await kubectl('logs', '--namespace', NAMESPACE, `pod/${NAMESPACE}-test`);
  return log.trim().split('\n').at(-1) ?? '';
}

/** Runs `doctor` in a pod of the operator; returns whether it passed, and otherwise what it found, in one line. */
export async function doctor({ run }: ClusterTools): Promise<{ ok: boolean; problems: string }> {
  const program = ['/nodejs/bin/node', '/app/dist/main.js', 'doctor'];
  const { code, stdout, stderr } = await run([
    'kubectl',
    'exec',
    '--namespace',
    NAMESPACE,
    DEPLOYMENT,
    '--',
    ...program,
  ]);
  const problems = (stdout + stderr)
    .trim()
    .split('\n')
    .filter((line) => !line.startsWith('ok'))
    .join(' | ');
  return { ok: code === 0, problems: problems.slice(0, MAX_PROBLEMS_LENGTH) };
}

/** Returns the certificate of the `mtls` client and the CA of the operator: the data of a Secret, by key. */
export async function clientCertificate({ kubectl }: ClusterTools): Promise<(key: string) => Buffer> {
  const secret = `${NAMESPACE}-client-tls`;
  const json = await kubectl('get', 'secret', '--namespace', NAMESPACE, secret, '--output', 'json');
  const { data } = JSON.parse(json) as { data: Record<string, string> };
  return (key) => Buffer.from(data[key] ?? '', 'base64');
}

/** Writes the certificate of the `mtls` client and the CA of the operator into files; returns flags of `simulate`. */
export async function clientFlags(
  tools: ClusterTools,
  folder: string,
  write: (path: string, content: Buffer) => Promise<void>,
): Promise<string[]> {
  const contentOf = await clientCertificate(tools);
  const flags: string[] = ['--tls-server-name', SERVICE_NAME];
  for (const [flag, key] of [
    ['--tls-ca', 'ca.crt'],
    ['--tls-cert', 'tls.crt'],
    ['--tls-key', 'tls.key'],
  ] as const) {
    const path = join(folder, key);
    await write(path, contentOf(key));
    flags.push(flag, path);
  }
  return flags;
}
