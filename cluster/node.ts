/** The node: a Kubernetes of its own, whose processes, mounts and network end with its first process. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { cacheRoot } from '../control-plane/cache.ts';
import { errorCode } from '../control-plane/errors.ts';
import { findInPath } from '../control-plane/executables.ts';
import { formatElapsed } from '../control-plane/progress.ts';
import { lastLines, run } from '../control-plane/run.ts';
import { removeGroups } from './control-groups.ts';
import { ClusterError } from './errors.ts';
import { createImageBuilder } from './image-builder.ts';
import { NODE_ADDRESS, writeNodeFiles } from './node-files.ts';
import { withNodeLock } from './node-lock.ts';
import { type NodePrograms, type ProgramOptions, resolveNodePrograms } from './programs.ts';

const FOLDER = import.meta.dirname;
const POLL_MS = 100;
/** The node is Ready after 4 to 9 s on an idle machine; it fails itself as soon as one of its programs ends. */
const READY_TIMEOUT_MS = 600_000;
const LAUNCH_TIMEOUT_MS = 60_000;
const END_TIMEOUT_MS = 120_000;
/** Needed outside of the node's root file system. */
const TOOLS = ['unshare', 'nsenter', 'mount', 'umount', 'pivot_root', 'flock'];

/** A running node. */
export interface RunningNode {
  /** The process, as the machine sees it, that is the first one inside of the node. */
  readonly pid: number;
  /** The kubeconfig of an administrator; its address is reachable in the network of the node only. */
  readonly kubeconfig: string;
  /** The folder with kubectl and helm. */
  readonly programs: string;
  /** The folder with the logs of the node's programs. */
  readonly logs: string;
}

/** What identifies the node in its folder, so that a process that got the same PID later is never killed. */
interface NodeState {
  readonly pid: number;
  readonly started: string;
  readonly programs: string;
}

/** Returns the folder of the node; it exists while the node runs. */
export function nodeFolder(env: NodeJS.ProcessEnv): string {
  return join(cacheRoot(env), 'cluster', 'node');
}

/** The file whose lock a process holds while it starts or ends the node. */
function lockFile(env: NodeJS.ProcessEnv): string {
  return `${nodeFolder(env)}.lock`;
}

/** Returns the running node, or undefined if there is none. */
export async function findNode(env: NodeJS.ProcessEnv): Promise<RunningNode | undefined> {
  const folder = nodeFolder(env);
  const state = await readState(folder);
  if (state === undefined || !existsSync(join(folder, 'ready'))) return undefined;
  return {
    pid: state.pid,
    kubeconfig: join(folder, 'kubeconfig'),
    programs: state.programs,
    logs: join(folder, 'logs'),
  };
}

/**
 * Starts the node and returns once it is Ready. The node outlives this process.
 *
 * @param onStart called once no other node can be confused with this one: from then on, `stopNode` ends this one
 * @throws ClusterError if a node runs already, or if this machine does not allow it; then nothing is left behind
 */
export async function startNode(
  options: ProgramOptions,
  onStart: () => void = () => {},
): Promise<RunningNode> {
  const { env, progress } = options;
  const folder = nodeFolder(env);
  await rejectRunningNode(folder);
  await checkMachine(env);
  const programs = await resolveNodePrograms(options);
  const pause = await (await createImageBuilder(options)).buildPause(join(programs.cluster, 'pause'));
  const onWait = (): void => progress.log('waiting for another process that starts or ends the node');
  return await withNodeLock(lockFile(env), env, onWait, async () => {
    // Building the programs takes minutes, in which another process may have started a node.
    await rejectRunningNode(folder);
    onStart();
    return await launchNode(options, programs, pause);
  });
}

