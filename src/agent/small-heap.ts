import { setFlagsFromString } from 'node:v8';

/**
 * Sets V8 for a process that does little, next to each Envoy: memory matters more than speed. To be called before the
 * agent is loaded.
 *
 * Without its optimizing compilers, V8 needs 8 MiB less. In memory saver mode it collects garbage early, which saves
 * 10 MiB with 1,000 tunnels and 40 MiB with 10,000. A poll that finds a change takes twice as long as a result, one
 * that finds none hardly longer: it compares the response with the previous one.
 */
export function preferSmallHeap(): void {
  for (const flag of [
    '--no-opt',
    '--no-maglev',
    '--memory-saver-mode',
    '--gc-memory-reducer-start-delay-ms=2000',
  ])
    setFlagsFromString(flag);
}
