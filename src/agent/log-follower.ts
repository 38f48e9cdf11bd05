import { watch, type FSWatcher, type Stats } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { errorCode, errorMessage } from '../error-message.ts';

/** The file cannot be followed at the moment. One line, without a period. */
export class LogFollowerError extends Error {
  override readonly name = 'LogFollowerError';
}

/** Only this much of the end is read if the file is longer at the start. */
const MAX_INITIAL_BYTES = 64 * 1024 * 1024;
const CHUNK_BYTES = 64 * 1024;
/** A longer line is not a line of the lifecycle log. It is skipped. */
const MAX_LINE_BYTES = 64 * 1024;
/** As many bytes before the position are compared, so that other content is noticed. Longer than a line usually is. */
const FINGERPRINT_BYTES = 1024;

/** One file that is being read, with the position and the beginning of a line that is not complete yet. */
interface OpenFile {
  readonly handle: FileHandle;
  readonly device: number;
  readonly inode: number;
  offset: number;
  /** The last bytes before the position. */
  fingerprint: Buffer;
  partial: string;
  /** Whether the rest of the current line is skipped. */
  skipping: boolean;
}

/**
 * Follows a log file by name, across rotation and truncation. The previous file of a rotation is read until the next
 * one, because Envoy writes to it until it reopens its logs.
 */
export class LogFollower {
  readonly #path: string;
  readonly #onLine: (line: string) => void;
  readonly #onTooLongLine: (maxBytes: number) => void;
  #current: OpenFile | undefined;
  #previous: OpenFile | undefined;
  #watcher: FSWatcher | undefined;
  #reading: Promise<void> | undefined;

  /**
   * @param onLine receives each complete line, without its end
   * @param onTooLongLine called for each line of more than `maxBytes`, which is skipped
   */
  constructor(
    path: string,
    onLine: (line: string) => void,
    onTooLongLine: (maxBytes: number) => void = () => {},
  ) {
    this.#path = path;
    this.#onLine = onLine;
    this.#onTooLongLine = onTooLongLine;
  }

  /**
   * Calls back when the file may have grown. It is only a hint: where the system has no such notification, reading
   * periodically is enough.
   */
  watch(onChange: () => void): void {
    if (this.#watcher !== undefined) return;
    const name = basename(this.#path);
    try {
      // The folder, because a watch of the file would stay with the old one after a rotation.
      this.#watcher = watch(dirname(this.#path), (_type, changed) => {
        if (changed === null || changed === name) onChange();
      });
      this.#watcher.on('error', () => this.#unwatch());
    } catch {
      // The folder does not exist yet. The next call tries again.
    }
  }

  /**
   * Reads everything that was written since the last call. Concurrent calls share one read.
   *
   * @throws LogFollowerError if the file is missing, is not a regular file, or cannot be read
   */
  read(): Promise<void> {
    this.#reading ??= this.#readNewLines().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  /** Reads the file from its beginning again with the next call of `read`. */
  async rewind(): Promise<void> {
    await this.#reading?.catch(() => undefined);
    await this.#closeFiles();
  }

  async close(): Promise<void> {
    this.#unwatch();
    await this.rewind();
  }

  async #readNewLines(): Promise<void> {
    try {
      if (this.#previous !== undefined) await this.#drain(this.#previous);
      const stats = await this.#stat();
      if (stats === undefined) {
        if (this.#current !== undefined) await this.#drain(this.#current);
        return;
      }
      // Opening a FIFO would wait for a writer.
      if (!stats.isFile()) throw new LogFollowerError(`read ${this.#path}: not a regular file`);
      if (this.#current !== undefined && !isSameFile(this.#current, stats)) {
        await this.#drain(this.#current);
        await this.#previous?.handle.close();
        this.#previous = this.#current;
        this.#current = undefined;
      }
      if (this.#current === undefined) {
        const isFirst = this.#previous === undefined;
        const offset = isFirst ? Math.max(0, stats.size - MAX_INITIAL_BYTES) : 0;
        const handle = await open(this.#path, 'r');
        this.#current = {
          handle,
          device: stats.dev,
          inode: stats.ino,
          offset,
          fingerprint: Buffer.alloc(0),
          partial: '',
          skipping: offset > 0,
        };
      }
      await this.#drain(this.#current);
    } catch (error) {
      if (errorCode(error) === undefined) throw error;
      throw new LogFollowerError(errorMessage(error), { cause: error });
    }
  }

  /** Returns undefined between the two steps of a rotation: the file was renamed, and Envoy writes to it as before. */
  async #stat(): Promise<Stats | undefined> {
    try {
      return await stat(this.#path);
    } catch (error) {
      if (this.#current !== undefined && errorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  async #drain(file: OpenFile): Promise<void> {
    const buffer = Buffer.allocUnsafe(FINGERPRINT_BYTES + CHUNK_BYTES);
    for (;;) {
      // One read returns the fingerprint and what follows it, so that a truncation cannot come in between.
      const known = file.fingerprint.length;
      const { bytesRead } = await file.handle.read(buffer, 0, known + CHUNK_BYTES, file.offset - known);
      if (bytesRead < known || !file.fingerprint.equals(buffer.subarray(0, known))) {
        // Truncated, and perhaps already longer than it was (copytruncate).
        file.offset = 0;
        file.fingerprint = Buffer.alloc(0);
        file.partial = '';
        file.skipping = false;
        continue;
      }
      if (bytesRead === known) return;
      file.offset += bytesRead - known;
      file.fingerprint = Buffer.from(buffer.subarray(Math.max(0, bytesRead - FINGERPRINT_BYTES), bytesRead));
      this.#splitLines(file, buffer.toString('utf8', known, bytesRead));
    }
  }

  /** Envoy escapes everything beyond ASCII in JSON, so that a chunk of its log never ends within a character. */
  #splitLines(file: OpenFile, text: string): void {
    const lines = (file.partial + text).split('\n');
    file.partial = lines.pop() ?? '';
    for (const line of lines) {
      if (file.skipping) file.skipping = false;
      else if (line.length > MAX_LINE_BYTES) this.#onTooLongLine(MAX_LINE_BYTES);
      else if (line !== '') this.#onLine(line);
    }
    if (file.partial.length > MAX_LINE_BYTES) {
      if (!file.skipping) this.#onTooLongLine(MAX_LINE_BYTES);
      file.partial = '';
      file.skipping = true;
    }
  }

  #unwatch(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
  }

  async #closeFiles(): Promise<void> {
    const files = [this.#current, this.#previous];
    this.#current = undefined;
    this.#previous = undefined;
    for (const file of files) await file?.handle.close();
  }
}

function isSameFile(file: OpenFile, stats: Stats): boolean {
  return file.inode === stats.ino && file.device === stats.dev;
}
