/** The folder in the user's cache that keeps the binaries, and the installation of binaries into it. */
import { createHash } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { currentPlatform, pinnedVersion, SOURCE_FOLDER } from './binaries.ts';
import { errorCode } from './errors.ts';
import { createDisposableFolder } from './process-supervisor.ts';
import type { Progress } from './progress.ts';

/** A lock that has not been refreshed for this long (six missed refreshes) has been abandoned. */
const LOCK_STALE_MS = 30_000;
const LOCK_REFRESH_MS = 5_000;
const LOCK_POLL_MS = 500;

/** Returns `${XDG_CACHE_HOME:-~/.cache}/reverse-tunnel-operator`, which caches all programs that this project obtains. */
export function cacheRoot(env: NodeJS.ProcessEnv): string {
  return join(env['XDG_CACHE_HOME'] || join(env['HOME'] || homedir(), '.cache'), 'reverse-tunnel-operator');
}

/**
 * Returns `${XDG_CACHE_HOME:-~/.cache}/reverse-tunnel-operator/control-plane/<version>-<hash>/<os>-<arch>`.
 * The hash covers `go.mod`, `go.sum` and the build flags, so different builds never share a folder.
 */
export async function cacheFolder(env: NodeJS.ProcessEnv, buildFlags: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const file of ['go.mod', 'go.sum']) hash.update(await readFile(join(SOURCE_FOLDER, file)));
  hash.update(JSON.stringify(buildFlags));
  const version = await pinnedVersion('k8s.io/kubernetes');
  const { os, arch } = currentPlatform();
  const pins = `${version}-${hash.digest('hex').slice(0, 12)}`;
  return join(cacheRoot(env), 'control-plane', pins, `${os}-${arch}`);
}

/**
 * Fills a folder next to `target` and moves its files into `target`, so that a partly written file is never visible.
 * Other files in `target` are kept. Does nothing if `isInstalled` resolves to true, which is checked again after waiting
 * for another process.
 *
 * Correctness rests on renaming the files. The lock only avoids that two processes run the same long build.
 */
export async function installOnce(
  target: string,
  isInstalled: () => Promise<boolean>,
  fill: (folder: string) => Promise<void>,
  progress: Progress,
): Promise<void> {
  await mkdir(dirname(target), { recursive: true });
  const release = await acquireLock(`${target}.lock`, progress);
  try {
    if (await isInstalled()) return;
    const partial = await createDisposableFolder(dirname(target), `.${basename(target)}-`);
    try {
      await fill(partial.path);
      await mkdir(target, { recursive: true });
      for (const file of await readdir(partial.path))
        await rename(join(partial.path, file), join(target, file));
    } finally {
      await partial.dispose();
    }
  } finally {
    await release();
  }
}

/** Acquires the lock file and refreshes it periodically. Returns a function that releases it. */
async function acquireLock(path: string, progress: Progress): Promise<() => Promise<void>> {
  for (;;) {
    try {
      const file = await open(path, 'wx');
      await file.writeFile(`${process.pid}\n`);
      await file.close();
      break;
    } catch (error) {
      if (errorCode(error) !== 'EEXIST') throw error;
    }
    progress.update(`waiting for another process that prepares the same binaries (${path})`);
    if (await isStale(path)) await rm(path, { force: true });
    else await delay(LOCK_POLL_MS);
  }
  const refresh = setInterval(() => {
    const now = new Date();
    // A removed lock must not be recreated; without it, the files are only built twice.
    utimes(path, now, now).catch(() => {});
  }, LOCK_REFRESH_MS);
  return async () => {
    clearInterval(refresh);
    await rm(path, { force: true });
  };
}

async function isStale(path: string): Promise<boolean> {
  try {
    return Date.now() - (await stat(path)).mtimeMs > LOCK_STALE_MS;
  } catch {
    // The lock was released in the meantime: it is not stale, and the next attempt acquires it.
    return false;
  }
}
