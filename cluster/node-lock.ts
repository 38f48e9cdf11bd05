/** Lets one process at a time start or end the node. */
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { COMMAND_NOT_FOUND } from '../control-plane/run.ts';
import { killGroup, spawnGuarded, waitForExit } from '../control-plane/process-supervisor.ts';
import { ClusterError } from './errors.ts';

/** Files that this process has locked: a signal may end the node while this process is starting it. */
const locked = new Set<string>();

/**
 * Runs an action while this process holds the lock of `file`. An action that runs meanwhile in this process does not wait.
 * The lock belongs to a child, so the kernel releases it however this process ends.
 *
 * @param onWait called if another process holds the lock
 * @throws ClusterError if there is no `flock`
 */
export async function withNodeLock<T>(
  file: string,
  env: NodeJS.ProcessEnv,
  onWait: () => void,
  action: () => Promise<T>,
): Promise<T> {
  if (locked.has(file)) return await action();
  // `flock` passes the open file on to what it runs.
  const holder = spawnGuarded('flock', [file, 'sh', '-c', 'echo locked; exec sleep 2147483647'], {
    cwd: '/',
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  holder.stderr?.resume();
  const release = async (): Promise<void> => {
    locked.delete(file);
    killGroup(holder);
    await waitForExit(holder);
  };
  const notice = setTimeout(onWait, 500);
  try {
    if (holder.stdout === null) throw new ClusterError('cannot start `flock`');
    // Both events: without a line, the program has failed.
    await Promise.race([once(createInterface({ input: holder.stdout }), 'line'), once(holder, 'exit')]);
    if (holder.exitCode !== null)
      throw new ClusterError(
        holder.exitCode === COMMAND_NOT_FOUND ? 'no `flock` on the PATH' : `cannot lock ${file}`,
      );
  } catch (error) {
    await release();
    throw error;
  } finally {
    clearTimeout(notice);
  }
  locked.add(file);
  try {
    return await action();
  } finally {
    await release();
  }
}
