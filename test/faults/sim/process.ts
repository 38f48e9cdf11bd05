import type { Clock } from '../../../src/clock.ts';
import type { SimTime } from './time.ts';

/** The wall clock of every process when the world begins. */
const START_WALL_MS = Date.UTC(2026, 10, 23, 5);
/** Machines have been up for a while when a process begins. */
const UPTIME_MS = 1_000_000;

/** A timer of less is one of this. */
const MIN_TIMER_MS = 1;

/**
 * A process on a machine of its own: its clock, its timers, and what reaches it. It can be stopped (SIGSTOP: time goes on
 * without it), suspended with its machine (its monotonic clock stands still), and killed.
 */
export class SimProcess implements Clock {
  /** Unlike that of any other process of the world. */
  readonly name: string;
  readonly #time: SimTime;
  #state: 'running' | 'stopped' | 'dead' = 'running';
  /** What came due or arrived while it was stopped. */
  #timers: (() => void)[] = [];
  #arrivals: (() => void)[] = [];
  #stoppedAtMs = 0;
  /** For how long its machine was suspended. */
  #suspendedMs = 0;
  /** By how much its wall clock is wrong. */
  wallOffsetMs = 0;
  /** When it last went on after a stop. */
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
    // As Node has it. Without it, who waits for a moment that the sum of two doubles just misses asks again for ever.
    const dueMs = this.monotonicMs() + Math.max(MIN_TIMER_MS, delayMs);
    let done = false;
    const fire = (): void => {
      if (done || this.#state === 'dead') return;
      if (this.#state === 'stopped') {
        this.#timers.push(fire);
        return;
      }
      // Its machine was suspended meanwhile: not yet by its own clock.
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

  /** Something has come from outside: it is taken now, when the process goes on, or never. */
  receive(callback: () => void): void {
    if (this.#state === 'running') callback();
    else if (this.#state === 'stopped') this.#arrivals.push(callback);
  }

  stop(): void {
    if (this.#state !== 'running') return;
    this.#state = 'stopped';
    this.#stoppedAtMs = this.#time.nowMs;
  }

  /**
   * @param suspended its machine was, so its monotonic clock stood still
   * @param arrivalsFirst it was stopped while it waited for input, so that input comes before timers
   */
  resume({ suspended, arrivalsFirst }: { suspended: boolean; arrivalsFirst: boolean }): void {
    if (this.#state !== 'stopped') return;
    this.#state = 'running';
    this.resumedAtMs = this.#time.nowMs;
    if (suspended) this.#suspendedMs += this.#time.nowMs - this.#stoppedAtMs;
    const timers = this.#timers.splice(0);
    const arrivals = this.#arrivals.splice(0);
    for (const callback of arrivalsFirst ? [...arrivals, ...timers] : [...timers, ...arrivals]) {
      this.#time.after(0, () => this.receive(callback));
    }
  }

  /** Not one step more. */
  kill(): void {
    this.#state = 'dead';
    this.#timers = [];
    this.#arrivals = [];
  }
}