/** Starts the node while this process holds the lock. */
async function launchNode(
  { env, progress }: ProgramOptions,
  programs: NodePrograms,
  pause: string,
): Promise<RunningNode> {
  const folder = nodeFolder(env);
  // What a node left there that was killed together with its supervisor, or with the machine.
  await removeNode(folder);
  for (const path of [folder, join(folder, 'root')]) await mkdir(path, { recursive: true, mode: 0o700 });
  await writeNodeFiles(folder, existsSync('/sys/fs/cgroup/cgroup.controllers'));
  const binds = {
    '/node': folder,
    '/node.sh': join(FOLDER, 'node.sh'),
    '/opt/control-plane': programs.controlPlane,
    '/opt/cluster': programs.cluster,
    '/opt/images/pause.tar': pause,
    '/var/lib/containerd': join(folder, 'containerd'),
    '/var/lib/kubelet': join(folder, 'kubelet'),
  };
  const log = await open(join(folder, 'logs', 'node.log'), 'a');
  const launcher = spawn(
    join(FOLDER, 'launch.sh'),
    [
      ...[join(folder, 'groups'), join(FOLDER, 'enter.sh'), programs.rootfs, join(folder, 'root')],
      ...Object.entries(binds).map(([target, source]) => `${source}=${target}`),
      ...['--', '/bin/bash', '/node.sh', NODE_ADDRESS],
    ],
    { cwd: '/', env: withoutProxies(env), detached: true, stdio: ['ignore', log.fd, log.fd] },
  );
  await log.close();
  const { pid: launcherPid } = launcher;
  if (launcherPid === undefined) throw new ClusterError('cannot start a shell for the node');
  const startedMs = performance.now();
  try {
    const pid = await firstProcess(launcherPid);
    if (pid !== undefined) {
      const state: NodeState = {
        pid,
        started: (await startTime(pid)) ?? '',
        programs: programs.controlPlane,
      };
      const partial = join(folder, 'state.partial');
      await writeFile(partial, JSON.stringify(state));
      await rename(partial, join(folder, 'state.json'));
    }
    await awaitReady(folder, launcherPid, (text) => progress.update(text));
  } catch (error) {
    launcher.kill('SIGKILL');
    await removeNode(folder);
    throw error;
  }
  launcher.unref();
  const node = await findNode(env);
  if (node === undefined) throw new ClusterError('the node ended right after it was Ready');
  progress.log(`the node is Ready after ${formatElapsed(performance.now() - startedMs)}`);
  return node;
}

/** Ends the node and removes all that it has used. Waits for a process that is starting it. Returns false if there was none. */
export async function stopNode(env: NodeJS.ProcessEnv): Promise<boolean> {
  const folder = nodeFolder(env);
  if (!existsSync(folder)) return false;
  return await withNodeLock(
    lockFile(env),
    env,
    () => {},
    async () => await removeNode(folder),
  );
}

async function removeNode(folder: string): Promise<boolean> {
  if (!existsSync(folder)) return false;
  const state = await readState(folder);
  if (state !== undefined) {
    // The kernel ends every process of the namespace with its first one.
    process.kill(state.pid, 'SIGKILL');
    const end = performance.now() + END_TIMEOUT_MS;
    while ((await startTime(state.pid)) === state.started) {
      if (performance.now() > end) throw new ClusterError(`the node (process ${state.pid}) does not end`);
      await delay(POLL_MS);
    }
  }
  await removeGroups(join(folder, 'groups'));
  // Mounts of the namespace end a moment after its last process.
  await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: POLL_MS });
  return true;
}

/**
 * Returns a command that runs another one in the network of the node, with this machine's files; kubectl and helm are in
 * its PATH. With `inside`, it runs in all namespaces of the node, with the node's files.
 */
export function commandIn(
  node: RunningNode,
  command: readonly string[],
  inside = false,
): { command: string; args: string[]; env: NodeJS.ProcessEnv } {
  const namespaces = inside ? ['--mount', '--net', '--pid', '--uts', '--ipc', '--cgroup'] : ['--net'];
  const path = inside
    ? '/opt/control-plane:/usr/sbin:/usr/bin:/sbin:/bin'
    : `${node.programs}${delimiter}${process.env['PATH'] ?? ''}`;
  return {
    command: 'nsenter',
    args: ['--target', String(node.pid), ...namespaces, '--', ...command],
    env: {
      ...withoutProxies(process.env),
      PATH: path,
      KUBECONFIG: inside ? '/node/admin.kubeconfig' : node.kubeconfig,
    },
  };
}

/** Returns the environment without HTTP_PROXY and the like: the node has no access to the network of a proxy. */
function withoutProxies(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !/_proxy$/i.test(name)));
}

/** Makes an image (OCI archive) available to the pods. @throws ClusterError if containerd rejects it */
export async function loadImage(node: RunningNode, archive: string): Promise<void> {
  const { args, env } = commandIn(node, ['ctr', '--namespace', 'k8s.io', 'images', 'import', '-'], true);
  const file = await open(archive);
  try {
    const child = spawn('nsenter', args, { env, stdio: [file.fd, 'ignore', 'pipe'] });
    let stderr = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    await once(child, 'close');
    if (child.exitCode !== 0)
      throw new ClusterError(`cannot load ${basename(archive)}: ${lastLines(stderr, 2)}`);
  } finally {
    await file.close();
  }
}

