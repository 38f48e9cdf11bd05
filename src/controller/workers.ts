import { backoffDelayMs, RETRY, SLOW_RETRY } from '../backoff.ts';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { QueueItem, Workqueue, WorkqueueEventHandler } from './workqueue.ts';

/** The result of one reconciliation. */
export type Outcome =
  | Done
  | RequeueAfter
  | Retry
  /** The API server rejected a write, and will again until something changes on the server: retried slowly. */
  | Rejected;

/** The object is in the desired state. */
export interface Done {
  readonly kind: 'done';
  /** True if the API server answered a request, which proves that it is available. */
  readonly answered: boolean;
}

/** Nothing failed, but there is more to do: now, or when time has passed. */
export interface RequeueAfter {
  readonly kind: 'requeue';
  /** 0: immediately, after the items that wait already. */
  readonly afterMs: number;
  /** Default: the priority of the reconciled item. */
  readonly priority?: QueueItem['priority'];
  /** As in `Done`. Default: true. */
  readonly answered?: boolean;
}

/** When a failed reconciliation is retried. */
interface RetrySchedule {
  /** The delay that the API server asks for. */
  readonly retryAfterMs?: number | undefined;
  /** The number of consecutive failures, if the reconciler counts more than the queue does. */
  readonly failures?: number;
  /** Default: the priority of the reconciled item. */
  readonly priority?: QueueItem['priority'];
}

/** The reconciliation failed, and the next attempt may succeed without any change. */
export interface Retry extends RetrySchedule {
  readonly kind: 'retry';
  /** True if other items would probably fail too: the API server is down, overloaded, or does not serve the kind. */
  readonly blocked: boolean;
  /** True if there was no response at all: the watches may have lost their connections too. */
  readonly unreachable: boolean;
}

export interface Rejected extends RetrySchedule {
  readonly kind: 'rejected';
  /** The response of the API server. */
  readonly answer: string;
}

/** Another attempt is needed for a reason that concerns this object only. */
export const RETRY_SOON: Retry = {
  kind: 'retry',
  blocked: false,
  unreachable: false,
  retryAfterMs: undefined,
};

/** Brings one object to the desired state. */
export interface Reconciler {
  reconcile(item: QueueItem): Promise<Outcome>;
  /** Returns the log fields that identify an item. */
  describe(item: QueueItem): object;
  /** Called when a reconciliation was rejected, while the item is still running. */
  onRejected?(item: QueueItem, answer: string): void;
}

export interface WorkersOptions {
  readonly queue: Workqueue;
  readonly reconciler: Reconciler;
  /** Concurrent reconciliations, which bounds the number of API requests in flight. */
  readonly concurrency: number;
  /**
   * - `shortened`: a change of an object that failed is reconciled at once.
   * - `held`: it waits for the end of the backoff, which is at most 10 s or what the API server asks for.
   */
  readonly backoff: 'shortened' | 'held';
  /** How long items wait for the other reports of a burst. Default: not at all. */
  readonly burst?: { delayMs(nowMs: number): number };
  /** Called after each request without a response. */
  readonly onUnreachable: { retryNow(): void };
  readonly clock: Clock;
  /** 0 to 1, for jitter. */
  readonly random: () => number;
  /** Counts failed reconciliations. */
  readonly retryCounter: { inc(): void };
  readonly log: Log;
}

/** While the API server is unavailable, one worker sends a probe at most this often. */
const PROBE_BACKOFF = { initialMs: 100, maxMs: 2000 };
/** Reconciliations between two ticks: those that send no request would otherwise all run in one, delaying ACKs. */
const YIELD_EVERY_ITEMS = 64;
/** Or after this time: right after the start, before V8 has optimized anything, 64 reconciliations take 100 ms. */
const YIELD_EVERY_MS = 2;
/** Longest own delay of a held backoff. */
const MAX_HELD_MS = 10_000;

