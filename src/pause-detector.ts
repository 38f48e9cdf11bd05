import type { Clock } from './clock.ts';
import type { Log } from './log.ts';
import { runPeriodically } from './run-periodically.ts';

const CHECK_INTERVAL_MS = 5000;
/** As long as a replica may go without renewing its Lease. A busy event loop is late by much less. */
const MIN_PAUSE_MS = 10_000;

/**
 * Calls `onPaused` after this process did not run for 10 s or more, because it was stopped (SIGSTOP, a debugger, a frozen
 * cgroup) and continued. The kernel received for it meanwhile, so its input may be older than it appears to be.
 *
 * Not called after a suspension of the whole machine: the monotonic clock stood still, and nothing was received.
 *
 * @param onPaused receives how long the process did not run, in ms: at least 10,000
 * @returns a function that ends the detection and its timer
 */
export function detectPauses(clock: Clock, log: Log, onPaused: (pausedMs: number) => void): () => void {
  let checkedMs = clock.monotonicMs();
  return runPeriodically(clock, log, {
    name: 'detect pauses of the process',
    intervalMs: CHECK_INTERVAL_MS,
    run: () => {
      const nowMs = clock.monotonicMs();
      const pausedMs = nowMs - checkedMs - CHECK_INTERVAL_MS;
      checkedMs = nowMs;
      if (pausedMs >= MIN_PAUSE_MS) onPaused(pausedMs);
    },
  });
}
