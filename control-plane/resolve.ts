/** Finds the programs of the control plane, or downloads or builds them. */
import { join } from 'node:path';
import { findMissing, PUBLISHED_BINARIES } from './binaries.ts';
import type { BinaryName } from './binaries.ts';
import { cacheFolder, installOnce } from './cache.ts';
import { ControlPlaneError } from './errors.ts';
import { buildWithGo, findGo, goBuildFlags } from './go-build.ts';
import { createProgress } from './progress.ts';
import type { Progress } from './progress.ts';
import { unpackPublishedArchive } from './published-archive.ts';

/** Where binaries may come from, and where progress is reported. */
export interface ResolveOptions {
  /** KUBEBUILDER_ASSETS, XDG_CACHE_HOME, HOME, ENVTEST_INDEX_URL and PATH are read. Default: the process environment. */
  readonly env?: NodeJS.ProcessEnv;
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
      progress.log(`published archive not available: ${error.message}`);
    }
  }

  const go = await findGo(env);
  if (go === undefined) {
    throw new ControlPlaneError(
      `cannot provide ${names.join(', ')}: ${tried.join('; ')}; no \`go\` on the PATH. ` +
        `Install Go 1.26 or later, or set KUBEBUILDER_ASSETS to a folder that contains them.`,
    );
  }
  const isBuilt = async (): Promise<boolean> => (await findMissing(built, names)) === undefined;
  progress.log(
    `building ${names.join(', ')} with ${go} into ${built} (takes several minutes the first time)`,
  );
  await installOnce(built, isBuilt, async (folder) => buildWithGo(folder, names, env, progress), progress);
  progress.log(`built ${built}`);
  return { folder: built, source: 'Go build' };
}
