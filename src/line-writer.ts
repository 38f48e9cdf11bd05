import { close, constants, fstat, open, stat, write, type Stats } from 'node:fs';
import { promisify } from 'node:util';
import type { Clock } from './clock.ts';
import { errorCode } from './error-message.ts';

const openFile = promisify(open);
const closeFile = promisify(close);
const statFile = promisify(stat);
const statOpenFile = promisify(fstat);
const writeFile = promisify(write);

/** Bytes of lines that wait to be written; about 20,000 lines of 400 bytes. */
const MAX_BUFFER_BYTES = 8 * 1024 ** 2;
const FILE_CHUNK_BYTES = 64 * 1024;
/** A write of up to this size to a pipe is never mixed with writes of others (PIPE_BUF). */
const PIPE_CHUNK_BYTES = 4096;
const RETRY_INTERVAL_MS = 1000;
/** A pipe that is full has no event for its file descriptor. */
const FULL_PIPE_INTERVAL_MS = 50;
const ROTATION_CHECK_INTERVAL_MS = 1000;

const STDOUT = 1;
/** A FIFO without a reader, or one whose reader does not read, must not block a thread: the process could not exit. */
const NON_BLOCKING = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY;
const APPEND = NON_BLOCKING | constants.O_APPEND | constants.O_CREAT;
/** Readable by the group, because lines name tenants. */
const FILE_MODE = 0o640;

/** Errors that may end without a change of the configuration. */
const TRANSIENT_ERRORS: ReadonlySet<string | undefined> = new Set([
  'ENOSPC',
  'EDQUOT',
  'EIO',
  'EMFILE',
  'ENFILE',
  'ESTALE',
]);

export interface LineWriterOptions {
  /** A path, or `stdout`. */
  readonly target: string;
  readonly clock: Clock;
  /** Called with the number of lines that were written. */
  readonly onWritten: (lines: number) => void;
  /** Called with each error; lines are kept, and written again after a second. */
  readonly onFailure: (error: unknown) => void;
  /** Called when a write succeeds after a failure. */
  readonly onRecovery: () => void;
}

/**
 * Appends lines to a file or to standard output without waiting for it: `write` only adds them to a buffer of 8 MiB.
 *
 * A file that was renamed or deleted is noticed within a second of the next line and opened again under its path, so
 * both ways of log rotation work: rename, and copy and truncate.
 */
export class LineWriter {
  readonly #options: LineWriterOptions;
  readonly #isStdout: boolean;
  #file: number | undefined;
  /** The file that was opened last; undefined for standard output. */
  #opened: Pick<Stats, 'ino' | 'dev'> | undefined;
  #chunkBytes = FILE_CHUNK_BYTES;
  #checkedMs = 0;
  readonly #lines: string[] = [];
  #bufferedBytes = 0;
  /** What is being written, and how much of it was. */
  #chunk: Buffer | undefined;
  #offset = 0;
  #isFailing = false;
  #isClosing = false;
  #running: Promise<void> | undefined;
  #endDelay: (() => void) | undefined;

  private constructor(options: LineWriterOptions) {
    this.#options = options;
    this.#isStdout = options.target === 'stdout';
  }

  /**
   * Opens the target. A full disk and a FIFO without a reader are reported to `onFailure`, and opening is tried again
   * with the next line.
   *
   * @throws Error the system's error, for example if the path is a directory or must not be written
   */
  static async open(options: LineWriterOptions): Promise<LineWriter> {
    const writer = new LineWriter(options);
    try {
      await writer.#open();
    } catch (error) {
      if (!TRANSIENT_ERRORS.has(errorCode(error)) && !(await isFifo(options.target))) throw error;
      writer.#fail(error);
    }
    return writer;
  }

