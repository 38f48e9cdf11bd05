/** The control groups of the node, which outlive its namespaces. */
import { readdir, readFile, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { errorCode } from '../control-plane/errors.ts';

const ATTEMPTS = 100;
const RETRY_MS = 100;

/**
 * Kills the processes of the groups that a file lists (one folder per line), and removes these groups with all groups
 * below them. Does nothing if the file does not exist.
 */
export async function removeGroups(list: string): Promise<void> {
  const text = await readFile(list, 'utf8').catch(() => '');
  for (const group of text.split('\n').filter((line) => line !== '')) await removeGroup(group);
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
      if (errorCode(error) !== 'EBUSY' || attempt === ATTEMPTS) throw error;
      await delay(RETRY_MS);
    }
  }
}

async function killProcesses(group: string): Promise<void> {
  const text = await readFile(join(group, 'cgroup.procs'), 'utf8');
  for (const line of text.split('\n').filter((pid) => pid !== '')) {
    try {
      process.kill(Number(line), 'SIGKILL');
    } catch (error) {
      if (errorCode(error) !== 'ESRCH') throw error;
    }
  }
}
