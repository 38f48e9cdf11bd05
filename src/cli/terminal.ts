import { isatty } from 'node:tty';
import type { BasicCredentials } from '../k8s/kubeconfig-resolver.ts';
import { askForCredentials } from './ask-for-credentials.ts';

/** Exit code after SIGINT, by shell convention. */
export const EXIT_INTERRUPTED = 130;

/** The output of a CLI command, and the request to end it. */
export interface Terminal {
  /** Writes the result. */
  out(text: string): void;
  /** Writes errors and progress. */
  err(text: string): void;
  /** True if `out` is a terminal whose screen can be cleared and redrawn. */
  readonly canRedraw: boolean;
  /** Returns the width of the terminal that `err` writes to; undefined if it is not a terminal. */
  errColumns(): number | undefined;
  /** Asks the user for a name and a password; undefined if standard input is not a terminal. */
  readonly askForCredentials?: (() => Promise<BasicCredentials>) | undefined;
  /** Aborted by the first SIGINT or SIGTERM; a second one ends the process. */
  readonly interrupted: AbortSignal;
}

/** Returns the terminal of this process and starts to handle SIGINT and SIGTERM. */
export function processTerminal(): Terminal {
  const interrupted = new AbortController();
  function interrupt(): void {
    // The default handler then ends the process at the next signal.
    for (const signal of SIGNALS) process.off(signal, interrupt);
    interrupted.abort();
  }
  for (const signal of SIGNALS) process.on(signal, interrupt);
  // A command that runs until it is interrupted must also end when its output is closed.
  process.stdout.once('error', () => interrupted.abort());
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    canRedraw: process.stdout.isTTY,
    errColumns: () => (process.stderr.isTTY ? process.stderr.columns : undefined),
    askForCredentials: isatty(0) ? askForCredentials : undefined,
    interrupted: interrupted.signal,
  };
}

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
