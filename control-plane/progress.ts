/** Reports the progress of long operations: a live line on a terminal, otherwise a line at intervals. */

/** Receives the progress of an operation. The implementation adds the elapsed time. */
export interface Progress {
  /** Prints a permanent line. */
  log(line: string): void;
  /** Reports the current state; only the latest one is shown. */
  update(text: string): void;
}

/** Between two lines if stderr is not a terminal, such as in CI: short enough to show activity, long enough to read. */
const PLAIN_INTERVAL_MS = 12_000;
const LIVE_INTERVAL_MS = 250;

/** The part of a stream that is used here. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

/**
 * Returns a progress that writes to `stream`: the first update immediately, the next ones at intervals.
 *
 * @param nowMs a monotonic clock in milliseconds
 */
export function createProgress(
  stream: ProgressStream = process.stderr,
  nowMs: () => number = () => performance.now(),
  name = 'control-plane',
): Progress {
  const live = stream.isTTY === true;
  const startedMs = nowMs();
  let lastMs = Number.NEGATIVE_INFINITY;
  let liveLine = false;
  return {
    log(line) {
      stream.write(`${liveLine ? '\r\u001b[K' : ''}${name}: ${line}\n`);
      liveLine = false;
    },
    update(text) {
      const now = nowMs();
      if (now - lastMs < (live ? LIVE_INTERVAL_MS : PLAIN_INTERVAL_MS)) return;
      lastMs = now;
      const line = `${name}: [${formatElapsed(now - startedMs)}] ${text}`;
      stream.write(live ? `\r${line}\u001b[K` : `${line}\n`);
      liveLine = live;
    },
  };
}

/** Formats a duration like `7s` or `2m05s`. */
export function formatElapsed(elapsedMs: number): string {
  const seconds = Math.floor(elapsedMs / 1000);
  return seconds < 60
    ? `${seconds}s`
    : `${Math.floor(seconds / 60)}m${String(seconds % 60).padStart(2, '0')}s`;
}
