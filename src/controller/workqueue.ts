import type { Clock } from '../clock.ts';
import { DelayHeap } from './delay-heap.ts';

/** One thing to reconcile: a tunnel name of a reporter. */
export interface QueueItem {
  readonly key: string;
  readonly tunnelName: string;
  /** When the oldest of the changes that it stands for came, monotonic ms. */
  readonly sinceMs: number;
}

/** The keys of one reporter. */
interface ReporterQueue {
  readonly key: string;
  /** Names waiting for a worker, in the order in which they came, with the time of their oldest change. */
  readonly waiting: Map<string, number>;
  /** One iterator for as long as names wait: a new one each time would step over all that were taken before. */
  iterator: MapIterator<[string, number]> | undefined;
  /** Names with a worker; the value is the time of the oldest change that came meanwhile. */
  readonly running: Map<string, number | undefined>;
  /** Names that wait for a time. */
  readonly delayed: Map<string, Delay>;
  /** Names by the number of tries that failed in a row. */
  readonly failures: Map<string, number>;
  isScheduled: boolean;
}

/** Stands for nothing once its lane holds another delay for the name, or none. */
interface Delay {
  readonly queue: ReporterQueue;
  readonly tunnelName: string;
  readonly atMs: number;
  readonly sinceMs: number;
}

/** Delays that stand for nothing are dropped when they are this many more than the others. */
const MAX_STALE_DELAYS = 1024;

/**
 * Keys, never events: a key stands in the queue once however often it is added, has one worker at a time, and is
 * looked at again if it changes while it has one. Reporters take turns, so that one reporter's flood delays another's
 * change by at most one key a reporter.
 *
 * What is remembered is bounded by the number of keys: it does not grow with the number of changes.
 */
