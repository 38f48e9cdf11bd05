import { execFileSync } from 'node:child_process';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';

/** What a figure depends on beside the code: the machine, what else it does, and which state of the code it was. */

const ROOT = new URL('..', import.meta.url).pathname;

export interface Machine {
  readonly cores: number;
  readonly processor: string;
  readonly memoryGiB: number;
  readonly node: string;
}

export function machine(): Machine {
  return {
    cores: availableParallelism(),
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
  };
}

/** Processes that ran or wanted to, averaged over the last minute. */
export function load(): number {
  return Number((loadavg()[0] ?? Number.NaN).toFixed(2));
}

/** The commit that is checked out, short; with `+` when files differ from it; `unknown` outside of a repository. */
export function commit(): string {
  try {
    const git = (...args: string[]): string =>
      execFileSync('git', args, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    return (
      git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--', 'src') === '' ? '' : '+')
    );
  } catch {
    return 'unknown';
  }
}

/**
 * Milliseconds, with fractions, of the machine's own monotonic clock (CLOCK_MONOTONIC): one time for all processes, so
 * that what one process sends and another one sees can be subtracted.
 */
export function machineMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
