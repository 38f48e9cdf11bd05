import { backoffDelayMs, type Backoff } from '../backoff.ts';
import type { Clock } from '../clock.ts';
import { asError, errorMessage } from '../error-message.ts';
import { ApiError, ResponseTooLargeError } from './api-error.ts';
import { createFaultLog, type FaultLog, type FaultLogger } from './fault-log.ts';
import type { ApiObject, ResourceClient, ListPage } from './resource-client.ts';
import {
  watchOnce,
  WatchIdleError,
  type RunningWatch,
  type WatchHandler,
  type WatchOutcome,
} from './watch-once.ts';

/**
 * Measured: listing 10,000 objects takes 0.7-1.6 s with pages of 2,000 and 1.9-2.3 s with pages of 500. A page of
 * 2,000 objects is 2 MB of JSON.
 */
const DEFAULT_PAGE_LIMIT = 2_000;
/** The API server's return is noticed within 5 s, so that changes made during the outage are visible within 10 s. */
const BACKOFF: Backoff = { initialMs: 100, maxMs: 5_000 };
/** A watch that ends sooner, without an event, counts as a failure (client-go's "very short watch"). */
const SHORT_WATCH_MS = 1_000;
/** A watch that stays open this long, or delivers anything, resets the failure count. */
const STABLE_WATCH_MS = 5_000;
/** Consecutive watches that may fail with 500 before a relist. */
const MAX_INTERNAL_ERRORS = 5;
/**
 * Limit for the doubling of expired pages: 32,000 objects by default, which still fit into one response. Pages of larger
 * objects may grow until one does not fit.
 */
const MAX_PAGE_GROWTH = 16;
/** Minimum interval between attempts that `retryNow` triggers. */
const MIN_RETRY_MS = 1_000;

/**
 * Receives the state of a resource from a reflector. An error that it throws is logged and causes a relist.
 *
 * A list consists of `replaceBegin`, every object, `replaceEnd`. Objects missing from the list are deleted, but only
 * at `replaceEnd`: a list may be interrupted and start again with `replaceBegin`. Objects of an interrupted list may
 * be kept, because the API server did return them. The first request is sent after `replaceBegin` returns, so the
 * list includes every write answered before, and possibly later ones.
 */
export interface ReflectorHandler<T> extends WatchHandler<T> {
  replaceBegin(): void;
  /** Called for each object of a list, which replaces any known version: etcd may have been restored. */
  replaceItem(object: T): void;
  /**
   * Called at the end of a complete list.
   * @param version the store's version that the list represents
   */
  replaceEnd(version: string): void;
}

/**
 * - `listing`: a list is in progress.
 * - `synced`: a list is complete; the watch is not open yet.
 * - `watching`: changes arrive as they happen.
 * - `broken`: the last attempt failed; another one follows automatically.
 */
export type ReflectorState = 'listing' | 'synced' | 'watching' | 'broken';

/** Configuration of a reflector. */
export interface ReflectorOptions<T extends ApiObject> {
  readonly source: Pick<ResourceClient<T>, 'list' | 'watch' | 'title'>;
  readonly handler: ReflectorHandler<T>;
  readonly clock: Clock;
  /** Returns 0 to below 1, for jitter. */
  readonly random: () => number;
  readonly log: FaultLogger;
  /** Called at each change of state, and at each failure with its error and `broken`. */
  readonly onStateChange?: (state: ReflectorState, error?: Error) => void;
  /** Maximum objects per page of a list; default 2,000. */
  readonly pageLimit?: number;
}

/**
 * Keeps a handler's copy of a resource up to date: lists, then watches from the list's version, until it is stopped.
 * It follows client-go's Reflector; each applicable case of client-go is a test of the same name.
 */
export class Reflector<T extends ApiObject> {
  readonly #options: ReflectorOptions<T>;
  readonly #faultLog: FaultLog;
  #state: ReflectorState | undefined;
  #synced = false;
  /** Undefined if a list is required. */
  #resourceVersion: string | undefined;
  /** True if `relist` was called during a list, which may show the state before that call. */
  #relistRequested = false;
  #pageLimit: number;
  /** Larger pages did not fit into a response. */
  #fittingLimit = Number.POSITIVE_INFINITY;
  /** Consecutive failed attempts. */
  #failures = 0;
  #internalErrors = 0;
  /** True after a relist for a lost version until a watch is stable: losing it again is a failure. */
  #versionLost = false;
  /** Consecutive watches that were idle. An API server that has just started may send no bookmark to the first one. */
  #idleWatches = 0;
  #watch: RunningWatch | undefined;
  #pendingRetry: { readonly wake: () => void; dueMs: number; cancelTimer: () => void } | undefined;
  #lastAttemptMs = 0;

