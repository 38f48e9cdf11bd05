import { setImmediate, setTimeout as delay } from 'node:timers/promises';

/** So long a turn of the event loop is waited for, as a socket in this process needs; then a moment at a time. */
const EAGER_MS = 100;

/** Waits for something real (a socket, a process) to make `holds` true; fails after `timeoutMs` with `what`. */
export async function eventually(
  what: string,
  holds: () => boolean | Promise<boolean>,
  timeoutMs = 5_000,
): Promise<void> {
  const startedMs = performance.now();
  while (!(await holds())) {
    const passedMs = performance.now() - startedMs;
    if (passedMs > timeoutMs) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await (passedMs < EAGER_MS ? setImmediate() : delay(5));
  }
}
