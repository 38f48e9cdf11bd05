import type { Clock } from './clock.ts';
import type { Log } from './log.ts';
import { createLogThrottle } from './log-throttle.ts';

export interface PeriodicTask {
  /** What the task does, for the log: 'check for expired reporters'. */
  readonly name: string;
  readonly intervalMs: number;
  /** Run each time. An error that it throws or rejects with is logged, and the next run follows as usual. */
  readonly run: () => void | Promise<void>;
}

/**
 * Runs a task every `intervalMs`, for the first time after one interval. The next interval starts when the task has
 * finished, so runs never overlap, however slow the task is.
 *
 * A task should handle the errors that it expects. An unexpected one is a bug in this task, which must not end the
 * process: it is logged once per minute.
 *
 * @returns a function that stops the loop and its timer; a run in progress is not interrupted
 */
export function runPeriodically(clock: Clock, log: Log, { name, intervalMs, run }: PeriodicTask): () => void {
  const throttled = createLogThrottle(clock);
  let isStopped = false;
  let cancel = clock.setTimer(intervalMs, runOnce);

  function runOnce(): void {
    try {
      const result = run();
      if (result instanceof Promise) void result.catch(logFailure).then(scheduleNext);
      else scheduleNext();
    } catch (error) {
      logFailure(error);
      scheduleNext();
    }
  }

  function logFailure(error: unknown): void {
    throttled(name, (suppressed) =>
      log.error({ task: name, err: error, ...suppressed }, 'unexpected error in a periodic task'),
    );
  }

  function scheduleNext(): void {
    if (!isStopped) cancel = clock.setTimer(intervalMs, runOnce);
  }

  return () => {
    isStopped = true;
    cancel();
  };
}
