import { setImmediate, setTimeout as delay } from 'node:timers/promises';

/**
 * For this long the condition is checked in every turn of the event loop, as suits a socket of this process; then
 * less often.
 */
const EAGER_POLL_MS = 100;
const MIN_INTERVAL_MS = 5;
const MAX_INTERVAL_MS = 50;
/** The interval grows with the time that has passed, as some conditions cost a request. */
const INTERVAL_GROWTH = 0.05;
/** Only reached when the condition never becomes true, even on a busy machine. */
const DEADLINE_MS = 60_000;

/**
 * Waits until `predicate` returns true because of something real (a socket, a process). Rejects after `timeoutMs` (a minute by default) with `what`.
 *
 * @param intervalMs between two calls, where a call is expensive; by default, it grows from 5 to 50
 */
export async function eventually(
  what: string,
  predicate: () => boolean | Promise<boolean>,
  timeoutMs = DEADLINE_MS,
  intervalMs?: number,
): Promise<void> {
  const startedMs = performance.now();
  for (;;) {
    const isTrue = await predicate();
    const passedMs = performance.now() - startedMs;
    if (isTrue) return;
    if (passedMs > timeoutMs) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    if (intervalMs === undefined && passedMs < EAGER_POLL_MS) await setImmediate();
    else await delay(intervalMs ?? Math.min(MIN_INTERVAL_MS + INTERVAL_GROWTH * passedMs, MAX_INTERVAL_MS));
  }
}
