import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { backoffMs, RETRY, SLOW_RETRY } from './backoff.ts';
import type { Outcome } from './reconciler.ts';
import type { QueueItem, Workqueue } from './workqueue.ts';

export interface WorkersParts {
  readonly queue: Workqueue;
  readonly reconcile: (item: QueueItem) => Promise<Outcome>;
  /** Keys worked on at once, which bounds the API writes in flight. */
  readonly concurrency: number;
  /** Told of each write that got no answer: the watch may have lost its connection too. */
  readonly onNoAnswer: () => void;
  readonly clock: Clock;
  readonly random: () => number;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** While the API server does not answer at all, one key knocks for all of them, at most this far apart. */
const KNOCK = { firstMs: 100, longestMs: 2000 };

/**
 * Takes keys from the queue, a bounded number at a time, and puts back what failed.
 *
 * States: *stopped* (before `start`, after `stop`: nothing is taken) → *working* → *knocking* (the API server gave no
 * answer, and none has come since: one key at a time, with a growing pause) → working again at the first answer. So an
 * outage costs a request every 2 s, however many keys wait, and its end is noticed within 2 s.
 */
export class Workers {
  readonly #parts: WorkersParts;
  #taking = false;
  #working = 0;
  #knocks = 0;
  #cancelKnock: (() => void) | undefined;
  #lastAnswerMs = 0;
  #drained: (() => void)[] = [];

  constructor(parts: WorkersParts) {
    this.#parts = parts;
    parts.queue.onReady = () => this.wake();
  }

  start(): void {
    this.#taking = true;
    this.wake();
  }

  /** Looks whether the queue has work; to be called when keys have been added. */
  wake(): void {
    const { queue, concurrency } = this.#parts;
    while (this.#taking && this.#cancelKnock === undefined && this.#working < this.#limit(concurrency)) {
      const item = queue.take();
      if (item === undefined) return;
      this.#working += 1;
      void this.#work(item);
    }
  }

  /** Resolves when no key waits for a worker and none has one. What waits for a time does not hold it up. */
  drained(): Promise<void> {
    return this.#parts.queue.idle ? Promise.resolve() : new Promise((resolve) => this.#drained.push(resolve));
  }

  /** Takes nothing more. What is being worked on ends by itself. */
  stop(): void {
    this.#taking = false;
    this.#cancelKnock?.();
    this.#cancelKnock = undefined;
    this.#parts.queue.close();
  }

  #limit(concurrency: number): number {
    return this.#knocks > 0 ? 1 : concurrency;
  }

  async #work(item: QueueItem): Promise<void> {
    const { queue, reconcile, clock, log } = this.#parts;
    const sentMs = clock.monotonicMs();
    let outcome: Outcome;
    try {
      outcome = await reconcile(item);
    } catch (error) {
      // A fault of this program in one key is that key's alone.
      log.error({ err: error, tunnel: item.tunnelName }, 'reconciling a tunnel failed unexpectedly');
      outcome = { kind: 'refused' };
    }
    this.#working -= 1;
    this.#settle(item, outcome, sentMs);
    queue.done(item);
    this.wake();
    if (queue.idle) {
      for (const resolve of this.#drained.splice(0)) resolve();
    }
  }

  #settle(item: QueueItem, outcome: Outcome, sentMs: number): void {
    const { queue, clock, random, metrics } = this.#parts;
    if (outcome.kind !== 'retry' || !outcome.noAnswer) {
      this.#lastAnswerMs = clock.monotonicMs();
      this.#knocks = 0;
    }
    if (outcome.kind === 'done') {
      queue.succeeded(item);
      return;
    }
    metrics.workqueueRetries.inc();
    if (outcome.kind === 'retry' && outcome.noAnswer) this.#parts.onNoAnswer();
    if (outcome.kind === 'retry' && outcome.noAnswer && this.#lastAnswerMs < sentMs) {
      // Nobody has had an answer since this was sent: it is not this key's fault, and it keeps its place.
      this.#knock();
      queue.add(item.key, item.tunnelName, item.sinceMs);
      return;
    }
    const failures = queue.failed(item);
    const waitMs = backoffMs(outcome.kind === 'refused' ? SLOW_RETRY : RETRY, failures, random());
    const askedMs = outcome.kind === 'retry' ? (outcome.afterMs ?? 0) : 0;
    queue.addAfter(item, askedMs > 0 ? askedMs * (1 + random() / 2) : waitMs);
  }

  #knock(): void {
    if (this.#cancelKnock !== undefined) return;
    this.#knocks += 1;
    const { clock, random } = this.#parts;
    this.#cancelKnock = clock.setTimer(backoffMs(KNOCK, this.#knocks, random()), () => {
      this.#cancelKnock = undefined;
      this.wake();
    });
  }
}
