import TinyQueue from 'tinyqueue';
import type { Clock } from '../clock.ts';

/** An object to reconcile: of all objects of one reporter, the one of this name. */
export interface QueueItem {
  /** The reporter key. Reporters share the workers round-robin. */
  readonly key: string;
  /** The tunnel name; empty for the reporter's own object. */
  readonly name: string;
  readonly priority: Priority;
  /** When the oldest change since the last reconciliation arrived, monotonic ms. */
  readonly sinceMs: number;
}

/**
 * Items of high priority are taken before all others. An item that is added again, while it waits, is reconciled or is
 * held by a backoff, gets the higher of both priorities. The priority of a delay applies only when the delay ends.
 */
export type Priority = 'high' | 'normal';

/** Receives what happens to a queue. */
export interface WorkqueueEventHandler {
  /** Items became ready. Called on a later tick than `add`, once for all items added until then. */
  onReady?(): void;
  /** The last item of a reporter was completed, and no item of the reporter is delayed, except by `collect`. */
  onEmptied?(key: string): void;
}

/** The items of one reporter. */
interface ReporterQueue {
  readonly key: string;
  /** Names that wait for a worker, in order of arrival, with the time of their oldest change. */
  readonly waiting: Map<string, number>;
  /** A single iterator as long as names wait: a new one per item would step over all names taken before. */
  iterator: MapIterator<[string, number]> | undefined;
  /** Names being reconciled, with what was added since the start of the reconciliation, if anything. */
  readonly running: Map<string, Addition | undefined>;
  readonly delayed: Map<string, Delay>;
  /** The number of `delayed` names that only wait for more changes. */
  collecting: number;
  /** Consecutive failures by name. */
  readonly failures: Map<string, number>;
  /** The rotations that contain the reporter. */
  readonly scheduled: Record<Priority, boolean>;
}

/** All additions of one name: the time of the oldest and the highest priority. */
interface Addition {
  readonly sinceMs: number;
  readonly priority: Priority;
}

/** A delayed name. Obsolete once the reporter's queue contains another delay for the name, or none. */
interface Delay {
  readonly queue: ReporterQueue;
  readonly name: string;
  readonly atMs: number;
  addition: Addition;
  /** True for a backoff, which later changes do not cut short. */
  readonly isHeld: boolean;
  /** True if the name only waits for more changes. */
  readonly isCollecting: boolean;
}

/** Reporters with waiting items, in the order of their turns from index `next` on. */
interface Rotation {
  queues: ReporterQueue[];
  next: number;
}

/** Obsolete delays are dropped when they outnumber the current ones by this many. */
const MAX_OBSOLETE_DELAYS = 1024;

/**
 * A queue of items to reconcile, with the guarantees of client-go's workqueue: an item is queued once however often it
 * is added, is reconciled by one worker at a time, and is queued again if it changed during its reconciliation. Items
 * of high priority go first; within a priority the reporters are scheduled round-robin, so that a flood of changes from
 * one reporter delays a change of another reporter by at most one item per reporter.
 *
 * Memory depends on the number of items, never on the number of changes.
 */
