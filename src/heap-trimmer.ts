import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';
import type { Clock } from './clock.ts';
import type { Log } from './log.ts';
import { runPeriodically } from './run-periodically.ts';

const POLL_INTERVAL_MS = 2000;
/** Minimum growth of the heap since the baseline, so that the memory returned is worth the pause. */
const MIN_GROWTH_BYTES = 24 * 1024 * 1024;
/**
 * A permanent trickle of changes leaves garbage in the old generation that V8 would let grow for hours: with this much
 * growth, the heap is trimmed this long after the last time. It is also the longest time between two collections in Go.
 */
const MIN_OLD_GROWTH_BYTES = 4 * 1024 * 1024;
const SLOW_TRIM_INTERVAL_MS = 120_000;
/** Interval at which V8 considers a collection that returns memory; V8's own default is 8 s. */
const REDUCER_DELAY_MS = 2000;
/**
 * Marking starts once this share of what may be allocated until the next collection has been allocated; V8's own default
 * is all of it. V8 considers returning memory only after a collection, which slow growth may not cause for hours.
 */
const MARKING_TRIGGER_PERCENT = 5;
/** 10 s: enough for V8 to start, to mark 100,000 objects between other work, and to return the free memory. */
const TRIM_POLLS = 5;
/** How often trimming is tried after one burst. V8 sometimes keeps most of the memory the first time. */
const MAX_ATTEMPTS = 3;

/**
 * More bytes of reports than this between two polls are work: those of some 2,000 tunnels. A fleet of 5,000 reporters
 * whose streams end once per hour needs less for its full pushes.
 */
const MAX_IDLE_REPORT_BYTES = 256 * 1024;

/** The controls of V8's heap that trimming uses. */
export interface HeapControl {
  /**
   * Returns the bytes that the heap has reserved from the machine, in use or not. The young generation grows and shrinks
   * with any small amount of work. With the flags in the first line of src/main.ts, it has 16 MiB at most and cannot
   * trigger trimming alone; with the defaults of Node, it can.
   */
  committedBytes(): number;
  /** Returns the bytes of objects in the heap, including those that are no longer referenced. */
  usedBytes(): number;
  /** Returns the part of `usedBytes` outside of the young generation, which only a complete collection can decrease. */
  oldBytes(): number;
  /** Makes V8 return memory as soon as possible, at the cost of more collections. */
  setMemorySaver(on: boolean): void;
}

/** The heap of this process. The collector reads the flags at each decision. */
export const v8Heap: HeapControl = {
  committedBytes: () => sumOverSpaces('space_size'),
  usedBytes: () => sumOverSpaces('space_used_size'),
  oldBytes: () => sumOverSpaces('space_used_size', (name) => !name.startsWith('new_')),
  setMemorySaver(on) {
    setFlagsFromString(`--gc-memory-reducer-start-delay-ms=${REDUCER_DELAY_MS}`);
    // Only set while idle: under load they cost 25 % more CPU per object.
    setFlagsFromString(on ? '--memory-saver-mode' : '--no-memory-saver-mode');
    setFlagsFromString(`--incremental-marking-soft-trigger=${on ? MARKING_TRIGGER_PERCENT : 0}`);
  },
};

function sumOverSpaces(
  field: 'space_size' | 'space_used_size',
  includes: (name: string) => boolean = () => true,
): number {
  return getHeapSpaceStatistics()
    .filter((space) => includes(space.space_name))
    .reduce((sum, space) => sum + space[field], 0);
}

