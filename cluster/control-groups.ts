/** The control groups of the node, which outlive its namespaces. */
import { readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { errorCode } from '../control-plane/errors.ts';
import { ClusterError } from './errors.ts';

const ATTEMPTS = 100;
const RETRY_MS = 100;

/** In version 2: the controllers that the groups at the root have. */
const ROOT_CONTROLLERS = '/sys/fs/cgroup/cgroup.subtree_control';

/**
 * Undoes what `launch.sh` has listed in a file, one per line: kills the processes of a group, which is a folder, and
 * removes it with all groups below it; disables a controller at the root (`-cpu`). Does nothing if the file does not
 * exist.
 *
 * @throws ClusterError if a group keeps processes that cannot be killed
 */
export async function removeGroups(list: string): Promise<void> {
  const lines = (await readFile(list, 'utf8').catch(() => '')).split('\n');
  for (const group of lines.filter((line) => line.startsWith('/'))) await removeGroup(group);
  for (const controller of lines.filter((line) => line.startsWith('-'))) {
    try {
      await writeFile(ROOT_CONTROLLERS, controller);
    } catch (error) {
      // Another group has come to use it, for example that of another node.
      if (errorCode(error) !== 'EBUSY') throw error;
    }
  }
}

async function removeGroup(group: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      for (const entry of await readdir(group, { withFileTypes: true }))
        if (entry.isDirectory()) await removeGroup(join(group, entry.name));
      await killProcesses(group);
      await rmdir(group);
      return;
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return;
      // A process that has been killed stays in its group until the kernel has released its memory.
      if (errorCode(error) !== 'EBUSY') throw error;
      if (attempt === ATTEMPTS)
        throw new ClusterError(`cannot remove the control group ${group}: it is in use`);
      await delay(RETRY_MS);
    }
  }
}

async function killProcesses(group: string): Promise<void> {
  const text = await readFile(join(group, 'cgroup.procs'), 'utf8');
  for (const pid of text.split('\n').map(Number)) {
    // 0 is how the kernel shows a process that is not visible here. To `kill`, it is the group of the caller.
    if (pid === 0) continue;
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if (errorCode(error) !== 'ESRCH') throw error;
    }
  }
}
