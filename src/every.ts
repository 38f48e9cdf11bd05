import type { Clock } from './clock.ts';

/**
 * Looks every `periodMs`, for the first time after one period. The next period begins when a look has come to its end, so
 * that none is overtaken by the next, however slow it is. A look must not fail: nobody is there to be told.
 *
 * @returns ends it, and leaves no timer; a look that is under way is the last
 */
export function every(clock: Clock, periodMs: number, look: () => void | Promise<void>): () => void {
  let ended = false;
  let cancel = clock.setTimer(periodMs, run);

  function run(): void {
    const looking = look();
    if (looking instanceof Promise) void looking.then(again);
    else again();
  }

  function again(): void {
    if (!ended) cancel = clock.setTimer(periodMs, run);
  }

  return () => {
    ended = true;
    cancel();
  };
}
