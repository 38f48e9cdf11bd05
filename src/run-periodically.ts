import type { Clock } from './clock.ts';

/**
 * Runs a task every `intervalMs`, for the first time after one interval. The next interval starts when the task has
 * finished, so runs never overlap, however slow the task is. The task must not throw or reject: nothing handles its errors.
 *
 * @returns a function that stops the loop and its timer; a run in progress is not interrupted
 */
export function runPeriodically(
  clock: Clock,
  intervalMs: number,
  task: () => void | Promise<void>,
): () => void {
  let isStopped = false;
  let cancel = clock.setTimer(intervalMs, run);

  function run(): void {
    const result = task();
    if (result instanceof Promise) void result.then(scheduleNext);
    else scheduleNext();
  }

  function scheduleNext(): void {
    if (!isStopped) cancel = clock.setTimer(intervalMs, run);
  }

  return () => {
    isStopped = true;
    cancel();
  };
}
