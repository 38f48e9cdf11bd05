/** Finds the programs of the control plane, or downloads or builds them. */
import { join } from 'node:path';
import { PUBLISHED_BINARIES } from './binaries.ts';
import type { BinaryName } from './binaries.ts';
import { cacheFolder, installOnce } from './cache.ts';
import { ControlPlaneError } from './errors.ts';
import { findMissing } from './executables.ts';
import { buildWithGo, findGo, goBuildFlags } from './go-build.ts';
import { createProgress } from './progress.ts';
import type { Progress } from './progress.ts';
import { unpackPublishedArchive } from './published-archive.ts';

/** Where binaries may come from, and where progress is reported. */
export interface ResolveOptions {
  /** KUBEBUILDER_ASSETS, XDG_CACHE_HOME, HOME, ENVTEST_INDEX_URL and PATH are read. Default: the process environment. */
  readonly env?: NodeJS.ProcessEnv;
  /** The most expensive source to use: the cache, a download, or a build, which takes minutes. Default: build. */
  readonly allow?: 'cache' | 'download' | 'build';
  /** Receives the progress of downloads and builds. Default: stderr. */
  readonly progress?: Progress;
}

/** A folder that contains all requested binaries under their names, and its source. */
export interface ResolvedBinaries {
  readonly folder: string;
  readonly source: 'KUBEBUILDER_ASSETS' | 'cache' | 'published archive' | 'Go build';
}

/**
 * Returns a folder with all of `names`, from the first source that has them: KUBEBUILDER_ASSETS (if set, the only
 * source), the cache folder, the published envtest archive, a build with Go. The last two fill the cache.
 *
 * @throws ControlPlaneError that lists the attempts and a remedy
 */
export async function resolveBinaries(
  names: readonly BinaryName[],
  options: ResolveOptions = {},
): Promise<ResolvedBinaries> {
  const { allow = 'build' } = options;
  const env = options.env ?? process.env;
  const progress = options.progress ?? createProgress();

  // An explicit choice: never fall back silently to other binaries.
  const assets = env['KUBEBUILDER_ASSETS'];
  if (assets !== undefined && assets !== '') {
    const missing = await findMissing(assets, names);
    if (missing === undefined) return { folder: assets, source: 'KUBEBUILDER_ASSETS' };
    throw new ControlPlaneError(
      `KUBEBUILDER_ASSETS=${assets}: ${join(assets, missing)} is not an executable file; ` +
        `add it, or unset KUBEBUILDER_ASSETS`,
    );
  }

  const cache = await cacheFolder(env, await goBuildFlags());
  const built = join(cache, 'built');
  const published = join(cache, 'published');
  // Built binaries first, because they have exactly the pinned version.
  for (const folder of [built, published]) {
    if ((await findMissing(folder, names)) === undefined) return { folder, source: 'cache' };
  }

  const tried = [`KUBEBUILDER_ASSETS is not set`, `the cache folder ${cache} does not contain them`];
  // All binaries must come from one folder, so that their versions match.
  const fail = (remedy: string): ControlPlaneError =>
    new ControlPlaneError(`cannot provide ${names.join(', ')}: ${tried.join('; ')}; ${remedy}`);
  if (allow === 'cache') throw fail('downloads are not allowed');
  const unpublished = names.filter((name) => !PUBLISHED_BINARIES.includes(name));
  if (unpublished.length > 0) {
    tried.push(`published archives do not contain ${unpublished.join(', ')}`);
  } else {
    try {
      await installOnce(
        published,
        async () => (await findMissing(published, names)) === undefined,
        async (folder) => unpackPublishedArchive(folder, env, progress),
        progress,
      );
      return { folder: published, source: 'published archive' };
    } catch (error) {
      // Falls back to Go even after a checksum mismatch, because Go verifies its own checksums. Other errors, such as a
      // full disk, are final.
      if (!(error instanceof ControlPlaneError)) throw error;
      tried.push(`published archive not available: ${error.message}`);
      if (allow === 'build') progress.log(`published archive not available: ${error.message}`);
    }
  }

  if (allow === 'download') throw fail('builds are not allowed');
  const go = await findGo(env);
  if (go === undefined) {
    throw fail(
      'no `go` on the PATH. Install Go 1.26 or later, or set KUBEBUILDER_ASSETS to a folder that contains them.',
    );
  }
  const missing = async (): Promise<BinaryName[]> => {
    const checks = names.map(async (name) =>
      (await findMissing(built, [name])) === undefined ? [] : [name],
    );
    return (await Promise.all(checks)).flat();
  };
  progress.log(
    `building ${(await missing()).join(', ')} with ${go} into ${built} (takes minutes the first time)`,
  );
  await installOnce(
    built,
    async () => (await missing()).length === 0,
    async (folder) => buildWithGo(folder, await missing(), env, progress),
    progress,
  );
  progress.log(`built ${built}`);
  return { folder: built, source: 'Go build' };
}
