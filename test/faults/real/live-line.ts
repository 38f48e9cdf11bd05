import { createProgress } from '../../../bench/progress.ts';

/** What a person sees of a run that takes minutes. */
export interface LiveLine {
  /** What is being done now: shown on stderr, with the time that has passed, until something else is. */
  readonly doing: (what: string) => void;
  /** A line of the result, on stdout. */
  readonly say: (line: string) => void;
  /** Removes the live line; no timer is left. */
  readonly end: () => void;
}

/** @param program what each line begins with */
export function openLiveLine(program: string): LiveLine {
  const progress = createProgress(process.stderr, program);
  let now = 'starting';
  // Some steps take minutes and say nothing.
  const timer = setInterval(() => progress.update(now), 1000);
  return {
    doing(what) {
      now = what;
      progress.update(what);
    },
    say(line) {
      progress.end();
      process.stdout.write(`${line}\n`);
    },
    end() {
      clearInterval(timer);
      progress.end();
    },
  };
}