export class Workqueue {
  readonly #clock: Clock;
  readonly #queues = new Map<string, ReporterQueue>();
  /** Lanes with names waiting, whose turn it is first at the front. */
  #rotation: ReporterQueue[] = [];
  #nextInRotation = 0;
  readonly #delays = new DelayHeap<Delay>();
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
    const queue = this.#queues.get(key);
    return queue === undefined ? 0 : queue.waiting.size + queue.running.size + queue.delayed.size;
  }

  /** True while a key has a worker: what is seen of its row may be the worker's own doing. */
  isRunning(key: string, tunnelName: string): boolean {
    return this.#queues.get(key)?.running.has(tunnelName) ?? false;
  }

  /** True when a key waits for a worker or has one, so that it is looked at again in any case. */
  isActive(key: string, tunnelName: string): boolean {
    const queue = this.#queues.get(key);
    return queue !== undefined && (queue.waiting.has(tunnelName) || queue.running.has(tunnelName));
  }

  /** The key has changed: it is to be looked at as soon as its turn comes, also when it was to wait for a time. */
  add(key: string, tunnelName: string, sinceMs: number): void {
    const queue = this.#queueFor(key);
    const delayed = queue.delayed.get(tunnelName);
    if (delayed !== undefined) this.#endDelay(queue, tunnelName);
    this.#enqueue(queue, tunnelName, Math.min(sinceMs, delayed?.sinceMs ?? sinceMs));
  }

  /**
   * The key is to be looked at again after `delayMs`; an `add` before that makes it due at once. A time that was set
   * earlier and comes sooner stands.
   */
  addAfter(item: QueueItem, delayMs: number): void {
    const queue = this.#queueFor(item.key);
    const atMs = this.#clock.monotonicMs() + delayMs;
    const existing = queue.delayed.get(item.tunnelName);
    if (queue.waiting.has(item.tunnelName) || (existing !== undefined && existing.atMs <= atMs)) return;
    const sinceMs = Math.min(item.sinceMs, existing?.sinceMs ?? item.sinceMs);
    const delay = { queue, tunnelName: item.tunnelName, atMs, sinceMs };
    if (existing === undefined) this.#delayedCount += 1;
    queue.delayed.set(item.tunnelName, delay);
    this.#delays.push(atMs, delay);
    // Changes that keep overtaking a long delay would else pile up until it is over.
    if (this.#delays.size > 2 * this.#delayedCount + MAX_STALE_DELAYS) this.#delays.retain(isCurrent);
    this.#setTimer();
  }

  /** One more failed try of a key: how many in a row there are now. */
  recordFailure(item: QueueItem): number {
    const queue = this.#queueFor(item.key);
    const failures = (queue.failures.get(item.tunnelName) ?? 0) + 1;
    queue.failures.set(item.tunnelName, failures);
    return failures;
  }

  /** A key has been brought to what it is to be: its failures are forgotten. */
  forgetFailures(item: QueueItem): void {
    this.#queues.get(item.key)?.failures.delete(item.tunnelName);
  }

  /** The next key whose turn it is, now running; undefined when none waits. `done` must be called with it. */
  take(): QueueItem | undefined {
    while (this.#nextInRotation < this.#rotation.length) {
      const queue = this.#rotation[this.#nextInRotation];
      this.#nextInRotation += 1;
      if (this.#nextInRotation > 1024 && this.#nextInRotation * 2 > this.#rotation.length) {
        this.#rotation = this.#rotation.slice(this.#nextInRotation);
        this.#nextInRotation = 0;
      }
      if (queue === undefined) continue;
      queue.isScheduled = false;
      const item = this.#takeFrom(queue);
      this.#schedule(queue);
      if (item !== undefined) return item;
    }
    return undefined;
  }

  /** The worker of `item` is done with it; a change that came meanwhile puts it into the queue again. */
  done(item: QueueItem): void {
    const queue = this.#queueFor(item.key);
    const changedSinceMs = queue.running.get(item.tunnelName);
    queue.running.delete(item.tunnelName);
    this.#runningCount -= 1;
    if (changedSinceMs !== undefined) this.#enqueue(queue, item.tunnelName, changedSinceMs);
    this.#forgetIfEmpty(queue);
    if (queue.waiting.size + queue.running.size + queue.delayed.size === 0) this.onEmptied(queue.key);
  }

  /** Delays never end from now on, so that no timer is left. Keys can still be added and taken. */
  close(): void {
    this.#closed = true;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#timerAtMs = Number.POSITIVE_INFINITY;
  }

  #takeFrom(queue: ReporterQueue): QueueItem | undefined {
    for (;;) {
      queue.iterator ??= queue.waiting.entries();
      const { value } = queue.iterator.next();
      if (value === undefined) {
        queue.iterator = undefined;
        if (queue.waiting.size === 0) return undefined;
        continue;
      }
      const [tunnelName, sinceMs] = value;
      queue.waiting.delete(tunnelName);
      queue.running.set(tunnelName, undefined);
      this.#depth -= 1;
      this.#runningCount += 1;
      return { key: queue.key, tunnelName, sinceMs };
    }
  }

  #enqueue(queue: ReporterQueue, tunnelName: string, sinceMs: number): void {
    if (queue.running.has(tunnelName)) {
      queue.running.set(tunnelName, Math.min(sinceMs, queue.running.get(tunnelName) ?? sinceMs));
      return;
    }
    const waitingSinceMs = queue.waiting.get(tunnelName);
    queue.waiting.set(tunnelName, Math.min(sinceMs, waitingSinceMs ?? sinceMs));
    if (waitingSinceMs !== undefined) return;
    this.#depth += 1;
    this.#schedule(queue);
  }

  #schedule(queue: ReporterQueue): void {
    if (queue.isScheduled || queue.waiting.size === 0) return;
    queue.isScheduled = true;
    this.#rotation.push(queue);
  }

  #queueFor(key: string): ReporterQueue {
    let queue = this.#queues.get(key);
    if (queue === undefined) {
      queue = {
        key,
        waiting: new Map(),
        iterator: undefined,
        running: new Map(),
        delayed: new Map(),
        failures: new Map(),
        isScheduled: false,
      };
      this.#queues.set(key, queue);
    }
    return queue;
  }

  #forgetIfEmpty(queue: ReporterQueue): void {
    const kept =
      queue.waiting.size + queue.running.size + queue.delayed.size + queue.failures.size > 0 ||
      queue.isScheduled;
    if (!kept) this.#queues.delete(queue.key);
  }

  #endDelay(queue: ReporterQueue, tunnelName: string): void {
    queue.delayed.delete(tunnelName);
    this.#delayedCount -= 1;
  }

  #setTimer(): void {
    if (this.#closed) return;
    const earliestMs = this.#delays.earliestMs ?? Number.POSITIVE_INFINITY;
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
    for (let due = this.#delays.popDue(nowMs); due !== undefined; due = this.#delays.popDue(nowMs)) {
      // Not if an `add` overtook it, or a sooner time was set.
      if (!isCurrent(due)) continue;
      this.#endDelay(due.queue, due.tunnelName);
      this.#enqueue(due.queue, due.tunnelName, due.sinceMs);
    }
    this.#setTimer();
    this.onReady();
  }
}

function isCurrent(delay: Delay): boolean {
  return delay.queue.delayed.get(delay.tunnelName) === delay;
}
