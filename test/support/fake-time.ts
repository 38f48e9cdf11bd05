import type { FakeClock } from './fake-clock.ts';

/** Everything that is ready to run by now has run: promises, and what they lead to. */
export function flushEventLoop(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** Lets time pass from timer to timer, with all that can run having run between two of them. */
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