/**
 * Takes items from a queue, reconciles up to `concurrency` of them at a time, and requeues what failed. Workers are
 * woken by the queue on a later tick than the one in which an item was added, so the handler that added it (and the
 * ACK that it writes) always finishes before the first request.
 *
 * States:
 * - *stopped*: before `start` and after `stop`; nothing is taken.
 * - *working*.
 * - *probing*: a request was blocked, and no other request was answered since it was sent. A single worker probes the
 *   API server, with a growing delay of at most 2 s, whatever the number of waiting items and however many of them turn
 *   out to need no request. The first response ends this state; a probe without a response does not delay the next one.
 *
 * An item that is rejected for a reason of its own only delays itself.
 */
export class Workers implements WorkqueueEventHandler {
  readonly #options: WorkersOptions;
  #state: 'new' | 'running' | 'stopped' = 'new';
  #busyWorkers = 0;
  #cancelBurstTimer: (() => void) | undefined;
  /** Items taken since the last yield. */
  #takenItems = 0;
  #isContinuing = false;
  /** Consecutive probes; 0 while working. */
  #probes = 0;
  /** While probing: the next item may be taken. */
  #canProbe = false;
  #cancelProbe: (() => void) | undefined;
  #lastAnswerMs = 0;
  #drainWaiters: (() => void)[] = [];

  constructor(options: WorkersOptions) {
    this.#options = options;
    options.queue.addEventHandler(this);
  }

