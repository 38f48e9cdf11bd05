import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { backoffDelayMs, RETRY, SLOW_RETRY } from '../backoff.ts';
import type { Outcome } from './tunnel-reconciler.ts';
import type { QueueItem, Workqueue } from './workqueue.ts';

/** Where keys come from, what is done with one, and who is told of what became of it. */
export interface WorkersOptions {
  readonly queue: Workqueue;
  readonly reconcile: (item: QueueItem) => Promise<Outcome>;
  /** Keys worked on at once, which bounds the API writes in flight. */
  readonly concurrency: number;
  /** Told of each write that got no answer: the watch may have lost its connection too. */
  readonly onUnreachable: () => void;
  /** Told of each key that is refused, with the API server's answer. */
  readonly onRejected: (item: QueueItem, answer: string) => void;
  readonly clock: Clock;
  readonly random: () => number;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** While the API server takes nothing at all, one key knocks for all of them, at most this far apart. */
const PROBE_BACKOFF = { initialMs: 100, maxMs: 2000 };

/**
 * Takes keys from the queue, a bounded number at a time, and puts back what failed.
 *
 * States: *stopped* (before `start`, after `stop`: nothing is taken) → *working* → *knocking* (a request was blocked,
 * and no other has had an answer since it was sent: one key at a time, with a growing pause) → working again at the
 * first answer. So an outage costs a request every 2 s, however many keys wait and however many of them turn out to
 * need nothing, and its end is noticed within 2 s, also when requests hang. A row that is refused for a reason of its
 * own waits alone.
 */
export class Workers {
  readonly #options: WorkersOptions;
  #isRunning = false;
  #busyWorkers = 0;
  /** Knocks in a row; 0 while working. */
  #probes = 0;
  /** While knocking: the next key may be taken. */
  #canProbe = false;
  #cancelProbe: (() => void) | undefined;
  #lastAnswerMs = 0;
  #drained: (() => void)[] = [];

  constructor(options: WorkersOptions) {
    this.#options = options;
    options.queue.onReady = () => this.wake();
  }

  start(): void {
    this.#isRunning = true;
    this.wake();
  }

  /** Looks whether the queue has work; to be called when keys have been added. */
  wake(): void {
    const { queue, concurrency } = this.#options;
    while (this.#isRunning && this.#busyWorkers < concurrency && (this.#probes === 0 || this.#canProbe)) {
      const item = queue.take();
      if (item === undefined) return;
      this.#canProbe = false;
      this.#busyWorkers += 1;
      void this.#work(item);
    }
  }

  /**
   * Resolves when no key waits for a worker and none has one; at once where nothing is taken. What waits for a time
   * does not hold it up.
   */
  drained(): Promise<void> {
    if (!this.#isRunning || this.#options.queue.idle) return Promise.resolve();
    return new Promise((resolve) => this.#drained.push(resolve));
  }

  /** Takes nothing more. What is being worked on ends by itself. */
  stop(): void {
    this.#isRunning = false;
    this.#stopProbing();
    this.#options.queue.close();
  }

  async #work(item: QueueItem): Promise<void> {
    const { queue, reconcile, clock, log } = this.#options;
    const sentMs = clock.monotonicMs();
    let outcome: Outcome;
    try {
      outcome = await reconcile(item);
    } catch (error) {
      // A fault of this program in one key is that key's alone.
      log.error({ err: error, tunnel: item.tunnelName }, 'unexpected error while reconciling a tunnel');
      outcome = { kind: 'rejected', answer: 'internal error of the operator; see its log' };
    }
    this.#busyWorkers -= 1;
    this.#settle(item, outcome, sentMs);
    queue.done(item);
    this.wake();
    if (queue.idle) {
      for (const resolve of this.#drained.splice(0)) resolve();
    }
  }

  #settle(item: QueueItem, outcome: Outcome, sentMs: number): void {
    const { queue, clock, random, metrics } = this.#options;
    if (wasAnswered(outcome)) {
      this.#lastAnswerMs = clock.monotonicMs();
      this.#stopProbing();
    }
    if (outcome.kind === 'rejected') this.#options.onRejected(item, outcome.answer);
    if (outcome.kind === 'done') {
      queue.forgetFailures(item);
      // Nothing was sent for it, so the knock is another key's.
      if (!outcome.answered && this.#probes > 0) this.#canProbe = true;
      return;
    }
    metrics.workqueueRetries.inc({ name: 'tunnels' });
    const serverDelayMs = outcome.kind === 'retry' ? (outcome.retryAfterMs ?? 0) * (1 + random() / 2) : 0;
    if (outcome.kind === 'retry' && outcome.unreachable) this.#options.onUnreachable();
    if (outcome.kind === 'retry' && outcome.blocked && this.#lastAnswerMs < sentMs) {
      // Nobody has had an answer since this was sent: it is not this key's fault, and the next knock may be its own.
      this.#scheduleProbe(serverDelayMs);
      queue.add(item.key, item.tunnelName, item.sinceMs);
      return;
    }
    const failures = queue.recordFailure(item);
    const waitMs = backoffDelayMs(outcome.kind === 'rejected' ? SLOW_RETRY : RETRY, failures, random());
    queue.addAfter(item, Math.max(waitMs, serverDelayMs));
  }

  /** Lets one key knock after a pause, and others after it for as long as none has an answer. */
  #scheduleProbe(serverDelayMs: number): void {
    // Once stopped, what is still answered must leave no timer behind.
    if (this.#cancelProbe !== undefined || !this.#isRunning) return;
    this.#probes += 1;
    const { clock, random } = this.#options;
    const pauseMs = Math.max(backoffDelayMs(PROBE_BACKOFF, this.#probes, random()), serverDelayMs);
    this.#cancelProbe = clock.setTimer(pauseMs, () => {
      this.#cancelProbe = undefined;
      this.#canProbe = true;
      this.wake();
      // A knock that hangs until its deadline must not keep the next one.
      if (!this.#canProbe) this.#scheduleProbe(0);
    });
  }

  #stopProbing(): void {
    this.#probes = 0;
    this.#canProbe = false;
    this.#cancelProbe?.();
    this.#cancelProbe = undefined;
  }
}

/** True when the API server did something for this key, or refused it for a reason of its own. */
function wasAnswered(outcome: Outcome): boolean {
  switch (outcome.kind) {
    case 'done':
      return outcome.answered;
    case 'retry':
      return !outcome.blocked;
    case 'rejected':
      return true;
  }
}
