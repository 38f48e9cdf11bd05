import { hasPendingImmediates, type FakeClock } from './fake-clock.ts';

/** Resolves when everything that is ready to run has run, including promise continuations. */
export async function flushEventLoop(): Promise<void> {
  do {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  } while (hasPendingImmediates());
}

/** Advances time from timer to timer; everything that can run has run between two timers. */
export async function advanceTime(
  clock: FakeClock,
  ms: number,
  settle: () => Promise<void> = flushEventLoop,
): Promise<void> {
  await settle();
  const untilMs = clock.monotonicMs() + ms;
  for (let [nextMs] = clock.pendingTimersMs; ; [nextMs] = clock.pendingTimersMs) {
    const leftMs = untilMs - clock.monotonicMs();
    clock.advance(Math.min(nextMs ?? leftMs, leftMs));
    await settle();
    if (nextMs === undefined || nextMs > leftMs) return;
  }
}
