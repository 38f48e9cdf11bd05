import { readFile } from 'node:fs/promises';
import type { Clock } from './clock.ts';
import { runPeriodically } from './run-periodically.ts';

/** A kubelet takes a minute to bring a changed ConfigMap, so this adds little; and a read of a small file costs nothing. */
const POLL_INTERVAL_MS = 5000;

/**
 * Looks at a file every 5 s, and tells its text whenever that is another than before. By its text, and by looking:
 * a mounted ConfigMap changes by a swapped link, of which file notifications tell differently on each system.
 *
 * While the file cannot be read it counts as unchanged.
 *
 * @param text as it was read last
 * @returns ends it
 */
export function watchFile(
  path: string,
  text: string,
  clock: Clock,
  onChange: (text: string) => void,
): () => void {
  let lastText = text;
  let isStopped = false;
  const stopPolling = runPeriodically(clock, POLL_INTERVAL_MS, async () => {
    const currentText = await readFile(path, 'utf8').catch(() => lastText);
    if (isStopped || currentText === lastText) return;
    lastText = currentText;
    onChange(currentText);
  });
  return () => {
    isStopped = true;
    stopPolling();
  };
}
