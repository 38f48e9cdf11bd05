/**
 * Child processes and folders that cannot outlive this process, however it ends, including `kill -9`.
 *
 * Each child has the read end of a pipe whose write end only this process holds. The kernel closes the write end when
 * this process exits, and a shell that waits for the end of file kills the child. A signal handler is not needed, and
 * would not help against SIGKILL.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from './errors.ts';

/**
 * The watchdog is forked before `exec`, so the program never runs without it. The shell is the leader of its process
 * group (`detached`), and `exec` keeps its PID, so `$$` is also the PID of the program. Killing the *group* is safe
 * even after the program has exited: a group ID is not reused while the watchdog is in the group.
 */
const WATCHDOG_SCRIPT = '(read -r _ <&3; kill -9 -$$) >/dev/null 2>&1 & exec 3<&-; exec "$@"';

/** Waits for the end of file, then removes the folder, repeatedly while an exiting process still writes into it. */
const CLEANUP_SCRIPT = `read -r _ <&3
for _ in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf "$1"
  sleep 1
  [ -e "$1" ] || exit 0
done`;

/** How to run a supervised program. */
export interface GuardedOptions {
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  /** stdin, stdout and stderr: `pipe`, `ignore`, or a file descriptor. */
  readonly stdio: readonly ['pipe' | 'ignore', 'pipe' | number, 'pipe' | number];
}

/**
 * Starts `command` so that it, and every process of its process group, ends with this process.
 * The `pid` of the returned child is the PID of the program. The program runs in a new session, so Ctrl-C in a terminal
 * does not reach it. If the command does not exist, the exit code is 127, as in a shell.
 */
export function spawnGuarded(
  command: string,
  args: readonly string[],
  options: GuardedOptions,
): ChildProcess {
  const child = spawn('/bin/sh', ['-c', WATCHDOG_SCRIPT, 'sh', command, ...args], {
    cwd: options.cwd,
    env: options.env,
    detached: true,
    stdio: [...options.stdio, 'pipe'],
  });
  // The pipe to a killed process may break, which is not an error.
  child.stdio[3]?.on('error', () => {});
  child.once('exit', () => {
    // After the exit of the program, the group consists of the watchdog and of stray children.
    killGroup(child);
    child.stdio[3]?.destroy();
  });
  return child;
}

/** Kills a supervised child and its process group. Does nothing if it never started or has exited. */
export function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch (error) {
    // ESRCH: the group has exited. EPERM: returned by macOS if only zombies are left in the group.
    const code = errorCode(error);
    if (code !== 'ESRCH' && code !== 'EPERM') throw error;
  }
}

/** Waits for the exit of `child`; returns immediately if it has exited. */
export async function waitForExit(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

/** A folder that is removed when this process ends. */
export interface DisposableFolder {
  readonly path: string;
  /** Removes the folder and its contents. May be called repeatedly. */
  readonly dispose: () => Promise<void>;
}

/** Creates a folder `<parent>/<prefix>XXXXXX` that is readable only by this user. */
export async function createDisposableFolder(parent: string, prefix: string): Promise<DisposableFolder> {
  const path = await mkdtemp(join(parent, prefix));
  const cleanup = spawn('/bin/sh', ['-c', CLEANUP_SCRIPT, 'sh', path], {
    cwd: '/',
    env: { PATH: `${process.env['PATH'] ?? ''}:/usr/bin:/bin` },
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
  });
  cleanup.stdio[3]?.on('error', () => {});
  return {
    path,
    async dispose() {
      await rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
      killGroup(cleanup);
      await waitForExit(cleanup);
    },
  };
}
