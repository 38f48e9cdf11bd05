/** The operator as users install it: the chart with the image of this checkout, in a namespace that restricts pods. */
import { join } from 'node:path';
import { CHART } from '../support/helm.ts';
import type { ClusterTools, HelmVersion } from './cluster-tools.ts';

/** Also the name of the release, so that the Service is the one that `examples/kubernetes` names. */
export const NAMESPACE = 'reverse-tunnel-operator';
export const DEPLOYMENT = `deployment/${NAMESPACE}`;
/** The address of the Service in its certificate. */
export const SERVICE_NAME = `${NAMESPACE}.${NAMESPACE}.svc.cluster.local`;
const WAIT = ['--wait', '--timeout', '120s'];

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
  await helm(version, 'test', NAMESPACE, '--namespace', NAMESPACE, '--timeout', '120s');
  const log = await kubectl('logs', '--namespace', NAMESPACE, `pod/${NAMESPACE}-test`);
  return log.trim().split('\n').at(-1) ?? '';
}

/** Runs `doctor` in a pod of the operator; returns its exit code and output. */
export async function doctor({ run }: ClusterTools): Promise<{ ok: boolean; output: string }> {
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
  return { ok: code === 0, output: (stdout + stderr).trim() };
}

/** Writes the certificate of the `mtls` client and the CA of the operator into files; returns flags of `simulate`. */
export async function clientFlags(
  { kubectl }: ClusterTools,
  folder: string,
  write: (path: string, content: Buffer) => Promise<void>,
): Promise<string[]> {
  const json = await kubectl(
    'get',
    'secret',
    '--namespace',
    NAMESPACE,
    `${NAMESPACE}-client-tls`,
    '--output',
    'json',
  );
  const { data } = JSON.parse(json) as { data: Record<string, string> };
  const flags: string[] = ['--tls-server-name', SERVICE_NAME];
  for (const [flag, key] of [
    ['--tls-ca', 'ca.crt'],
    ['--tls-cert', 'tls.crt'],
    ['--tls-key', 'tls.key'],
  ] as const) {
    const path = join(folder, key);
    await write(path, Buffer.from(data[key] ?? '', 'base64'));
    flags.push(flag, path);
  }
  return flags;
}
