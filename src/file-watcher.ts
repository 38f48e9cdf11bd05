import { readFile } from 'node:fs/promises';
import type { Clock } from './clock.ts';
import { errorMessage } from './error-message.ts';
import type { Log } from './log.ts';
import { runPeriodically } from './run-periodically.ts';

/** Adds little to the minute that a kubelet takes to update a mounted ConfigMap or Secret, and small files are cheap to read. */
const POLL_INTERVAL_MS = 5000;

/** The paths of files, or their contents, by purpose; undefined for a file that is not used. */
type FileSet<T> = { readonly [K in keyof T]: string | undefined };

export interface FileWatcherOptions<T> {
  readonly clock: Clock;
  /** Called with the contents of all files when at least one has changed. */
  readonly onChange: (contents: T) => void;
  readonly log: Log;
  /** Called once when the files can no longer be read; until they can, they count as unchanged. */
  readonly onError?: (error: FileReadError) => void;
}

/** A file could not be read; the message names the file and the reason. */
export class FileReadError extends Error {
  override readonly name = 'FileReadError';
}

/**
 * Reads files as UTF-8.
 *
 * @throws FileReadError for the first file that cannot be read
 */
export async function readFiles<T extends FileSet<T>>(paths: T): Promise<T> {
  const entries = Object.entries<string | undefined>(paths).map(
    async ([purpose, path]) => [purpose, path === undefined ? undefined : await readText(path)] as const,
  );
  return Object.fromEntries(await Promise.all(entries)) as unknown as T;
}

/**
 * Polls files every 5 s for changes of their contents. File notifications are not used: a mounted ConfigMap or Secret
 * changes by the replacement of a symbolic link, which each system reports differently. If several files are changed one
 * after the other, an inconsistent set may be reported first and the consistent one 5 s later.
 *
 * @param contents the contents that were read last
 * @returns a function that stops polling
 */
export function watchFiles<T extends FileSet<T>>(
  paths: T,
  contents: T,
  { clock, log, onChange, onError }: FileWatcherOptions<T>,
): () => void {
  let lastContents = contents;
  let isReadable = true;
  let isStopped = false;
  const poll = async (): Promise<void> => {
    let currentContents: T;
    try {
      currentContents = await readFiles(paths);
    } catch (error) {
      if (isReadable && !isStopped) onError?.(error as FileReadError);
      isReadable = false;
      return;
    }
    isReadable = true;
    if (isStopped || areEqual(currentContents, lastContents)) return;
    lastContents = currentContents;
    onChange(currentContents);
  };
  const stopPolling = runPeriodically(clock, log, {
    name: 'check files for changes',
    intervalMs: POLL_INTERVAL_MS,
    run: poll,
  });
  return () => {
    isStopped = true;
    stopPolling();
  };
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new FileReadError(errorMessage(error), { cause: error });
  }
}

function areEqual<T extends FileSet<T>>(a: T, b: T): boolean {
  return (Object.keys(a) as (keyof T)[]).every((purpose) => a[purpose] === b[purpose]);
}
