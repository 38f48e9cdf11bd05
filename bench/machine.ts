import { execFileSync } from 'node:child_process';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';

/** The conditions of a measurement: the machine, its load, and the commit. Also the clock that all processes share. */

const ROOT = new URL('..', import.meta.url).pathname;

export interface Machine {
  readonly cores: number;
  readonly processor: string;
  readonly memoryGiB: number;
  readonly node: string;
}

/** Returns a description of this machine. */
export function machine(): Machine {
  return {
    cores: availableParallelism(),
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
  };
}

/** Returns the load average of the last minute. */
export function load(): number {
  return Number((loadavg()[0] ?? Number.NaN).toFixed(2));
}

/** Returns the short hash of the commit, with `+` if src/ differs from it; `unknown` outside of a repository. */
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
 * Returns the milliseconds, with fractions, of CLOCK_MONOTONIC, which is the same for all processes of the machine, so
 * times of different processes can be subtracted.
 */
export function machineMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