  /** Starts the workers, unless they were stopped. */
  start(): void {
    if (this.#state === 'new') this.#state = 'running';
    this.onReady();
  }

  /** Gives waiting items to free workers. */
  onReady(): void {
    const { queue, concurrency, clock } = this.#options;
    const startMs = clock.monotonicMs();
    if (!this.#isRunning || this.#awaitsBurst(startMs)) return;
    let isFirst = true;
    while (this.#isRunning && this.#busyWorkers < concurrency && (this.#probes === 0 || this.#canProbe)) {
      if (
        this.#takenItems === YIELD_EVERY_ITEMS ||
        (!isFirst && clock.monotonicMs() - startMs >= YIELD_EVERY_MS)
      ) {
        this.#continueLater();
        return;
      }
      const item = queue.take();
      if (item === undefined) return;
      isFirst = false;
      this.#takenItems += 1;
      this.#canProbe = false;
      this.#busyWorkers += 1;
      void this.#work(item);
    }
  }

  /** Resolves when no item waits or is being reconciled; immediately if the workers do not run. Ignores delayed items. */
  drained(): Promise<void> {
    if (!this.#isRunning || this.#options.queue.idle) return Promise.resolve();
    return new Promise((resolve) => this.#drainWaiters.push(resolve));
  }

  /** Takes no more items. Reconciliations in progress end by themselves. */
  stop(): void {
    this.#state = 'stopped';
    this.#cancelBurstTimer?.();
    this.#cancelBurstTimer = undefined;
    this.#stopProbing();
    this.#options.queue.close();
  }

  get #isRunning(): boolean {
    return this.#state === 'running';
  }

  /** Returns true if items wait for the end of a burst, and takes them then. */
  #awaitsBurst(nowMs: number): boolean {
    const delayMs = this.#options.burst?.delayMs(nowMs) ?? 0;
    if (delayMs === 0 || this.#options.queue.depth === 0) return false;
    this.#cancelBurstTimer ??= this.#options.clock.setTimer(delayMs, () => {
      this.#cancelBurstTimer = undefined;
      this.onReady();
    });
    return true;
  }

  #continueLater(): void {
    if (this.#isContinuing) return;
    this.#isContinuing = true;
    this.#options.clock.setImmediate(() => {
      this.#isContinuing = false;
      this.#takenItems = 0;
      this.onReady();
    });
  }

  async #work(item: QueueItem): Promise<void> {
    const { queue, reconciler, clock, log } = this.#options;
    const sentMs = clock.monotonicMs();
    let outcome: Outcome;
    try {
      outcome = await reconciler.reconcile(item);
    } catch (error) {
      // A bug that one object triggers must neither affect other objects nor be repeated at full speed.
      log.error({ err: error, ...reconciler.describe(item) }, 'unexpected error in a reconciliation');
      outcome = { kind: 'rejected', answer: 'internal error of the operator; see its log' };
    }
    this.#busyWorkers -= 1;
    this.#settle(item, outcome, sentMs);
    queue.done(item);
    this.onReady();
    if (queue.idle) {
      for (const resolve of this.#drainWaiters.splice(0)) resolve();
    }
  }

  #settle(item: QueueItem, outcome: Outcome, sentMs: number): void {
    const { queue, reconciler, clock } = this.#options;
    if (wasAnswered(outcome)) {
      this.#lastAnswerMs = clock.monotonicMs();
      this.#stopProbing();
    }
    switch (outcome.kind) {
      case 'done':
        queue.forgetFailures(item);
        // No request was sent for it, so another item may be the probe.
        if (!outcome.answered && this.#probes > 0) this.#canProbe = true;
        return;
      case 'requeue': {
        const { afterMs, priority = item.priority } = outcome;
        queue.forgetFailures(item);
        if (outcome.answered === false && this.#probes > 0) this.#canProbe = true;
        if (afterMs > 0) queue.addAfter({ ...item, priority }, afterMs);
        else queue.add(item.key, item.name, item.sinceMs, priority);
        return;
      }
      case 'rejected':
        reconciler.onRejected?.(item, outcome.answer);
        this.#retry(item, outcome, sentMs);
        return;
      case 'retry':
        if (outcome.unreachable) this.#options.onUnreachable.retryNow();
        this.#retry(item, outcome, sentMs);
    }
  }

  #retry(reconciled: QueueItem, outcome: Retry | Rejected, sentMs: number): void {
    const { queue, backoff, retryCounter, random } = this.#options;
    const item = { ...reconciled, priority: outcome.priority ?? reconciled.priority };
    retryCounter.inc();
    const serverDelayMs = (outcome.retryAfterMs ?? 0) * (1 + random() / 2);
    if (outcome.kind === 'retry' && outcome.blocked && this.#lastAnswerMs < sentMs) {
      // No request was answered since this one was sent: not the fault of this item, which may be the next probe.
      this.#scheduleProbe(serverDelayMs);
      queue.add(item.key, item.name, item.sinceMs, item.priority);
      return;
    }
    const failures = Math.max(queue.recordFailure(item), outcome.failures ?? 0);
    const ownDelayMs = backoffDelayMs(outcome.kind === 'rejected' ? SLOW_RETRY : RETRY, failures, random());
    if (backoff === 'shortened') queue.addAfter(item, Math.max(ownDelayMs, serverDelayMs));
    else queue.backOff(item, Math.max(Math.min(ownDelayMs, MAX_HELD_MS), serverDelayMs));
  }

  /** Lets one item through after a delay, and another one each time it gets no response. */
  #scheduleProbe(serverDelayMs: number): void {
    // A response after `stop` must not leave a timer behind.
    if (this.#cancelProbe !== undefined || !this.#isRunning) return;
    this.#probes += 1;
    const { clock, random } = this.#options;
    const delayMs = Math.max(backoffDelayMs(PROBE_BACKOFF, this.#probes, random()), serverDelayMs);
    this.#cancelProbe = clock.setTimer(delayMs, () => {
      this.#cancelProbe = undefined;
      this.#canProbe = true;
      this.onReady();
      // A probe that hangs until its timeout must not delay the next one.
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

/** Returns true if the API server processed a request for the item, or rejected it for a reason of its own. */
function wasAnswered(outcome: Outcome): boolean {
  switch (outcome.kind) {
    case 'done':
      return outcome.answered;
    case 'retry':
      return !outcome.blocked;
    case 'requeue':
      return outcome.answered !== false;
    case 'rejected':
      return true;
  }
}