/** Checks in half a second what would fail later with a message that is hard to understand. */
async function checkMachine(env: NodeJS.ProcessEnv): Promise<void> {
  const fail = (reason: string): ClusterError =>
    new ClusterError(`cannot run a node on this machine: ${reason}`);
  if (process.platform !== 'linux') throw fail('it needs the namespaces of Linux');
  if (process.getuid?.() !== 0) throw fail('it needs root, for namespaces and mounts');
  for (const tool of TOOLS) {
    if ((await findInPath([tool], env)) === undefined) throw fail(`no \`${tool}\` on the PATH`);
  }
  const probe = [
    '--mount',
    '--pid',
    '--net',
    '--uts',
    '--ipc',
    '--cgroup',
    '--fork',
    '--propagation',
    'private',
    '--',
  ];
  // The node requires an overlay and control groups from the kernel before it can report anything itself.
  const script = `set -e
    mount -t tmpfs tmpfs /mnt; mkdir /mnt/l /mnt/u /mnt/w /mnt/o; mount -t overlay -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w overlay /mnt/o
    [ -w /sys/fs/cgroup ] || { echo 'the control groups are read-only' >&2; exit 1; }`;
  const { code, stderr } = await run('unshare', [...probe, '/bin/sh', '-c', script], { cwd: '/', env });
  if (code !== 0) throw fail(lastLines(stderr, 1) || 'unshare failed');
}

async function awaitReady(folder: string, launcher: number, update: (text: string) => void): Promise<void> {
  const end = performance.now() + READY_TIMEOUT_MS;
  update('starting the node');
  while (!existsSync(join(folder, 'ready'))) {
    if (!existsSync(`/proc/${launcher}/exe`) || performance.now() > end) {
      throw new ClusterError(`the node did not start: ${await reason(folder)}`);
    }
    await delay(POLL_MS);
  }
}

/** Returns what the node has written about its end, in one line. */
async function reason(folder: string): Promise<string> {
  for (const file of ['failed', 'logs/node.log']) {
    const text = await readFile(join(folder, file), 'utf8').catch(() => '');
    if (text.trim() !== '') return lastLines(text, 2);
  }
  return `no message in ${READY_TIMEOUT_MS / 1000} s`;
}

/**
 * Returns the first process of the namespace: the only child of `unshare`, or undefined if that has ended.
 *
 * @throws ClusterError if there is none in time
 */
async function firstProcess(launcher: number): Promise<number | undefined> {
  const end = performance.now() + LAUNCH_TIMEOUT_MS;
  while (existsSync(`/proc/${launcher}/exe`)) {
    if (performance.now() > end) {
      throw new ClusterError(
        `the node did not start: no process in its namespaces within ${LAUNCH_TIMEOUT_MS / 1000} s`,
      );
    }
    const name = await readFile(`/proc/${launcher}/comm`, 'utf8').catch(() => '');
    const children = await readFile(`/proc/${launcher}/task/${launcher}/children`, 'utf8').catch(() => '');
    const child = Number(children.trim().split(' ')[0]);
    // Before it becomes `unshare`, the launching shell has other children.
    if (name.trim() === 'unshare' && child > 0) return child;
    await delay(POLL_MS / 10);
  }
  return undefined;
}

async function rejectRunningNode(folder: string): Promise<void> {
  if ((await readState(folder)) === undefined) return;
  throw new ClusterError('a cluster is running; stop it with `npm run cluster -- down`');
}

/** Returns undefined if there is no node, and if its state is incomplete, for example after the disk was full. */
async function readState(folder: string): Promise<NodeState | undefined> {
  let state: Partial<NodeState> | null;
  try {
    state = JSON.parse(await readFile(join(folder, 'state.json'), 'utf8')) as Partial<NodeState> | null;
  } catch (error) {
    if (errorCode(error) === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
  const { pid, started, programs } = state ?? {};
  if (typeof pid !== 'number' || typeof started !== 'string' || typeof programs !== 'string')
    return undefined;
  return (await startTime(pid)) === started ? { pid, started, programs } : undefined;
}

/** Returns when a process has started, in clock ticks since the machine did, or undefined if it has ended. */
async function startTime(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // The name of the program, in parentheses, may contain spaces. Z: only its parent has to notice.
  const [status, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return stat === '' || status === 'Z' ? undefined : fields[18];
}