  /** Adds a line, which must end with a line feed. Returns false if the buffer is full; the line is lost then. */
  write(line: string): boolean {
    const bytes = Buffer.byteLength(line);
    if (this.#isClosing || this.#bufferedBytes + bytes > MAX_BUFFER_BYTES) return false;
    this.#bufferedBytes += bytes;
    this.#lines.push(line);
    this.#running ??= this.#run();
    return true;
  }

  /**
   * Writes what is buffered, without a retry, and closes the file.
   *
   * @returns the number of lines that could not be written
   */
  async close(): Promise<number> {
    this.#isClosing = true;
    this.#endDelay?.();
    await this.#running;
    await this.#close();
    return this.#lines.length + (this.#chunk === undefined ? 0 : countLines(this.#chunk));
  }

  async #run(): Promise<void> {
    // Lines of one tick are written together.
    await this.#delay(0);
    while (this.#chunk !== undefined || this.#lines.length > 0) {
      try {
        await this.#prepare();
        await this.#writeChunk();
        if (this.#isFailing) this.#options.onRecovery();
        this.#isFailing = false;
      } catch (error) {
        const isFullPipe = errorCode(error) === 'EAGAIN';
        if (!isFullPipe) {
          this.#fail(error);
          await this.#close();
        }
        if (this.#isClosing) break;
        await this.#delay(isFullPipe ? FULL_PIPE_INTERVAL_MS : RETRY_INTERVAL_MS);
      }
    }
    this.#running = undefined;
  }

  /** Opens the file if it is not open, or if another file has its path. */
  async #prepare(): Promise<void> {
    const nowMs = this.#options.clock.monotonicMs();
    if (this.#file !== undefined && nowMs - this.#checkedMs >= ROTATION_CHECK_INTERVAL_MS) {
      this.#checkedMs = nowMs;
      if (!this.#isStdout && !(await this.#isCurrent())) await this.#close();
    }
    if (this.#file === undefined) await this.#open();
  }

  async #writeChunk(): Promise<void> {
    const file = this.#file ?? STDOUT;
    this.#chunk ??= this.#nextChunk();
    while (this.#offset < this.#chunk.length) {
      const { bytesWritten } = await writeFile(
        file,
        this.#chunk,
        this.#offset,
        this.#chunk.length - this.#offset,
        null,
      );
      this.#offset += bytesWritten;
    }
    const lines = countLines(this.#chunk);
    this.#bufferedBytes -= this.#chunk.length;
    this.#chunk = undefined;
    this.#offset = 0;
    this.#options.onWritten(lines);
  }

  /** Takes lines from the buffer: at least one, and otherwise no more than a chunk. */
  #nextChunk(): Buffer {
    let bytes = 0;
    let count = 0;
    for (const line of this.#lines) {
      bytes += Buffer.byteLength(line);
      if (count > 0 && bytes > this.#chunkBytes) break;
      count += 1;
    }
    return Buffer.from(this.#lines.splice(0, count).join(''));
  }

  async #open(): Promise<void> {
    if (this.#isStdout) {
      ({ file: this.#file, chunkBytes: this.#chunkBytes } = await openStdout());
      return;
    }
    const { target, clock } = this.#options;
    this.#file = await openFile(target, APPEND, FILE_MODE);
    this.#checkedMs = clock.monotonicMs();
    const opened = await statOpenFile(this.#file);
    // It contains the beginning of the line that is being written, unless it was truncated.
    const isContinued = opened.isFile() && opened.size > 0 && isSameFile(opened, this.#opened);
    this.#opened = opened;
    if (isContinued || this.#chunk === undefined || this.#offset === 0) return;
    this.#offset = this.#chunk.lastIndexOf('\n', this.#offset - 1) + 1;
  }

  /** Returns false if the path names another file than the open one, or none. */
  async #isCurrent(): Promise<boolean> {
    try {
      return isSameFile(await statFile(this.#options.target), this.#opened);
    } catch (error) {
      // Another error may be temporary; the open file can still be written.
      return errorCode(error) !== 'ENOENT';
    }
  }

  async #close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined || file === STDOUT) return;
    try {
      await closeFile(file);
    } catch {
      // Only the error of the last write matters, which was reported.
    }
  }

  #fail(error: unknown): void {
    this.#isFailing = true;
    this.#options.onFailure(error);
  }

  /** Resolves after a time, or when the writer is closed. */
  #delay(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#options.clock.setTimer(delayMs, resolve);
      this.#endDelay = () => {
        cancel();
        resolve();
      };
    });
  }
}

/**
 * Opens standard output for writing. A pipe or terminal is opened again, because making the existing descriptor
 * non-blocking would affect every process that shares it. A file must not be opened again: it has one position.
 */
async function openStdout(): Promise<{ file: number; chunkBytes: number }> {
  const stats = await statOpenFile(STDOUT);
  const chunkBytes = stats.isFile() ? FILE_CHUNK_BYTES : PIPE_CHUNK_BYTES;
  if (!stats.isFIFO() && !stats.isCharacterDevice()) return { file: STDOUT, chunkBytes };
  try {
    return { file: await openFile(`/proc/self/fd/${STDOUT}`, NON_BLOCKING), chunkBytes };
  } catch {
    // Not Linux, or the pipe belongs to another user.
    return { file: STDOUT, chunkBytes };
  }
}

async function isFifo(path: string): Promise<boolean> {
  try {
    return (await statFile(path)).isFIFO();
  } catch {
    return false;
  }
}

function isSameFile(a: Pick<Stats, 'ino' | 'dev'>, b: Pick<Stats, 'ino' | 'dev'> | undefined): boolean {
  return a.ino === b?.ino && a.dev === b.dev;
}

function countLines(chunk: Buffer): number {
  let count = 0;
  for (let end = chunk.indexOf('\n'); end !== -1; end = chunk.indexOf('\n', end + 1)) count += 1;
  return count;
}
