import { setImmediate, setTimeout as delay } from 'node:timers/promises';

/** So long a turn of the event loop is waited for, as a socket in this process needs; then a moment at a time. */
const EAGER_POLL_MS = 100;
/** Reached only by what does not happen at all, also where other programs take most of the machine. */
const DEADLINE_MS = 20_000;

/** Waits for something real (a socket, a process) to make `holds` true; fails after `timeoutMs`, 20 s by default, with `what`. */
export async function eventually(
  what: string,
  predicate: () => boolean | Promise<boolean>,
  timeoutMs = DEADLINE_MS,
): Promise<void> {
  const startedMs = performance.now();
  while (!(await predicate())) {
    const passedMs = performance.now() - startedMs;
    if (passedMs > timeoutMs) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await (passedMs < EAGER_POLL_MS ? setImmediate() : delay(5));
  }
}
