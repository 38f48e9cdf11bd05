import { createProgress } from '../../../bench/progress.ts';

export interface StatusLine {
  /** Shows the current activity on stderr with the elapsed time, until the next call. */
  readonly setStatus: (what: string) => void;
  /** Prints a result line to stdout. */
  readonly print: (line: string) => void;
  readonly end: () => void;
}

export function openStatusLine(program: string): StatusLine {
  const progress = createProgress(process.stderr, program);
  let status = 'starting';
  // Some steps take minutes without output.
  const timer = setInterval(() => progress.update(status), 1000);
  return {
    setStatus(what) {
      status = what;
      progress.update(what);
    },
    print(line) {
      progress.end();
      process.stdout.write(`${line}\n`);
    },
    end() {
      clearInterval(timer);
      progress.end();
    },
  };
}
