import type { Clock } from '../clock.ts';

/** How long to wait at most, and what else ends the waiting. */
export interface DeadlineOptions {
  /** On the monotonic clock. */
  readonly deadlineMs: number;
  readonly clock: Clock;
  /** Aborting any of them ends it. */
  readonly signals: readonly (AbortSignal | undefined)[];
  /** Made into the rejection when the deadline comes first. */
  readonly onTimeout: () => Error;
  /** Made into the rejection when a signal comes first. */
  readonly onCancel: () => Error;
}

/**
 * What `work` settles to, unless the deadline or a signal comes first: `work` then goes on unheeded. Nothing is left with
 * the clock or the signals afterwards.
 */
export function withDeadline<T>(work: Promise<T>, options: DeadlineOptions): Promise<T> {
  const { clock, deadlineMs, signals, onTimeout, onCancel } = options;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      cleanUp();
      reject(onCancel());
    };
    const cancelTimer = clock.setTimer(Math.max(deadlineMs - clock.monotonicMs(), 0), () => {
      cleanUp();
      reject(onTimeout());
    });
    function cleanUp(): void {
      cancelTimer();
      for (const signal of signals) signal?.removeEventListener('abort', onAbort);
    }
    for (const signal of signals) signal?.addEventListener('abort', onAbort);
    if (signals.some((signal) => signal?.aborted === true)) onAbort();
    work.then(resolve, reject).finally(cleanUp);
  });
}
