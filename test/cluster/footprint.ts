/** What a node could leave behind on the machine. */
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Settings that a kubelet changes for the whole machine. */
const KERNEL_SETTINGS = [
  'vm/overcommit_memory',
  'vm/panic_on_oom',
  'kernel/panic',
  'kernel/panic_on_oops',
  'net/ipv4/ip_forward',
];
const PROGRAMS: ReadonlySet<string> = new Set([
  'etcd',
  'kube-apiserver',
  'kubelet',
  'kube-proxy',
  'kube-scheduler',
  'containerd',
  'coredns',
  'pause',
  'buildah',
]);

/** The start of the names that `cluster/launch.sh` gives to control groups. */
const GROUP_PREFIX = 'reverse-tunnel-cluster-';

/** Lines that are the same before and after. */
export type Footprint = readonly string[];

/** @param nodeFolder the folder of the node, which exists only while the node runs */
export async function takeFootprint(nodeFolder: string): Promise<Footprint> {
  const lines = [`folder of the node: ${existsSync(nodeFolder)}`];
  const read = async (file: string): Promise<string> => await readFile(file, 'utf8').catch(() => '');
  for (const line of (await read('/proc/self/mounts')).split('\n'))
    lines.push(`mount ${line.split(' ').slice(0, 3).join(' ')}`);
  for (const line of (await read('/proc/net/dev')).split('\n').slice(2))
    lines.push(`link ${line.split(':')[0]?.trim() ?? ''}`);
  for (const name of KERNEL_SETTINGS) lines.push(`${name}=${(await read(`/proc/sys/${name}`)).trim()}`);
  for (const name of await readdir(tmpdir())) {
    if (name.startsWith('reverse-tunnel-cluster-')) lines.push(`temporary folder ${name}`);
  }
  for (const pid of (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry))) {
    const groups = await read(`/proc/${pid}/cgroup`);
    const command = (await read(`/proc/${pid}/comm`)).trim();
    if (groups.includes(`/${GROUP_PREFIX}`)) lines.push(`process ${pid} ${command}`);
    else if (PROGRAMS.has(command) && (await read(`/proc/${pid}/cmdline`)).includes('/node/'))
      lines.push(`process ${pid} ${command}`);
  }
  for (const line of (await read('/proc/self/cgroup')).split('\n').filter((line) => line !== '')) {
    const [, controllers = '', path = ''] = line.split(':');
    for (const parent of new Set(['', path])) {
      const folder = join('/sys/fs/cgroup', controllers.replace('name=', ''), parent);
      for (const name of await readdir(folder).catch(() => []))
        if (name.startsWith(GROUP_PREFIX)) lines.push(`control group ${join(folder, name)}`);
    }
  }
  lines.push(`controllers of groups: ${(await read('/sys/fs/cgroup/cgroup.subtree_control')).trim()}`);
  return lines;
}

/** Returns the lines that only one footprint has, with + for those of the second. */
export function compareFootprints(before: Footprint, after: Footprint): readonly string[] {
  return [
    ...before.filter((line) => !after.includes(line)).map((line) => `- ${line}`),
    ...after.filter((line) => !before.includes(line)).map((line) => `+ ${line}`),
  ];
}
