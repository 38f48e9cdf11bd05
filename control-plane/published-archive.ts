/** Downloads the envtest archive (etcd, kube-apiserver and kubectl) that controller-tools publishes. */
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

/** The index that lists each archive with its sha512. ENVTEST_INDEX_URL in the environment overrides it. */
const DEFAULT_INDEX_URL =
  'https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml';

/** Until the first byte of a response, so that a machine without a network fails fast. */
const RESPONSE_TIMEOUT_MS = 5_000;
/** A download that makes no progress for this long is aborted. */
const STALL_TIMEOUT_MS = 30_000;

/** An entry of the index. */
export interface PublishedArchive {
  /** Kubernetes version, such as `v1.37.0`. */
  readonly version: string;
  readonly url: string;
  /** Checksum of the .tar.gz, in lower-case hex. */
  readonly sha512: string;
}

/**
 * Selects the archive for `platform` from the text of the index: the pinned version, or otherwise the newest patch
 * release of the same minor version, because not every patch release is published.
 *
 * @returns undefined if there is none
 * @throws Error if the text is not an index
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
    // Final releases only: a release candidate is older than its release.
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
 * Downloads, verifies and unpacks the archive for this platform into `folder`. An archive with a wrong checksum is not
 * unpacked.
 *
 * @throws ControlPlaneError with the reason in one line
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
    throw new ControlPlaneError(`cannot download the index ${indexUrl}: ${causeMessage(error)}`, {
      cause: error,
    });
  }
  if (archive === undefined) {
    const minor = pinned.split('.').slice(0, 2).join('.');
    throw new ControlPlaneError(`the index ${indexUrl} has no ${minor} for ${platform.os}/${platform.arch}`);
  }

  const work = join(folder, '.unpack');
  await mkdir(work);
  const file = join(work, 'envtest.tar.gz');
  try {
    await download(archive.url, async (response, onProgress) =>
      saveVerified(response, archive, file, onProgress, progress),
    );
  } catch (error) {
    if (error instanceof ControlPlaneError) throw error;
    throw new ControlPlaneError(`cannot download ${archive.url}: ${causeMessage(error)}`, { cause: error });
  }
  await unpack(file, work, folder, env);
  await rm(work, { recursive: true, force: true });
  progress.log(`unpacked the published binaries of Kubernetes ${archive.version}`);
}

/** Sends a GET with a timeout until the response and between chunks; `consume` calls `onProgress` for each chunk. */
async function download<T>(
  url: string,
  consume: (response: Response, onProgress: () => void) => Promise<T>,
): Promise<T> {
  const abort = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const resetTimer = (limitMs: number): void => {
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(new Error(`no data for ${limitMs / 1000} s`)), limitMs);
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

/** Streams the response into `file` and verifies its sha512; only verified files may be unpacked. */
async function saveVerified(
  response: Response,
  archive: PublishedArchive,
  file: string,
  onProgress: () => void,
  progress: Progress,
): Promise<void> {
  if (response.body === null) throw new Error('empty response');
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
      `${archive.url}: checksum mismatch: sha512 is ${sha512}, expected ${archive.sha512}`,
    );
  }
}

/** Unpacks the binaries, which may be in any folder of the archive. */
async function unpack(file: string, work: string, folder: string, env: NodeJS.ProcessEnv): Promise<void> {
  const tar = await run('tar', ['-xzf', file, '-C', work], { cwd: work, env });
  if (tar.code !== 0) {
    throw new ControlPlaneError(`cannot unpack the published archive: ${lastLines(tar.stderr, 2)}`);
  }
  const entries = await readdir(work, { recursive: true, withFileTypes: true });
  for (const name of PUBLISHED_BINARIES) {
    const entry = entries.find((candidate) => candidate.name === name && candidate.isFile());
    if (entry === undefined) throw new ControlPlaneError(`the published archive does not contain ${name}`);
    await rename(join(entry.parentPath, name), join(folder, name));
    await chmod(join(folder, name), 0o755);
  }
}

function mebibytes(bytes: number): string {
  return (bytes / 1024 / 1024).toFixed(0);
}

/** Returns the message of the cause of a fetch error, which itself is only "fetch failed". */
function causeMessage(error: unknown): string {
  const cause = getPath(error, 'cause');
  return errorMessage(cause instanceof Error ? cause : error);
}
