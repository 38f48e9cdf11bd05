/** Finds the programs of the control plane, or gets them. */
import { join } from 'node:path';
import { findMissing, PUBLISHED_BINARIES } from './binaries.ts';
import type { BinaryName } from './binaries.ts';
import { cacheFolder, installOnce } from './cache.ts';
import { ControlPlaneError } from './errors.ts';
import { buildWithGo, findGo, goBuildFlags } from './go-build.ts';
import { createProgress } from './progress.ts';
import type { Progress } from './progress.ts';
import { unpackPublishedArchive } from './published-archive.ts';

/** What decides where binaries come from. */
export interface ResolveOptions {
  /** KUBEBUILDER_ASSETS, XDG_CACHE_HOME, HOME, ENVTEST_INDEX_URL and PATH are read; the process's own by default. */
  readonly env?: NodeJS.ProcessEnv;
  /** Told about downloads and builds; stderr by default. */
  readonly progress?: Progress;
}

/** A folder that holds all binaries asked for, each under its name, and how it came about. */
export interface ResolvedBinaries {
  readonly folder: string;
  readonly source: 'KUBEBUILDER_ASSETS' | 'cache' | 'published archive' | 'Go build';
}

/**
 * Gives a folder with all of `names`, from the first source that has them: KUBEBUILDER_ASSETS (when set, the only
 * one looked at), the cache folder, the published envtest archive, a build with Go. The last two fill the cache.
 * Throws a ControlPlaneError that says what was tried and what to do.
 */
export async function resolveBinaries(
  names: readonly BinaryName[],
  options: ResolveOptions = {},
): Promise<ResolvedBinaries> {
  const env = options.env ?? process.env;
  const progress = options.progress ?? createProgress();

  // Somebody who sets it wants these and no others: never silently something else.
  const assets = env['KUBEBUILDER_ASSETS'];
  if (assets !== undefined && assets !== '') {
    const missing = await findMissing(assets, names);
    if (missing === undefined) return { folder: assets, source: 'KUBEBUILDER_ASSETS' };
    throw new ControlPlaneError(
      `KUBEBUILDER_ASSETS is ${assets}, but ${join(assets, missing)} is no executable file. ` +
        `Put it there, or unset KUBEBUILDER_ASSETS.`,
    );
  }

  const cache = await cacheFolder(env, await goBuildFlags());
  const built = join(cache, 'built');
  const published = join(cache, 'published');
  // Built before published: it has exactly the pinned version.
  for (const folder of [built, published]) {
    if ((await findMissing(folder, names)) === undefined) return { folder, source: 'cache' };
  }

  const tried = [`KUBEBUILDER_ASSETS is not set`, `the cache folder ${cache} does not hold them`];
  // One folder must hold all, so that the versions of the programs fit together.
  const unpublished = names.filter((name) => !PUBLISHED_BINARIES.includes(name));
  if (unpublished.length > 0) {
    tried.push(`published archives hold no ${unpublished.join(' and no ')}`);
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
      // Also after a wrong checksum: Go has its own sums to check. A full disk, say, ends it here.
      if (!(error instanceof ControlPlaneError)) throw error;
      tried.push(`no published archive: ${error.message}`);
      progress.log(`no published archive: ${error.message}`);
    }
  }

  const go = await findGo(env);
  if (go === undefined) {
    throw new ControlPlaneError(
      `The control plane for tests needs ${names.join(', ')}. Tried: ${tried.join('; ')}; no \`go\` on the PATH. ` +
        `Install Go 1.26 or later, or set KUBEBUILDER_ASSETS to a folder that holds them.`,
    );
  }
  const isBuilt = async (): Promise<boolean> => (await findMissing(built, names)) === undefined;
  progress.log(`building Kubernetes, etcd and Helm with ${go} into ${built} (minutes, the first time)`);
  await installOnce(built, isBuilt, async (folder) => buildWithGo(folder, env, progress), progress);
  progress.log(`built ${built}`);
  return { folder: built, source: 'Go build' };
}
