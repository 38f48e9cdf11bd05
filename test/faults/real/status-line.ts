import { createProgress } from '../../../bench/progress.ts';

/** What a person sees of a run that takes minutes. */
export interface StatusLine {
  /** What is being done now: shown on stderr, with the time that has passed, until something else is. */
  readonly setStatus: (what: string) => void;
  /** A line of the result, on stdout. */
  readonly print: (line: string) => void;
  /** Removes the live line; no timer is left. */
  readonly end: () => void;
}

/** @param program what each line begins with */
export function openStatusLine(program: string): StatusLine {
  const progress = createProgress(process.stderr, program);
  let status = 'starting';
  // Some steps take minutes and say nothing.
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