export interface HeapTrimmerOptions {
  readonly heap: HeapControl;
  /** Returns true while no writes are pending. */
  readonly isIdle: () => boolean;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Makes V8 return the memory that a burst of work has left behind. V8 does this by itself only in a process that
 * allocates almost nothing, which a process with the heartbeats of hundreds of reporters never is: without trimming,
 * the 100 MiB that 50,000 new objects need temporarily are never returned.
 *
 * Once the heap has grown by 24 MiB, or by 4 MiB in its old generation and was not trimmed for 2 minutes, and two
 * consecutive polls found the operator idle, the memory saver of V8 is enabled for 10 s or until there is work. V8 marks
 * in small steps during that time; the last step pauses the process for about 70 ms with 50,000 objects. While 24 MiB or
 * more are neither used nor returned, this is repeated twice.
 */
export class HeapTrimmer {
  readonly #options: HeapTrimmerOptions;
  #baselineBytes = 0;
  #oldBaselineBytes = 0;
  /** Highest size of the old generation since the baseline. V8's own collections decrease it without returning memory. */
  #oldPeakBytes = 0;
  #trimmedMs = 0;
  #wasIdle = false;
  #pollsLeft = 0;
  #attempts = 0;
  /** Of reports since the last poll. */
  #reportBytes = 0;
  #stopPolling: (() => void) | undefined;

  constructor(options: HeapTrimmerOptions) {
    this.#options = options;
  }

  /** Starts to compare the heap with what it is now. */
  start(): void {
    const { clock, log } = this.#options;
    this.#setBaseline();
    this.#stopPolling = runPeriodically(clock, log, {
      name: 'return unused memory',
      intervalMs: POLL_INTERVAL_MS,
      run: () => this.#poll(),
    });
  }

  /** Stops trimming, and ends the memory saver. */
  stop(): void {
    this.#stopPolling?.();
    if (this.#pollsLeft > 0) this.#interrupt();
  }

  /**
   * Records that a report is about to be decoded. Many bytes end the trimming at once, because V8 would collect again and
   * again while they are decoded.
   */
  reportArrived(bytes: number): void {
    this.#reportBytes += bytes;
    if (this.#pollsLeft > 0 && this.#isReading()) this.#interrupt();
  }

  #poll(): void {
    const { heap } = this.#options;
    const idle = this.#options.isIdle() && !this.#isReading();
    this.#reportBytes = 0;
    this.#oldPeakBytes = Math.max(this.#oldPeakBytes, heap.oldBytes());
    if (this.#pollsLeft > 0 && !idle) {
      this.#interrupt();
    } else if (this.#pollsLeft > 0) {
      this.#pollsLeft -= 1;
      if (this.#pollsLeft === 0) {
        heap.setMemorySaver(false);
        this.#attempts += 1;
      }
      // If V8 kept the memory, it is still to be returned: the baseline stays.
      if (this.#attempts === MAX_ATTEMPTS || !this.#keepsFreeMemory()) {
        this.#setBaseline();
        if (this.#pollsLeft === 0) this.#attempts = 0;
      }
    } else if (idle && this.#wasIdle && this.#hasGrown()) {
      heap.setMemorySaver(true);
      this.#pollsLeft = TRIM_POLLS;
    }
    this.#wasIdle = idle;
  }

  /** Ends the memory saver because of work. The baseline stays: the memory is still to be returned. */
  #interrupt(): void {
    this.#options.heap.setMemorySaver(false);
    this.#pollsLeft = 0;
    this.#attempts = 0;
    this.#wasIdle = false;
  }

  #setBaseline(): void {
    const { heap, clock } = this.#options;
    this.#baselineBytes = heap.committedBytes();
    this.#oldBaselineBytes = heap.oldBytes();
    this.#oldPeakBytes = this.#oldBaselineBytes;
    this.#trimmedMs = clock.monotonicMs();
  }

  #isReading(): boolean {
    return this.#reportBytes >= MAX_IDLE_REPORT_BYTES;
  }

  #keepsFreeMemory(): boolean {
    const { heap } = this.#options;
    return heap.committedBytes() - heap.usedBytes() >= MIN_GROWTH_BYTES;
  }

  #hasGrown(): boolean {
    const { heap, clock } = this.#options;
    if (heap.committedBytes() - this.#baselineBytes >= MIN_GROWTH_BYTES) return true;
    const isSlow = clock.monotonicMs() - this.#trimmedMs >= SLOW_TRIM_INTERVAL_MS;
    return isSlow && this.#oldPeakBytes - this.#oldBaselineBytes >= MIN_OLD_GROWTH_BYTES;
  }
}
