import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';
import type { Clock } from './clock.ts';
import { runPeriodically } from './run-periodically.ts';

const POLL_INTERVAL_MS = 2000;
/** So much more than when it last came to rest, bytes: what is given back is to be worth a pause. */
const MIN_GROWTH_BYTES = 24 * 1024 * 1024;
/** V8 looks so often whether to begin a collection that gives memory back; by itself every 8 s. */
const REDUCER_DELAY_MS = 2000;
/** 10 s: long enough for V8 to look, to mark 100,000 rows in between other work, and to give back what is free. */
const TRIM_POLLS = 5;

/** What is asked of V8. */
export interface HeapControl {
  /**
   * What the heap takes of the machine, in use or not, bytes. Without the young generation: that goes up and down with any
   * trickle of work, which must not pay for a rest again and again.
   */
  committedBytes(): number;
  /** True: V8 gives back what it can as soon as it can, at the price of more collections. */
  setMemorySaver(on: boolean): void;
}

/** The heap of this process. */
export const v8Heap: HeapControl = {
  committedBytes() {
    const old = getHeapSpaceStatistics().filter(({ space_name: name }) => !name.startsWith('new_'));
    return old.reduce((sum, { space_size: bytes }) => sum + bytes, 0);
  },
  setMemorySaver(on) {
    setFlagsFromString(`--gc-memory-reducer-start-delay-ms=${REDUCER_DELAY_MS}`);
    // Read anew at each decision of the collector. Only while at rest: under work it costs a quarter more CPU a row.
    setFlagsFromString(on ? '--memory-saver-mode' : '--no-memory-saver-mode');
  },
};

export interface HeapTrimmerOptions {
  readonly heap: HeapControl;
  /** True while nothing is to be written. */
  readonly isIdle: () => boolean;
  readonly clock: Clock;
}

/**
 * Lets V8 give back what a burst left it. By itself it does so only in a process that allocates next to nothing, which
 * one with hundreds of reporters' heartbeats never is: 100 MiB that 50,000 new rows took for a moment stayed for good.
 * So when the heap has grown by 24 MiB and nothing has been to do for two looks, V8 is told to favour memory, for 10 s
 * or until there is something to do. It marks in small steps meanwhile; the last one stops everything for some 70 ms
 * with 50,000 rows.
 *
 * @returns ends it; the heap is then as V8 has it by itself
 */
export function startHeapTrimmer({ heap, isIdle, clock }: HeapTrimmerOptions): () => void {
  let baselineBytes = heap.committedBytes();
  let wasIdle = false;
  let pollsLeft = 0;

  function poll(): void {
    const idle = isIdle();
    if (pollsLeft > 0) {
      pollsLeft = idle ? pollsLeft - 1 : 0;
      if (pollsLeft === 0) heap.setMemorySaver(false);
      // Where work came in between, there is still something to give back.
      if (idle) baselineBytes = heap.committedBytes();
    } else if (idle && wasIdle && heap.committedBytes() - baselineBytes >= MIN_GROWTH_BYTES) {
      heap.setMemorySaver(true);
      pollsLeft = TRIM_POLLS;
    }
    wasIdle = idle;
  }

  const stopPolling = runPeriodically(clock, POLL_INTERVAL_MS, poll);
  return () => {
    stopPolling();
    if (pollsLeft > 0) heap.setMemorySaver(false);
  };
}
