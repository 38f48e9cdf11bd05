import type { Clock } from '../clock.ts';

/** How long to wait at most, and what else ends the waiting. */
export interface Patience {
  /** On the monotonic clock. */
  readonly deadlineMs: number;
  readonly clock: Clock;
  /** Aborting any of them ends it. */
  readonly signals: readonly (AbortSignal | undefined)[];
  /** Made into the rejection when the deadline comes first. */
  readonly tooLate: () => Error;
  /** Made into the rejection when a signal comes first. */
  readonly cancelled: () => Error;
}

/**
 * What `work` settles to, unless the deadline or a signal comes first: `work` then goes on unheeded. Nothing is left with
 * the clock or the signals afterwards.
 */
export function waitWithin<T>(work: Promise<T>, patience: Patience): Promise<T> {
  const { clock, deadlineMs, signals, tooLate, cancelled } = patience;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      release();
      reject(cancelled());
    };
    const cancelTimer = clock.setTimer(Math.max(deadlineMs - clock.monotonicMs(), 0), () => {
      release();
      reject(tooLate());
    });
    function release(): void {
      cancelTimer();
      for (const signal of signals) signal?.removeEventListener('abort', onAbort);
    }
    for (const signal of signals) signal?.addEventListener('abort', onAbort);
    if (signals.some((signal) => signal?.aborted === true)) onAbort();
    work.then(resolve, reject).finally(release);
  });
}
