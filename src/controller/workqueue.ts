import type { Clock } from '../clock.ts';
import { DueHeap } from './due-heap.ts';

/** One thing to reconcile: a tunnel name of a reporter. */
export interface QueueItem {
  readonly key: string;
  readonly tunnelName: string;
  /** When the oldest of the changes that it stands for came, monotonic ms. */
  readonly sinceMs: number;
}

/** The keys of one reporter. */
interface Lane {
  readonly key: string;
  /** Names waiting for a worker, in the order in which they came, with the time of their oldest change. */
  readonly waiting: Map<string, number>;
  /** One iterator for as long as names wait: a new one each time would step over all that were taken before. */
  order: MapIterator<[string, number]> | undefined;
  /** Names with a worker; the value is the time of the oldest change that came meanwhile. */
  readonly running: Map<string, number | undefined>;
  /** Names that wait for a time. */
  readonly delayed: Map<string, Delay>;
  /** Names by the number of tries that failed in a row. */
  readonly failures: Map<string, number>;
  listed: boolean;
}

/** Stands for nothing once its lane holds another delay for the name, or none. */
interface Delay {
  readonly lane: Lane;
  readonly tunnelName: string;
  readonly atMs: number;
  readonly sinceMs: number;
}

/** Delays that stand for nothing are dropped when they are this many more than the others. */
const MOST_OVERTAKEN = 1024;

/**
 * Keys, never events: a key stands in the queue once however often it is added, has one worker at a time, and is
 * looked at again if it changes while it has one. Reporters take turns, so that one reporter's flood delays another's
 * change by at most one key a reporter.
 *
 * What is remembered is bounded by the number of keys: it does not grow with the number of changes.
 */
export class Workqueue {
  readonly #clock: Clock;
  readonly #lanes = new Map<string, Lane>();
  /** Lanes with names waiting, whose turn it is first at the front. */
  #turns: Lane[] = [];
  #nextTurn = 0;
  readonly #due = new DueHeap<Delay>();
  #delayedCount = 0;
  #cancelTimer: (() => void) | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #depth = 0;
  #runningCount = 0;
  #closed = false;
  /** Called when a key becomes ready without `add` having been called: a delay is over. */
  onReady: () => void = () => {};
  /** Called when nothing of a reporter waits, runs or is delayed any more. */
  onEmptied: (key: string) => void = () => {};

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Keys that wait for a worker now; those that wait for a time do not count. */
  get depth(): number {
    return this.#depth;
  }

  /** Keys that wait for a time. */
  get delayedCount(): number {
    return this.#delayedCount;
  }

  /** True while nothing waits for a worker and none works. */
  get idle(): boolean {
    return this.#depth === 0 && this.#runningCount === 0;
  }

  /** Names of a reporter that wait for a worker or for a time, or have a worker. */
  pending(key: string): number {
    const lane = this.#lanes.get(key);
    return lane === undefined ? 0 : lane.waiting.size + lane.running.size + lane.delayed.size;
  }

  /** True while a key has a worker: what is seen of its row may be the worker's own doing. */
  isRunning(key: string, tunnelName: string): boolean {
    return this.#lanes.get(key)?.running.has(tunnelName) ?? false;
  }

  /** True when a key waits for a worker or has one, so that it is looked at again in any case. */
  holds(key: string, tunnelName: string): boolean {
    const lane = this.#lanes.get(key);
    return lane !== undefined && (lane.waiting.has(tunnelName) || lane.running.has(tunnelName));
  }

  /** The key has changed: it is to be looked at as soon as its turn comes, also when it was to wait for a time. */
  add(key: string, tunnelName: string, sinceMs: number): void {
    const lane = this.#lane(key);
    const delayed = lane.delayed.get(tunnelName);
    if (delayed !== undefined) this.#endDelay(lane, tunnelName);
    this.#ready(lane, tunnelName, Math.min(sinceMs, delayed?.sinceMs ?? sinceMs));
  }

