/** The folder in the user's cache where binaries stay, and how they get there whole or not at all. */
import { createHash } from 'node:crypto';
import { mkdir, open, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { currentPlatform, pinnedVersion, SOURCE_FOLDER } from './binaries.ts';
import { errorCode } from './errors.ts';
import { createDisposableFolder } from './process-supervisor.ts';
import type { Progress } from './progress.ts';

/** A lock whose holder has not touched it for so long is nobody's: six missed touches. */
const LOCK_STALE_MS = 30_000;
const LOCK_REFRESH_MS = 5_000;
const LOCK_POLL_MS = 500;

/**
 * `${XDG_CACHE_HOME:-~/.cache}/reverse-tunnel-operator/control-plane/<version>-<hash>/<os>-<arch>`.
 * The hash covers `go.mod`, `go.sum` and the build's flags, so another set of programs never meets this one.
 */
export async function cacheFolder(env: NodeJS.ProcessEnv, buildFlags: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const file of ['go.mod', 'go.sum']) hash.update(await readFile(join(SOURCE_FOLDER, file)));
  hash.update(JSON.stringify(buildFlags));
  const version = await pinnedVersion('k8s.io/kubernetes');
  const { os, arch } = currentPlatform();
  const root = env['XDG_CACHE_HOME'] || join(env['HOME'] || homedir(), '.cache');
  const pins = `${version}-${hash.digest('hex').slice(0, 12)}`;
  return join(root, 'reverse-tunnel-operator', 'control-plane', pins, `${os}-${arch}`);
}

/**
 * Fills a folder beside `target` and renames it to `target`, so that nobody ever sees a half-filled one.
 * Does nothing when `isThere` says so, also after having waited for another process that filled it.
 *
 * Correctness stands on the rename: the first one wins. The lock only saves two processes the same long build.
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
      await moveInto(partial.path, target, isInstalled);
    } finally {
      await partial.dispose();
    }
  } finally {
    await release();
  }
}

async function moveInto(folder: string, target: string, isInstalled: () => Promise<boolean>): Promise<void> {
  try {
    await rename(folder, target);
  } catch (error) {
    const code = errorCode(error);
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
    // Another process was first (its lock was taken for stale), unless what is there has lost a file since.
    if (await isInstalled()) return;
    await rm(target, { recursive: true, force: true });
    await rename(folder, target);
  }
}

/** Waits for the lock file, takes it, keeps it fresh. Gives what releases it. */
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
    progress.update(`another process prepares the same binaries, waiting for it (${path})`);
    if (await isStale(path)) await rm(path, { force: true });
    else await delay(LOCK_POLL_MS);
  }
  const refresh = setInterval(() => {
    const now = new Date();
    // A lock that somebody removed is not ours to bring back; the rename decides.
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
    // Released between the two looks: not stale, the next try gets it.
    return false;
  }
}