export class Workqueue {
  readonly #clock: Clock;
  readonly #handlers: WorkqueueEventHandler[] = [];
  readonly #queues = new Map<string, ReporterQueue>();
  readonly #rotations: Record<Priority, Rotation> = {
    high: { queues: [], next: 0 },
    normal: { queues: [], next: 0 },
  };
  #delays = new TinyQueue<Delay>([], byTime);
  #delayedCount = 0;
  #cancelTimer: (() => void) | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #depth = 0;
  #runningCount = 0;
  #closed = false;
  #readyScheduled = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  addEventHandler(handler: WorkqueueEventHandler): void {
    this.#handlers.push(handler);
  }

  /** Items that wait for a worker; delayed items do not count. */
  get depth(): number {
    return this.#depth;
  }

  get delayedCount(): number {
    return this.#delayedCount;
  }

  /** True if no item waits for a worker and none is being reconciled. */
  get idle(): boolean {
    return this.#depth === 0 && this.#runningCount === 0;
  }

  /** Returns the number of a reporter's items that wait, are delayed or are being reconciled, without `collect`. */
  pending(key: string): number {
    const queue = this.#queues.get(key);
    return queue === undefined ? 0 : pendingIn(queue);
  }

  /** Yields the names of a reporter's items that wait, are delayed or are being reconciled; some of them twice. */
  *pendingNames(key: string): Iterable<string> {
    const queue = this.#queues.get(key);
    if (queue === undefined) return;
    yield* queue.waiting.keys();
    yield* queue.running.keys();
    yield* queue.delayed.keys();
  }

  /** Returns true while an item is being reconciled: a change of its object may be the result of that. */
  isRunning(key: string, name: string): boolean {
    return this.#queues.get(key)?.running.has(name) ?? false;
  }

  /** Returns true if an item waits for a worker or is being reconciled. */
  isActive(key: string, name: string): boolean {
    const queue = this.#queues.get(key);
    return queue !== undefined && (queue.waiting.has(name) || queue.running.has(name));
  }

  /** Queues an item. If it is delayed it becomes ready at once, unless the delay is a backoff (`backOff`). */
  add(key: string, name: string, sinceMs: number, priority: Priority = 'normal'): void {
    const queue = this.#queueFor(key);
    const delayed = queue.delayed.get(name);
    if (delayed?.isHeld === true) {
      delayed.addition = merge({ sinceMs, priority }, delayed.addition);
      return;
    }
    if (delayed !== undefined) this.#endDelay(queue, name);
    this.#enqueue(queue, name, {
      sinceMs: Math.min(sinceMs, delayed?.addition.sinceMs ?? sinceMs),
      priority,
    });
    this.#scheduleReady();
  }

  /** Queues an item after `delayMs`, unless it waits already or is delayed for less. A later `add` overtakes the delay. */
  addAfter(item: QueueItem, delayMs: number): void {
    this.#delay(item, delayMs, false);
  }

  /**
   * Queues an item like `addAfter`, to collect more changes of it. Until then it is not pending: a reporter whose items
   * change all the time is not behind.
   */
  collect(item: QueueItem, delayMs: number): void {
    this.#delay(item, delayMs, false, true);
  }

  /** Queues an item after `delayMs`. A later `add` does not overtake the delay. */
  backOff(item: QueueItem, delayMs: number): void {
    this.#delay(item, delayMs, true);
  }

  /** Counts another failure of an item, and returns the number of consecutive ones. */
  recordFailure(item: QueueItem): number {
    const queue = this.#queueFor(item.key);
    const failures = (queue.failures.get(item.name) ?? 0) + 1;
    queue.failures.set(item.name, failures);
    return failures;
  }

  /** Resets the failures of an item that was reconciled. */
  forgetFailures(item: QueueItem): void {
    this.#queues.get(item.key)?.failures.delete(item.name);
  }

  /** Returns the next item, which is running until `done` is called with it; undefined if none waits. */
  take(): QueueItem | undefined {
    return this.#takeFrom('high') ?? this.#takeFrom('normal');
  }

  /** Completes an item. If it changed while it was running, it is queued again. */
  done(item: QueueItem): void {
    const queue = this.#queueFor(item.key);
    const addition = queue.running.get(item.name);
    queue.running.delete(item.name);
    this.#runningCount -= 1;
    if (addition !== undefined) {
      const delayed = queue.delayed.get(item.name);
      if (delayed?.isHeld === true) delayed.addition = merge(addition, delayed.addition);
      else this.#enqueue(queue, item.name, addition);
    }
    this.#removeIfUnused(queue);
    if (pendingIn(queue) > 0) return;
    for (const handler of this.#handlers) handler.onEmptied?.(queue.key);
  }

  /** Drops the delays and failures of a reporter that was forgotten. Items that wait or are running stay. */
  forget(key: string): void {
    const queue = this.#queues.get(key);
    if (queue === undefined) return;
    for (const name of queue.delayed.keys()) this.#endDelay(queue, name);
    queue.failures.clear();
    this.#removeIfUnused(queue);
  }

  /** Ends the timers: delayed items no longer become ready. Items can still be added and taken. */
  close(): void {
    this.#closed = true;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#timerAtMs = Number.POSITIVE_INFINITY;
  }

  #delay(item: QueueItem, delayMs: number, isHeld: boolean, isCollecting = false): void {
    const queue = this.#queueFor(item.key);
    const { name, sinceMs, priority } = item;
    const atMs = this.#clock.monotonicMs() + delayMs;
    const existing = queue.delayed.get(name);
    if (queue.waiting.has(name)) return;
    if (existing !== undefined && !isHeld && existing.atMs <= atMs) return;
    const addition = { sinceMs: Math.min(sinceMs, existing?.addition.sinceMs ?? sinceMs), priority };
    const delay = { queue, name, atMs, addition, isHeld, isCollecting };
    if (existing === undefined) this.#delayedCount += 1;
    else if (existing.isCollecting) queue.collecting -= 1;
    if (isCollecting) queue.collecting += 1;
    queue.delayed.set(name, delay);
    this.#delays.push(delay);
    // Changes that keep overtaking a long delay would otherwise pile up until it ends.
    if (this.#delays.length > 2 * this.#delayedCount + MAX_OBSOLETE_DELAYS)
      this.#delays = new TinyQueue(this.#delays.data.filter(isCurrent), byTime);
    this.#setTimer();
  }

  #takeFrom(priority: Priority): QueueItem | undefined {
    const rotation = this.#rotations[priority];
    while (rotation.next < rotation.queues.length) {
      const queue = rotation.queues[rotation.next];
      rotation.next += 1;
      if (rotation.next > 1024 && rotation.next * 2 > rotation.queues.length) {
        rotation.queues = rotation.queues.slice(rotation.next);
        rotation.next = 0;
      }
      if (queue === undefined) continue;
      queue.scheduled[priority] = false;
      const item = this.#takeNext(queue, priority);
      // The rest of the reporter's items get their turn after those of the other reporters.
      this.#schedule(queue, priority);
      if (item !== undefined) return item;
      this.#removeIfUnused(queue);
    }
    return undefined;
  }

  #takeNext(queue: ReporterQueue, priority: Priority): QueueItem | undefined {
    for (;;) {
      queue.iterator ??= queue.waiting.entries();
      const { value } = queue.iterator.next();
      if (value === undefined) {
        queue.iterator = undefined;
        if (queue.waiting.size === 0) return undefined;
        continue;
      }
      const [name, sinceMs] = value;
      queue.waiting.delete(name);
      queue.running.set(name, undefined);
      this.#depth -= 1;
      this.#runningCount += 1;
      return { key: queue.key, name, priority, sinceMs };
    }
  }

  #enqueue(queue: ReporterQueue, name: string, addition: Addition): void {
    if (queue.running.has(name)) {
      queue.running.set(name, merge(addition, queue.running.get(name)));
      return;
    }
    const { sinceMs, priority } = addition;
    const waitingSinceMs = queue.waiting.get(name);
    queue.waiting.set(name, Math.min(sinceMs, waitingSinceMs ?? sinceMs));
    if (waitingSinceMs === undefined) this.#depth += 1;
    this.#schedule(queue, priority);
  }

  /** Gives a reporter with waiting items a turn. With a turn in both rotations, the later one may find nothing. */
  #schedule(queue: ReporterQueue, priority: Priority): void {
    const { scheduled } = queue;
    if (queue.waiting.size === 0 || scheduled[priority] || scheduled.high) return;
    scheduled[priority] = true;
    this.#rotations[priority].queues.push(queue);
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
        collecting: 0,
        failures: new Map(),
        scheduled: { high: false, normal: false },
      };
      this.#queues.set(key, queue);
    }
    return queue;
  }

  #removeIfUnused(queue: ReporterQueue): void {
    const { waiting, running, delayed, failures, scheduled } = queue;
    const isUsed = waiting.size + running.size + delayed.size + failures.size > 0;
    if (!isUsed && !scheduled.high && !scheduled.normal) this.#queues.delete(queue.key);
  }

  #endDelay(queue: ReporterQueue, name: string): void {
    if (queue.delayed.get(name)?.isCollecting === true) queue.collecting -= 1;
    queue.delayed.delete(name);
    this.#delayedCount -= 1;
  }

  #setTimer(): void {
    if (this.#closed) return;
    const earliestMs = this.#delays.peek()?.atMs ?? Number.POSITIVE_INFINITY;
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
    for (let delay = this.#delays.peek(); delay !== undefined && delay.atMs <= nowMs;) {
      this.#delays.pop();
      if (isCurrent(delay)) {
        this.#endDelay(delay.queue, delay.name);
        this.#enqueue(delay.queue, delay.name, delay.addition);
      }
      delay = this.#delays.peek();
    }
    this.#setTimer();
    this.#notifyReady();
  }

  #scheduleReady(): void {
    if (this.#readyScheduled) return;
    this.#readyScheduled = true;
    this.#clock.setImmediate(() => {
      this.#readyScheduled = false;
      this.#notifyReady();
    });
  }

  #notifyReady(): void {
    for (const handler of this.#handlers) handler.onReady?.();
  }
}

function pendingIn({ waiting, running, delayed, collecting }: ReporterQueue): number {
  return waiting.size + running.size + delayed.size - collecting;
}

function merge(addition: Addition, previous: Addition | undefined): Addition {
  if (previous === undefined) return addition;
  return {
    sinceMs: Math.min(addition.sinceMs, previous.sinceMs),
    priority: addition.priority === 'high' ? 'high' : previous.priority,
  };
}

function byTime(a: Delay, b: Delay): number {
  return a.atMs - b.atMs;
}

function isCurrent(delay: Delay): boolean {
  return delay.queue.delayed.get(delay.name) === delay;
}
