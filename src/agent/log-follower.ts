import { watch, type FSWatcher } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { errorCode, errorMessage } from '../error-message.ts';

/** The file cannot be followed at the moment. One line, without a period. */
export class LogFollowerError extends Error {
  override readonly name = 'LogFollowerError';
}

/** Only this much of the end is read if the file is longer at the start. */
const MAX_INITIAL_BYTES = 64 * 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;
/** A longer line is not a line of the lifecycle log. It is skipped. */
const MAX_LINE_BYTES = 64 * 1024;

/** One file that is being read, with the position and the beginning of a line that is not complete yet. */
interface OpenFile {
  readonly handle: FileHandle;
  readonly inode: number;
  offset: number;
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
  #current: OpenFile | undefined;
  #previous: OpenFile | undefined;
  #watcher: FSWatcher | undefined;
  #reading: Promise<void> | undefined;

  /** @param onLine receives each complete line, without its end */
  constructor(path: string, onLine: (line: string) => void) {
    this.#path = path;
    this.#onLine = onLine;
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
      const stats = await stat(this.#path);
      // Opening a FIFO would wait for a writer.
      if (!stats.isFile()) throw new LogFollowerError(`read ${this.#path}: not a regular file`);
      if (this.#previous !== undefined) await this.#drain(this.#previous);
      if (this.#current !== undefined && this.#current.inode !== stats.ino) {
        await this.#drain(this.#current);
        await this.#previous?.handle.close();
        this.#previous = this.#current;
        this.#current = undefined;
      }
      if (this.#current === undefined) {
        const isFirst = this.#previous === undefined;
        const offset = isFirst ? Math.max(0, stats.size - MAX_INITIAL_BYTES) : 0;
        const handle = await open(this.#path, 'r');
        this.#current = { handle, inode: stats.ino, offset, partial: '', skipping: offset > 0 };
      } else if (stats.size < this.#current.offset) {
        this.#current.offset = 0;
        this.#current.partial = '';
        this.#current.skipping = false;
      }
      await this.#drain(this.#current);
    } catch (error) {
      if (errorCode(error) === undefined) throw error;
      throw new LogFollowerError(errorMessage(error), { cause: error });
    }
  }

  async #drain(file: OpenFile): Promise<void> {
    const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
    for (;;) {
      const { bytesRead } = await file.handle.read(buffer, 0, CHUNK_BYTES, file.offset);
      if (bytesRead === 0) return;
      file.offset += bytesRead;
      // Envoy escapes everything beyond ASCII in JSON, so that a chunk never ends within a character.
      const lines = (file.partial + buffer.toString('utf8', 0, bytesRead)).split('\n');
      file.partial = lines.pop() ?? '';
      for (const line of lines) {
        if (file.skipping) file.skipping = false;
        else if (line !== '' && line.length <= MAX_LINE_BYTES) this.#onLine(line);
      }
      if (file.partial.length > MAX_LINE_BYTES) {
        file.partial = '';
        file.skipping = true;
      }
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
