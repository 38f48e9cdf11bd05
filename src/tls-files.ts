import { readFile } from 'node:fs/promises';
import type { Clock } from './clock.ts';
import { runPeriodically } from './run-periodically.ts';

/** The files of TLS, in PEM: their paths, or what stands in them. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  readonly clientCa: string | undefined;
}

/** A kubelet takes a minute to bring a changed Secret; and a read of three small files costs nothing. */
const POLL_INTERVAL_MS = 5000;

/** A file of TLS cannot be read; the message names it and says why. */
export class TlsFileError extends Error {
  override readonly name = 'TlsFileError';
}

/** @throws TlsFileError */
export async function readTlsFiles(paths: TlsFiles): Promise<TlsFiles> {
  const [cert, key, clientCa] = await Promise.all([
    readText(paths.cert),
    readText(paths.key),
    paths.clientCa === undefined ? undefined : readText(paths.clientCa),
  ]);
  return { cert, key, clientCa };
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TlsFileError(reason, { cause: error });
  }
}

/**
 * Looks at the files every 5 s, and tells what stands in them whenever that is another than before. By their text, and
 * by looking: a mounted Secret changes by a swapped link, of which file notifications tell differently on each system.
 * Files that are changed one after the other are told in a mixture, and a moment later as they are meant.
 *
 * @param texts as they were read last
 * @param unreadable told once whenever they can no longer be read; until they can, they count as unchanged
 * @returns ends it
 */
export function watchTlsFiles(
  paths: TlsFiles,
  texts: TlsFiles,
  clock: Clock,
  {
    onChange,
    onError,
  }: {
    readonly onChange: (texts: TlsFiles) => void;
    readonly onError: (error: unknown) => void;
  },
): () => void {
  let lastTexts = texts;
  let isReadable = true;
  let isStopped = false;
  const stopPolling = runPeriodically(clock, POLL_INTERVAL_MS, async () => {
    try {
      const currentTexts = await readTlsFiles(paths);
      isReadable = true;
      if (!isStopped && !sameTexts(currentTexts, lastTexts)) {
        lastTexts = currentTexts;
        onChange(currentTexts);
      }
    } catch (error) {
      if (isReadable && !isStopped) onError(error);
      isReadable = false;
    }
  });
  return () => {
    isStopped = true;
    stopPolling();
  };
}

function sameTexts(a: TlsFiles, b: TlsFiles): boolean {
  return a.cert === b.cert && a.key === b.key && a.clientCa === b.clientCa;
}
