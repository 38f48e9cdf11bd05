/** One line about what is being done: rewritten on a terminal, elsewhere a new one now and then. */
import { formatElapsed } from '../control-plane/progress.ts';

/** Where no terminal is: often enough to be seen alive. */
const PLAIN_INTERVAL_MS = 10_000;

export interface Progress {
  /** What is being done now. */
  update(doing: string): void;
  /** A line that stays. */
  log(line: string): void;
  /** Removes the rewritten line. */
  end(): void;
}

/**
 * @param out usually stderr, so that the table alone is on stdout
 * @param program what each line begins with
 */
export function createProgress(out: NodeJS.WriteStream, program = 'bench'): Progress {
  const startedMs = performance.now();
  let lastMs = Number.NEGATIVE_INFINITY;
  const erase = (): void => {
    if (out.isTTY) out.write('\r\u001b[K');
  };
  return {
    update(doing) {
      const nowMs = performance.now();
      if (!out.isTTY && nowMs - lastMs < PLAIN_INTERVAL_MS) return;
      lastMs = nowMs;
      const line = `${program}: [${formatElapsed(nowMs - startedMs)}] ${doing}`;
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
