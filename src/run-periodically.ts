import type { Clock } from './clock.ts';

/**
 * Looks every `periodMs`, for the first time after one period. The next period begins when a look has come to its end, so
 * that none is overtaken by the next, however slow it is. A look must not fail: nobody is there to be told.
 *
 * @returns ends it, and leaves no timer; a look that is under way is the last
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