  /**
   * The key is to be looked at again after `delayMs`; an `add` before that makes it due at once. A time that was set
   * earlier and comes sooner stands.
   */
  addAfter(item: QueueItem, delayMs: number): void {
    const lane = this.#lane(item.key);
    const atMs = this.#clock.monotonicMs() + delayMs;
    const set = lane.delayed.get(item.tunnelName);
    if (lane.waiting.has(item.tunnelName) || (set !== undefined && set.atMs <= atMs)) return;
    const sinceMs = Math.min(item.sinceMs, set?.sinceMs ?? item.sinceMs);
    const delay = { lane, tunnelName: item.tunnelName, atMs, sinceMs };
    if (set === undefined) this.#delayedCount += 1;
    lane.delayed.set(item.tunnelName, delay);
    this.#due.push(atMs, delay);
    // Changes that keep overtaking a long delay would else pile up until it is over.
    if (this.#due.size > 2 * this.#delayedCount + MOST_OVERTAKEN) this.#due.keep(stands);
    this.#setTimer();
  }

  /** One more failed try of a key: how many in a row there are now. */
  failed(item: QueueItem): number {
    const lane = this.#lane(item.key);
    const failures = (lane.failures.get(item.tunnelName) ?? 0) + 1;
    lane.failures.set(item.tunnelName, failures);
    return failures;
  }

  /** A key has been brought to what it is to be: its failures are forgotten. */
  succeeded(item: QueueItem): void {
    this.#lanes.get(item.key)?.failures.delete(item.tunnelName);
  }

  /** The next key whose turn it is, now running; undefined when none waits. `done` must be called with it. */
  take(): QueueItem | undefined {
    while (this.#nextTurn < this.#turns.length) {
      const lane = this.#turns[this.#nextTurn];
      this.#nextTurn += 1;
      if (this.#nextTurn > 1024 && this.#nextTurn * 2 > this.#turns.length) {
        this.#turns = this.#turns.slice(this.#nextTurn);
        this.#nextTurn = 0;
      }
      if (lane === undefined) continue;
      lane.listed = false;
      const item = this.#takeFrom(lane);
      this.#list(lane);
      if (item !== undefined) return item;
    }
    return undefined;
  }

  /** The worker of `item` is done with it; a change that came meanwhile puts it into the queue again. */
  done(item: QueueItem): void {
    const lane = this.#lane(item.key);
    const changedSinceMs = lane.running.get(item.tunnelName);
    lane.running.delete(item.tunnelName);
    this.#runningCount -= 1;
    if (changedSinceMs !== undefined) this.#ready(lane, item.tunnelName, changedSinceMs);
    this.#forgetIfEmpty(lane);
    if (lane.waiting.size + lane.running.size + lane.delayed.size === 0) this.onEmptied(lane.key);
  }

  /** Delays never end from now on, so that no timer is left. Keys can still be added and taken. */
  close(): void {
    this.#closed = true;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#timerAtMs = Number.POSITIVE_INFINITY;
  }

  #takeFrom(lane: Lane): QueueItem | undefined {
    for (;;) {
      lane.order ??= lane.waiting.entries();
      const { value } = lane.order.next();
      if (value === undefined) {
        lane.order = undefined;
        if (lane.waiting.size === 0) return undefined;
        continue;
      }
      const [tunnelName, sinceMs] = value;
      lane.waiting.delete(tunnelName);
      lane.running.set(tunnelName, undefined);
      this.#depth -= 1;
      this.#runningCount += 1;
      return { key: lane.key, tunnelName, sinceMs };
    }
  }

  #ready(lane: Lane, tunnelName: string, sinceMs: number): void {
    if (lane.running.has(tunnelName)) {
      lane.running.set(tunnelName, Math.min(sinceMs, lane.running.get(tunnelName) ?? sinceMs));
      return;
    }
    const waitingSinceMs = lane.waiting.get(tunnelName);
    lane.waiting.set(tunnelName, Math.min(sinceMs, waitingSinceMs ?? sinceMs));
    if (waitingSinceMs !== undefined) return;
    this.#depth += 1;
    this.#list(lane);
  }

  #list(lane: Lane): void {
    if (lane.listed || lane.waiting.size === 0) return;
    lane.listed = true;
    this.#turns.push(lane);
  }

  #lane(key: string): Lane {
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      lane = {
        key,
        waiting: new Map(),
        order: undefined,
        running: new Map(),
        delayed: new Map(),
        failures: new Map(),
        listed: false,
      };
      this.#lanes.set(key, lane);
    }
    return lane;
  }

  #forgetIfEmpty(lane: Lane): void {
    const kept =
      lane.waiting.size + lane.running.size + lane.delayed.size + lane.failures.size > 0 || lane.listed;
    if (!kept) this.#lanes.delete(lane.key);
  }

  #endDelay(lane: Lane, tunnelName: string): void {
    lane.delayed.delete(tunnelName);
    this.#delayedCount -= 1;
  }

  #setTimer(): void {
    if (this.#closed) return;
    const earliestMs = this.#due.earliestMs ?? Number.POSITIVE_INFINITY;
    if (earliestMs >= this.#timerAtMs) return;
    this.#cancelTimer?.();
    this.#timerAtMs = earliestMs;
    this.#cancelTimer = this.#clock.setTimer(Math.max(0, earliestMs - this.#clock.monotonicMs()), () => {
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      this.#cancelTimer = undefined;
      this.#releaseDue();
    });
  }

  #releaseDue(): void {
    const nowMs = this.#clock.monotonicMs();
    for (let due = this.#due.popDue(nowMs); due !== undefined; due = this.#due.popDue(nowMs)) {
      // Not if an `add` overtook it, or a sooner time was set.
      if (!stands(due)) continue;
      this.#endDelay(due.lane, due.tunnelName);
      this.#ready(due.lane, due.tunnelName, due.sinceMs);
    }
    this.#setTimer();
    this.onReady();
  }
}

function stands(delay: Delay): boolean {
  return delay.lane.delayed.get(delay.tunnelName) === delay;
}
