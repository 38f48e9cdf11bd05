/** Gets the archive of etcd, kube-apiserver and kubectl that Kubernetes' controller-tools publish for tests. */
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { chmod, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { parse } from 'yaml';
import { currentPlatform, pinnedVersion, PUBLISHED_BINARIES } from './binaries.ts';
import type { Platform } from './binaries.ts';
import { ControlPlaneError, errorMessage } from './errors.ts';
import type { Progress } from './progress.ts';
import { lastLines, run } from './run.ts';
import { getString, getPath } from './get-path.ts';

/** The index that names each archive with its sha512. Another address is given by the environment's ENVTEST_INDEX_URL. */
const DEFAULT_INDEX_URL =
  'https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml';

/** A machine without a network must not wait: an answer begins within this time, or there is none. */
const RESPONSE_TIMEOUT_MS = 5_000;
/** A download that brings nothing for so long is given up. */
const STALL_TIMEOUT_MS = 30_000;

/** An archive as the index names it. */
export interface PublishedArchive {
  /** Kubernetes version, such as `v1.37.0`. */
  readonly version: string;
  readonly url: string;
  /** Of the whole .tar.gz, lower-case hex. */
  readonly sha512: string;
}

/**
 * Picks from the index's text the archive for `platform`: the pinned version, else the newest patch release of the
 * same minor version (not each patch is published). Undefined when there is none; throws when the text is no index.
 */
export function pickArchive(
  indexText: string,
  pinned: string,
  platform: Platform,
): PublishedArchive | undefined {
  const releases = getPath(parse(indexText), 'releases');
  if (typeof releases !== 'object' || releases === null) throw new Error('the index has no `releases`');
  const [major, minor] = pinned.split('.');
  let best: PublishedArchive | undefined;
  let bestPatch = -1;
  for (const [version, archives] of Object.entries(releases)) {
    // Whole releases only: an -rc is older than the release it precedes.
    const patch = /^(v\d+)\.(\d+)\.(\d+)$/.exec(version);
    if (patch?.[1] !== major || patch?.[2] !== minor) continue;
    const patchRank = version === pinned ? Number.POSITIVE_INFINITY : Number(patch?.[3]);
    const name = `envtest-${version}-${platform.os}-${platform.arch}.tar.gz`;
    const sha512 = getString(archives, name, 'hash');
    const url = getString(archives, name, 'selfLink');
    if (sha512 === undefined || url === undefined || patchRank <= bestPatch) continue;
    best = { version, url, sha512: sha512.toLowerCase() };
    bestPatch = patchRank;
  }
  return best;
}

/**
 * Downloads, verifies and unpacks the archive for this platform into `folder`. Nothing of an archive with a wrong
 * checksum is unpacked. Throws a ControlPlaneError that says in a line why there is no archive.
 */
export async function unpackPublishedArchive(
  folder: string,
  env: NodeJS.ProcessEnv,
  progress: Progress,
): Promise<void> {
  const indexUrl = env['ENVTEST_INDEX_URL'] || DEFAULT_INDEX_URL;
  const pinned = await pinnedVersion('k8s.io/kubernetes');
  const platform = currentPlatform();
  let archive: PublishedArchive | undefined;
  try {
    archive = pickArchive(await download(indexUrl, async (response) => response.text()), pinned, platform);
  } catch (error) {
    throw new ControlPlaneError(`the index ${indexUrl} cannot be had (${causeMessage(error)})`, {
      cause: error,
    });
  }
  if (archive === undefined) {
    const minor = pinned.split('.').slice(0, 2).join('.');
    throw new ControlPlaneError(
      `the index ${indexUrl} names no ${minor} for ${platform.os}/${platform.arch}`,
    );
  }

  const work = join(folder, '.unpack');
  await mkdir(work);
  const file = join(work, 'envtest.tar.gz');
  try {
    await download(archive.url, async (response, alive) =>
      saveVerified(response, archive, file, alive, progress),
    );
  } catch (error) {
    if (error instanceof ControlPlaneError) throw error;
    throw new ControlPlaneError(`${archive.url} cannot be had (${causeMessage(error)})`, { cause: error });
  }
  await unpack(file, work, folder, env);
  await rm(work, { recursive: true, force: true });
  progress.log(`unpacked the published binaries of Kubernetes ${archive.version}`);
}

/** GET with a time limit for the answer's begin and for each pause; `alive` tells that something came. */
async function download<T>(
  url: string,
  consume: (response: Response, onProgress: () => void) => Promise<T>,
): Promise<T> {
  const abort = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const resetTimer = (limitMs: number): void => {
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(new Error(`nothing came for ${limitMs / 1000} s`)), limitMs);
  };
  resetTimer(RESPONSE_TIMEOUT_MS);
  try {
    const response = await fetch(url, { signal: abort.signal });
    resetTimer(STALL_TIMEOUT_MS);
    if (!response.ok) {
      await response.body?.cancel();
      throw new Error(`HTTP status ${response.status}`);
    }
    return await consume(response, () => resetTimer(STALL_TIMEOUT_MS));
  } finally {
    clearTimeout(timer);
  }
}

/** Streams the answer into `file` and compares its sha512; the caller unpacks only what has come through here. */
async function saveVerified(
  response: Response,
  archive: PublishedArchive,
  file: string,
  onProgress: () => void,
  progress: Progress,
): Promise<void> {
  if (response.body === null) throw new Error('an empty answer');
  const totalBytes = Number(response.headers.get('content-length'));
  const hash = createHash('sha512');
  let receivedBytes = 0;
  await pipeline(
    Readable.fromWeb(response.body),
    async function* measure(chunks: AsyncIterable<Uint8Array>) {
      for await (const chunk of chunks) {
        onProgress();
        hash.update(chunk);
        receivedBytes += chunk.length;
        const ofTotal = totalBytes > 0 ? ` of ${mebibytes(totalBytes)}` : '';
        progress.update(`downloading ${archive.url}: ${mebibytes(receivedBytes)}${ofTotal} MiB`);
        yield chunk;
      }
    },
    createWriteStream(file),
  );
  const sha512 = hash.digest('hex');
  if (sha512 !== archive.sha512) {
    throw new ControlPlaneError(
      `${archive.url} is refused: its sha512 is ${sha512}, and the index says ${archive.sha512}`,
    );
  }
}

/** The binaries lie in some folder of the archive; only their names are relied on. */
async function unpack(file: string, work: string, folder: string, env: NodeJS.ProcessEnv): Promise<void> {
  const tar = await run('tar', ['-xzf', file, '-C', work], { cwd: work, env });
  if (tar.code !== 0) {
    throw new ControlPlaneError(`tar cannot unpack the published archive: ${lastLines(tar.stderr, 2)}`);
  }
  const entries = await readdir(work, { recursive: true, withFileTypes: true });
  for (const name of PUBLISHED_BINARIES) {
    const entry = entries.find((candidate) => candidate.name === name && candidate.isFile());
    if (entry === undefined) throw new ControlPlaneError(`the published archive holds no ${name}`);
    await rename(join(entry.parentPath, name), join(folder, name));
    await chmod(join(folder, name), 0o755);
  }
}

function mebibytes(bytes: number): string {
  return (bytes / 1024 / 1024).toFixed(0);
}

/** fetch says only "fetch failed"; what failed is its cause. */
function causeMessage(error: unknown): string {
  const cause = getPath(error, 'cause');
  return errorMessage(cause instanceof Error ? cause : error);
}
