import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';
import type { Clock } from './clock.ts';
import { every } from './every.ts';

const LOOK_EVERY_MS = 2000;
/** So much more than when it last came to rest, bytes: what is given back is to be worth a pause. */
const GROWN_BYTES = 24 * 1024 * 1024;
/** V8 looks so often whether to begin a collection that gives memory back; by itself every 8 s. */
const V8_LOOKS_EVERY_MS = 2000;
/** 10 s: long enough for V8 to look, to mark 100,000 rows in between other work, and to give back what is free. */
const REST_LOOKS = 5;

/** What is asked of V8. */
export interface Heap {
  /**
   * What the heap takes of the machine, in use or not, bytes. Without the young generation: that goes up and down with any
   * trickle of work, which must not pay for a rest again and again.
   */
  committedBytes(): number;
  /** True: V8 gives back what it can as soon as it can, at the price of more collections. */
  favourMemory(on: boolean): void;
}

/** The heap of this process. */
export const v8Heap: Heap = {
  committedBytes() {
    const old = getHeapSpaceStatistics().filter(({ space_name: name }) => !name.startsWith('new_'));
    return old.reduce((sum, { space_size: bytes }) => sum + bytes, 0);
  },
  favourMemory(on) {
    setFlagsFromString(`--gc-memory-reducer-start-delay-ms=${V8_LOOKS_EVERY_MS}`);
    // Read anew at each decision of the collector. Only while at rest: under work it costs a quarter more CPU a row.
    setFlagsFromString(on ? '--memory-saver-mode' : '--no-memory-saver-mode');
  },
};

export interface HeapRestParts {
  readonly heap: Heap;
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
export function followHeap({ heap, isIdle, clock }: HeapRestParts): () => void {
  let restedBytes = heap.committedBytes();
  let wasIdle = false;
  let looksLeft = 0;

  function look(): void {
    const idle = isIdle();
    if (looksLeft > 0) {
      looksLeft = idle ? looksLeft - 1 : 0;
      if (looksLeft === 0) heap.favourMemory(false);
      // Where work came in between, there is still something to give back.
      if (idle) restedBytes = heap.committedBytes();
    } else if (idle && wasIdle && heap.committedBytes() - restedBytes >= GROWN_BYTES) {
      heap.favourMemory(true);
      looksLeft = REST_LOOKS;
    }
    wasIdle = idle;
  }

  const end = every(clock, LOOK_EVERY_MS, look);
  return () => {
    end();
    if (looksLeft > 0) heap.favourMemory(false);
  };
}
