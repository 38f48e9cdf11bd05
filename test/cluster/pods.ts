/** Pods as the machine sees them: their processes and control groups. */
import { readdir, readFile } from 'node:fs/promises';
import type { ClusterTools } from './cluster-tools.ts';
import { NAMESPACE } from './installation.ts';

/** A pod of the operator. */
export interface OperatorPod {
  readonly name: string;
  readonly uid: string;
  readonly ready: boolean;
  readonly restarts: number;
}

interface PodObject {
  readonly metadata: { readonly name: string; readonly uid: string; readonly deletionTimestamp?: string };
  readonly status: {
    readonly containerStatuses?: readonly { readonly ready: boolean; readonly restartCount: number }[];
  };
}

/** Returns the pods of the operator that are not being deleted. */
export async function operatorPods({ kubectl }: ClusterTools): Promise<readonly OperatorPod[]> {
  const selector = `app.kubernetes.io/name=${NAMESPACE}`;
  const json = await kubectl(
    'get',
    'pods',
    '--namespace',
    NAMESPACE,
    '--selector',
    selector,
    '--output',
    'json',
  );
  const { items } = JSON.parse(json) as { items: readonly PodObject[] };
  return items
    .filter(({ metadata }) => metadata.deletionTimestamp === undefined)
    .map(({ metadata: { name, uid }, status: { containerStatuses = [] } }) => ({
      name,
      uid,
      ready: containerStatuses.length > 0 && containerStatuses.every(({ ready }) => ready),
      restarts: containerStatuses.reduce((sum, { restartCount }) => sum + restartCount, 0),
    }));
}

/** Returns the process of Node in a pod. @throws Error if there is none */
export async function processOf(pod: OperatorPod): Promise<number> {
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const [groups, command] = await Promise.all(
      ['cgroup', 'cmdline'].map((file) => readFile(`/proc/${entry}/${file}`, 'utf8').catch(() => '')),
    );
    if (groups?.includes(`pod${pod.uid}`) === true && command?.startsWith('/nodejs/bin/node') === true)
      return Number(entry);
  }
  throw new Error(`pod ${pod.name} has no process`);
}

/** Memory of a pod's container, in bytes, as its control group counts it. */
export interface PodMemory {
  /** Without the part of the page cache that can be reclaimed, as `kubectl top` shows it. */
  readonly workingSet: number;
  readonly peak: number;
}

/** Returns the memory of the operator's container. */
export async function memoryOf(pod: OperatorPod): Promise<PodMemory> {
  const text = await readFile(`/proc/${await processOf(pod)}/cgroup`, 'utf8');
  const version1 = /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.+)$/m.exec(text)?.[1];
  const folder = `/sys/fs/cgroup${version1 === undefined ? '' : '/memory'}${version1 ?? /^0::(.+)$/m.exec(text)?.[1] ?? ''}`;
  const read = async (file: string): Promise<string> => await readFile(`${folder}/${file}`, 'utf8');
  const [usage, peak] =
    version1 === undefined
      ? [await read('memory.current'), await read('memory.peak')]
      : [await read('memory.usage_in_bytes'), await read('memory.max_usage_in_bytes')];
  const inactive = /^(?:total_)?inactive_file (\d+)$/m.exec(await read('memory.stat'))?.[1] ?? '0';
  return { workingSet: Number(usage) - Number(inactive), peak: Number(peak) };
}

/** Formats bytes as whole MiB. */
export function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 1024 / 1024)} MiB`;
}
