/** A status line: rewritten in place on a terminal, otherwise printed at intervals. */
import { formatElapsed } from '../control-plane/progress.ts';

/** Between two lines if the output is not a terminal. */
const PLAIN_INTERVAL_MS = 10_000;

export interface Progress {
  /** Sets the current activity. */
  update(activity: string): void;
  /** Prints a permanent line. */
  log(line: string): void;
  /** Clears the status line. */
  end(): void;
}

/**
 * @param out usually stderr, so that stdout contains only the results
 * @param program the prefix of each line
 */
export function createProgress(out: NodeJS.WriteStream, program = 'bench'): Progress {
  const startedMs = performance.now();
  let lastMs = Number.NEGATIVE_INFINITY;
  const erase = (): void => {
    if (out.isTTY) out.write('\r\u001b[K');
  };
  return {
    update(activity) {
      const nowMs = performance.now();
      if (!out.isTTY && nowMs - lastMs < PLAIN_INTERVAL_MS) return;
      lastMs = nowMs;
      const line = `${program}: [${formatElapsed(nowMs - startedMs)}] ${activity}`;
      erase();
      out.write(out.isTTY ? line.slice(0, out.columns - 1) : `${line}\n`);
    },
    log(line) {
      erase();
      out.write(`${program}: ${line}\n`);
    },
    end: erase,
  };
}
