import { writeSync } from 'node:fs';
import { errorCode, errorMessage } from './error-message.ts';

/** Standard output. `process.stdout` is not used, because it would make a pipe non-blocking and buffer without a limit. */
const STDOUT = 1;
/** A reader that is this far behind loses lines; the process must not wait for it. */
const MAX_WAIT_MS = 1_000;
const POLL_INTERVAL_MS = 10;

/** Where log lines are written to. */
export interface LogStream {
  write(line: string): void;
}

/**
 * Returns a stream that writes each line to standard output and never throws: a full disk or a closed pipe must not end
 * the process. The first failure is reported on standard error; further lines are tried again and lost if that fails.
 *
 * @param program name in the report
 */
export function createLogStream(program: string): LogStream {
  let isFailing = false;
  return {
    write(line) {
      try {
        writeAll(Buffer.from(line));
        isFailing = false;
      } catch (error) {
        if (isFailing) return;
        isFailing = true;
        report(`${program}: cannot write log: ${errorMessage(error)}; lines are lost until it succeeds\n`);
      }
    },
  };
}

/** @throws Error the system's error, also EAGAIN if the reader is too far behind */
function writeAll(bytes: Buffer): void {
  let written = 0;
  let waitedMs = 0;
  while (written < bytes.length) {
    try {
      written += writeSync(STDOUT, bytes, written);
    } catch (error) {
      // The pipe is non-blocking if a process that shares it has made it so.
      if (errorCode(error) !== 'EAGAIN' || waitedMs >= MAX_WAIT_MS) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, POLL_INTERVAL_MS);
      waitedMs += POLL_INTERVAL_MS;
    }
  }
}

function report(text: string): void {
  try {
    writeSync(2, text);
  } catch {
    // There is nowhere left to report to.
  }
}
