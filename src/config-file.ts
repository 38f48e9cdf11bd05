import { readFile } from 'node:fs/promises';
import type { Clock } from './clock.ts';
import { every } from './every.ts';

/** A kubelet takes a minute to bring a changed ConfigMap, so this adds little; and a read of a small file costs nothing. */
const LOOK_EVERY_MS = 5000;

/**
 * Looks at a file every 5 s, and tells its text whenever that is another than before. By its text, and by looking:
 * a mounted ConfigMap changes by a swapped link, of which file notifications tell differently on each system.
 *
 * While the file cannot be read it counts as unchanged.
 *
 * @param text as it was read last
 * @returns ends it
 */
export function followFile(
  path: string,
  text: string,
  clock: Clock,
  changed: (text: string) => void,
): () => void {
  let known = text;
  let ended = false;
  const end = every(clock, LOOK_EVERY_MS, async () => {
    const now = await readFile(path, 'utf8').catch(() => known);
    if (ended || now === known) return;
    known = now;
    changed(now);
  });
  return () => {
    ended = true;
    end();
  };
}
