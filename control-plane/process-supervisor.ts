/**
 * Child processes and folders that cannot outlive this process, however it ends (`kill -9` included).
 *
 * Each child holds the reading end of a pipe whose writing end only this process has. The kernel closes it when
 * this process ends, and a shell that waits for that end of file kills the child. No signal handler is needed, and
 * none would help against SIGKILL.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from './errors.ts';

/**
 * The watcher is forked before `exec`, so there is no moment at which the program runs unwatched. The shell is its
 * process group's leader (`detached`), and `exec` keeps its pid, so `$$` is also the program's pid. Killing the
 * *group* is safe even after the program has ended: a group's number is not given away while the watcher is in it.
 */
const WATCHDOG_SCRIPT = '(read -r _ <&3; kill -9 -$$) >/dev/null 2>&1 & exec 3<&-; exec "$@"';

/** Reads to the end of file, then removes the folder; again while a dying process still writes into it. */
const CLEANUP_SCRIPT = `read -r _ <&3
for _ in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf "$1"
  sleep 1
  [ -e "$1" ] || exit 0
done`;

/** Where to run a guarded program. */
export interface GuardedOptions {
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  /** What stdin, stdout and stderr are: `pipe`, `ignore`, or a file descriptor. */
  readonly stdio: readonly ['pipe' | 'ignore', 'pipe' | number, 'pipe' | number];
}

/**
 * Starts `command` so that it, and all it starts in its process group, dies with this process.
 * The child's `pid` is the program's own. It is in a session of its own, so Ctrl-C in a terminal does not reach it.
 * A command that is not there ends with code 127, as the shell says it.
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
  // A pipe to a process that was killed may break; that is its end, not an error.
  child.stdio[3]?.on('error', () => {});
  child.once('exit', () => {
    // What is left of the group when the program has ended is the watcher (and strays of the program).
    killGroup(child);
    child.stdio[3]?.destroy();
  });
  return child;
}

/** Kills a guarded child with its whole group. Does nothing when it never started or is gone. */
export function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch (error) {
    // ESRCH: gone. EPERM: macOS says so of a group whose last members are zombies.
    const code = errorCode(error);
    if (code !== 'ESRCH' && code !== 'EPERM') throw error;
  }
}

/** Waits until `child` has ended; returns at once when it has. */
export async function waitForExit(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

/** A folder that goes when this process goes. */
export interface DisposableFolder {
  readonly path: string;
  /** Removes the folder with all that is in it; returns when it is gone. May be called again. */
  readonly dispose: () => Promise<void>;
}

/** Makes a new folder `<parent>/<prefix>XXXXXX`, readable by this user only. */
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
