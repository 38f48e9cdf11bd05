/** Exit code of a tool that was ended by Ctrl-C, as shells have it. */
export const INTERRUPTED = 130;

/** Where a hand tool speaks, and how it is told to end. */
export interface Terminal {
  /** The result. */
  out(text: string): void;
  /** Problems, and what is being waited for. */
  err(text: string): void;
  /** True when `out` is a terminal that a screen can be drawn on anew. */
  readonly canRedraw: boolean;
  /** Aborted by SIGINT or SIGTERM; a second one ends the process. */
  readonly interrupted: AbortSignal;
}

/** The process's own. */
export function processTerminal(): Terminal {
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    canRedraw: process.stdout.isTTY,
    interrupted: interrupted.signal,
  };
}
