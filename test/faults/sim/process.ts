import type { Clock } from '../../../src/clock.ts';
import type { SimTime } from './time.ts';

/** The wall clock of every process at the start of a run. */
const START_WALL_MS = Date.UTC(2026, 10, 23, 5);
/** The uptime of every machine at the start of a run. */
const UPTIME_MS = 1_000_000;

/** Shorter timers are extended to this. */
const MIN_TIMER_MS = 1;

/**
 * A process on a machine of its own, with its clock, its timers and its input. It can be stopped (SIGSTOP: time
 * continues without it), suspended with its machine (its monotonic clock stands still), and killed.
 */
export class SimProcess implements Clock {
  /** Unique within a run. */
  readonly name: string;
  readonly #time: SimTime;
  #state: 'running' | 'stopped' | 'dead' = 'running';
  /** Timers that fired and input that arrived while the process was stopped. */
  #timers: (() => void)[] = [];
  #input: (() => void)[] = [];
  #stoppedAtMs = 0;
  /** Total time for which the machine was suspended. */
  #suspendedMs = 0;
  /** Error of the wall clock. */
  wallOffsetMs = 0;
  /** When the process was last continued after a stop. */
  resumedAtMs = Number.NEGATIVE_INFINITY;

  constructor(name: string, time: SimTime) {
    this.name = name;
    this.#time = time;
  }

  get isDead(): boolean {
    return this.#state === 'dead';
  }

  get isRunning(): boolean {
    return this.#state === 'running';
  }

  monotonicMs(): number {
    return UPTIME_MS + this.#time.nowMs - this.#suspendedMs;
  }

  wallMs(): number {
    return Math.round(START_WALL_MS + this.#time.nowMs + this.wallOffsetMs);
  }

  setTimer(delayMs: number, callback: () => void): () => void {
    // As in Node. Without it, a timer whose due time is missed by a rounding error would be set again forever.
    const dueMs = this.monotonicMs() + Math.max(MIN_TIMER_MS, delayMs);
    let done = false;
    const fire = (): void => {
      if (done || this.#state === 'dead') return;
      if (this.#state === 'stopped') {
        this.#timers.push(fire);
        return;
      }
      // Not due yet by the process's own clock, because its machine was suspended meanwhile.
      const leftMs = dueMs - this.monotonicMs();
      if (leftMs > 1e-6) {
        this.#time.after(leftMs, fire);
        return;
      }
      done = true;
      callback();
    };
    this.#time.after(delayMs, fire);
    return () => {
      done = true;
    };
  }

  setImmediate(callback: () => void): void {
    const run = (): void => {
      if (this.#state === 'running') callback();
      else if (this.#state === 'stopped') this.#timers.push(run);
    };
    this.#time.after(0, run);
  }

  /** Delivers input: immediately, when the process is continued, or never. */
  receive(callback: () => void): void {
    if (this.#state === 'running') callback();
    else if (this.#state === 'stopped') this.#input.push(callback);
  }

  stop(): void {
    if (this.#state !== 'running') return;
    this.#state = 'stopped';
    this.#stoppedAtMs = this.#time.nowMs;
  }

  /**
   * @param suspended the machine was suspended, so the monotonic clock stood still
   * @param inputFirst the process was stopped while it waited for input, so input precedes timers
   */
  resume({ suspended, inputFirst }: { suspended: boolean; inputFirst: boolean }): void {
    if (this.#state !== 'stopped') return;
    this.#state = 'running';
    this.resumedAtMs = this.#time.nowMs;
    if (suspended) this.#suspendedMs += this.#time.nowMs - this.#stoppedAtMs;
    const timers = this.#timers.splice(0);
    const arrivals = this.#input.splice(0);
    for (const callback of inputFirst ? [...arrivals, ...timers] : [...timers, ...arrivals]) {
      this.#time.after(0, () => this.receive(callback));
    }
  }

  /** Ends the process; callbacks no longer run. */
  kill(): void {
    this.#state = 'dead';
    this.#timers = [];
    this.#input = [];
  }
}
