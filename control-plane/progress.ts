/** Says on stderr that something long is going on: a live line on a terminal, otherwise a line now and then. */

/** Where progress goes. Elapsed time is added by the implementation. */
export interface Progress {
  /** One line that stays. */
  log(line: string): void;
  /** How far `what` has come; only the latest matters. */
  update(text: string): void;
}

/** Between two lines where stderr is no terminal, such as in CI: often enough to be seen alive, rare enough to read. */
const PLAIN_INTERVAL_MS = 12_000;
const LIVE_INTERVAL_MS = 250;

/** What of a stream is needed here. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

/**
 * Writes progress to `stream`. `nowMs` is a monotonic clock in milliseconds.
 * The first `update` of a job is written at once, the next ones at intervals.
 */
export function createProgress(
  stream: ProgressStream = process.stderr,
  nowMs: () => number = () => performance.now(),
): Progress {
  const live = stream.isTTY === true;
  const startedMs = nowMs();
  let lastMs = Number.NEGATIVE_INFINITY;
  let liveLine = false;
  return {
    log(line) {
      stream.write(`${liveLine ? '\r\u001b[K' : ''}control-plane: ${line}\n`);
      liveLine = false;
    },
    update(text) {
      const now = nowMs();
      if (now - lastMs < (live ? LIVE_INTERVAL_MS : PLAIN_INTERVAL_MS)) return;
      lastMs = now;
      const line = `control-plane: [${formatElapsed(now - startedMs)}] ${text}`;
      stream.write(live ? `\r${line}\u001b[K` : `${line}\n`);
      liveLine = live;
    },
  };
}

/** `7s`, `2m05s`. */
export function formatElapsed(elapsedMs: number): string {
  const seconds = Math.floor(elapsedMs / 1000);
  return seconds < 60
    ? `${seconds}s`
    : `${Math.floor(seconds / 60)}m${String(seconds % 60).padStart(2, '0')}s`;
}