  constructor(options: ReflectorOptions<T>) {
    this.#options = options;
    this.#pageLimit = this.#usualLimit;
    this.#faultLog = createFaultLog({
      fields: { resource: options.source.title },
      failed: 'list or watch failed; retrying',
      recovered: 'list and watch recovered',
      log: options.log,
      clock: options.clock,
    });
  }

  /** True once a list was complete; stays true when the API server becomes unreachable. */
  get hasSynced(): boolean {
    return this.#synced;
  }

  /** Runs until `signal` is aborted, then resolves. Never rejects. Must be called once. */
  async run(signal: AbortSignal): Promise<void> {
    const onAbort = (): void => {
      this.#watch?.stop(false);
      this.#pendingRetry?.wake();
    };
    signal.addEventListener('abort', onAbort);
    while (!signal.aborted) {
      this.#lastAttemptMs = this.#options.clock.monotonicMs();
      const delayMs =
        this.#resourceVersion === undefined
          ? await this.#list(signal)
          : await this.#watchFrom(this.#resourceVersion, signal);
      if (delayMs > 0 && !signal.aborted) await this.#waitFor(delayMs);
    }
    signal.removeEventListener('abort', onAbort);
  }

  /**
   * Retries sooner, because the API server seems to be back or the connection seems lost: a write succeeded after
   * failures, or failed without a connection. A pending retry happens within a second. An open watch that delivers
   * nothing within 2 s is reopened, because the watch of an API server that is shutting down stays open for a minute.
   * Cheap enough to be called for every such write.
   */
  retryNow(): void {
    this.#watch?.verifyLiveness();
    const pending = this.#pendingRetry;
    if (pending === undefined) return;
    const { clock } = this.#options;
    const nowMs = clock.monotonicMs();
    const dueMs = Math.max(this.#lastAttemptMs + MIN_RETRY_MS, nowMs);
    if (dueMs >= pending.dueMs) return;
    pending.dueMs = dueMs;
    pending.cancelTimer();
    pending.cancelTimer = clock.setTimer(dueMs - nowMs, pending.wake);
  }

  /**
   * Lists again, because the watch seems to differ from what is stored: immediately, or after the list in progress.
   */
  relist(): void {
    this.#relistRequested = true;
    this.#resourceVersion = undefined;
    this.#watch?.stop(true);
    this.#pendingRetry?.wake();
  }

  /** Lists all objects and returns the delay before the next step. */
  async #list(signal: AbortSignal): Promise<number> {
    const { source, handler, clock, log } = this.#options;
    const startedMs = clock.monotonicMs();
    let count = 0;
    this.#relistRequested = false;
    this.#setState('listing');
    try {
      handler.replaceBegin();
      const version = await listPages(source, this.#pageLimit, signal, (items) => {
        for (const item of items) handler.replaceItem(item);
        count += items.length;
      });
      handler.replaceEnd(version);
      this.#resourceVersion = this.#relistRequested ? undefined : version;
    } catch (error) {
      this.#adaptPageLimit(error);
      return signal.aborted ? 0 : this.#onFailure(error);
    }
    this.#pageLimit = this.#usualLimit;
    this.#synced = true;
    this.#setState('synced');
    const durationMs = Math.round(clock.monotonicMs() - startedMs);
    const level = this.#idleWatches === 1 ? 'debug' : 'info';
    log[level]({ resource: source.title, count, durationMs }, 'listed all objects');
    return 0;
  }

  /** Objects per page while nothing has failed. */
  get #usualLimit(): number {
    return Math.min(this.#options.pageLimit ?? DEFAULT_PAGE_LIMIT, this.#fittingLimit);
  }

  #adaptPageLimit(error: unknown): void {
    if (error instanceof ResponseTooLargeError) {
      this.#fittingLimit = Math.max(1, Math.floor(this.#pageLimit / 2));
      this.#pageLimit = this.#fittingLimit;
    } else if (error instanceof ApiError && error.kind === 'expired') {
      // The version was compacted between two pages; with fewer pages, the list eventually succeeds.
      const maxLimit = Math.min(this.#usualLimit * MAX_PAGE_GROWTH, this.#fittingLimit);
      this.#pageLimit = Math.min(this.#pageLimit * 2, maxLimit);
    } else {
      // A page that has grown may have taken too long.
      this.#pageLimit = this.#usualLimit;
    }
  }

  /** Watches until the watch ends and returns the delay before the next step. */
  async #watchFrom(version: string, signal: AbortSignal): Promise<number> {
    const watch = watchOnce<T>(version, {
      ...this.#options,
      onOpen: () => {
        this.#setState('watching');
        this.#faultLog.logRecovery();
      },
    });
    this.#watch = watch;
    const outcome = await watch.ended;
    this.#watch = undefined;
    return signal.aborted ? 0 : this.#afterWatch(outcome);
  }

  /** Decides between watching again and relisting, and returns the delay. */
  #afterWatch(outcome: WatchOutcome): number {
    const { error, progressed, durationMs } = outcome;
    if (progressed || durationMs >= STABLE_WATCH_MS) {
      this.#failures = 0;
      this.#internalErrors = 0;
      this.#versionLost = false;
    }
    this.#idleWatches = error instanceof WatchIdleError ? this.#idleWatches + 1 : 0;
    this.#internalErrors += error instanceof ApiError && error.status === 500 ? 1 : 0;
    const relist = outcome.relist || this.#internalErrors >= MAX_INTERNAL_ERRORS;
    if (relist) this.#internalErrors = 0;
    // `relist` may have been called in the meantime.
    if (this.#resourceVersion !== undefined)
      this.#resourceVersion = relist ? undefined : outcome.resourceVersion;
    if (error !== undefined) return this.#onFailure(error);
    if (relist || progressed || durationMs >= SHORT_WATCH_MS) return 0;
    return this.#onFailure(
      new Error(
        `watch ${this.#options.source.title}: closed after ${Math.round(durationMs)} ms without an event`,
      ),
    );
  }

  /** Reports a failure and returns the delay before the next attempt. */
  #onFailure(error: unknown): number {
    const { random, log, source } = this.#options;
    this.#failures += 1;
    // A version that expired during an outage is not a failure, unless the relist that follows does not fix it.
    if (isVersionLost(error) && !this.#versionLost) {
      this.#versionLost = true;
      log.info(
        { resource: source.title, error: errorMessage(error), retry: 'now' },
        'watch expired; relisting',
      );
      return 0;
    }
    const failure = asError(error);
    const ownDelayMs = backoffDelayMs(BACKOFF, this.#failures, random());
    const retryAfterMs = failure instanceof ApiError ? failure.retryAfterMs : undefined;
    // The server's own delay takes precedence. It is never shortened, and jitter keeps replicas from retrying
    // simultaneously.
    const delayMs =
      retryAfterMs === undefined || retryAfterMs === 0 ? ownDelayMs : retryAfterMs * (1 + random() / 4);
    const isFirstIdleWatch = failure instanceof WatchIdleError && this.#idleWatches === 1;
    const retry = `in ${Math.ceil(delayMs / 100) / 10}s`;
    this.#faultLog.logFailure(failure, retry, isFirstIdleWatch ? 'debug' : 'warn');
    this.#setState('broken', failure);
    return delayMs;
  }

  #waitFor(delayMs: number): Promise<void> {
    const { clock } = this.#options;
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#pendingRetry?.cancelTimer();
        this.#pendingRetry = undefined;
        resolve();
      };
      this.#pendingRetry = {
        wake,
        dueMs: clock.monotonicMs() + delayMs,
        cancelTimer: clock.setTimer(delayMs, wake),
      };
    });
  }

  #setState(state: ReflectorState, error?: Error): void {
    if (state === this.#state && error === undefined) return;
    this.#state = state;
    this.#options.onStateChange?.(state, error);
  }
}

function isVersionLost(error: unknown): boolean {
  return (
    error instanceof ApiError && (error.kind === 'expired' || error.kind === 'resource_version_too_large')
  );
}

/**
 * Lists all pages, passing each page on as it arrives while the API server works on the next one. At most two pages
 * are in memory. All pages show the store at one version, which is returned.
 *
 * Rejects with the error of a page or of `onPage`. The kind is `expired` if the pages took longer than the API server
 * keeps a version; only a new list fixes that.
 *
 * @param limit maximum objects per page
 * @param labelSelector default: all objects
 */
export async function listPages<T>(
  source: Pick<ResourceClient<T>, 'list' | 'title'>,
  limit: number,
  signal: AbortSignal,
  onPage: (items: readonly T[]) => void,
  labelSelector?: string,
): Promise<string> {
  const failure = new AbortController();
  const combinedSignal = AbortSignal.any([signal, failure.signal]);
  let nextPage: Promise<ListPage<T>> | undefined = source.list({
    limit,
    labelSelector,
    signal: combinedSignal,
  });
  let resourceVersion = '';
  let previousToken: string | undefined;
  try {
    while (nextPage !== undefined) {
      const { items, continueToken, resourceVersion: version }: ListPage<T> = await nextPage;
      if (continueToken !== undefined && continueToken === previousToken) {
        // A cache in between that ignores the query would otherwise cause an endless list.
        throw new ApiError(
          'unexpected_response',
          `list ${source.title}: two consecutive pages with the same continue token`,
        );
      }
      previousToken = continueToken;
      nextPage =
        continueToken === undefined
          ? undefined
          : source.list({ limit, labelSelector, signal: combinedSignal, continueToken });
      // If `onPage` throws, nothing awaits the page already requested.
      nextPage?.catch(() => undefined);
      resourceVersion = version;
      onPage(items);
    }
  } finally {
    failure.abort();
  }
  return resourceVersion;
}
