import { backoffDelayMs, type Backoff } from '../backoff.ts';
import type { Clock } from '../clock.ts';
import { errorMessage } from '../error-message.ts';
import { ApiError } from './api-error.ts';
import type { ApiObject, ResourceClient, ListPage } from './resource-client.ts';
import { createFaultLog, type FaultLog, type ReflectorLog } from './reflector-log.ts';
import { watchOnce, type RunningWatch, type WatchHandler, type WatchOutcome } from './watch-once.ts';

/** Measured: 10,000 rows take 0.7-1.6 s by 2,000, 1.9-2.3 s by 500; and 2,000 rows are 2 MB of JSON at a time. */
const DEFAULT_PAGE_LIMIT = 2_000;
/** An API server that comes back is found within 5 s, so that what happened meanwhile shows within 10 s. */
const BACKOFF: Backoff = { initialMs: 100, maxMs: 5_000 };
/** A watch that ended sooner, without anything having come, is a failure; client-go's very short watch. */
const SHORT_WATCH_MS = 1_000;
/** A watch that stood this long, or brought something, ends a row of failures. */
const STABLE_WATCH_MS = 5_000;
/** Watches in a row that may fail with 500 before the list is tried instead. */
const MAX_INTERNAL_ERRORS = 5;
/** So often a page that expired is doubled: 32,000 objects by default, which an answer may still hold. */
const MAX_PAGE_GROWTH = 16;
/** Between tries that were hastened. */
const MIN_RETRY_MS = 1_000;

/**
 * Takes what a reflector sees. What it throws is logged, and everything is listed again.
 *
 * A list comes as `replaceBegin`, every object, `replaceEnd`; what was known and is not among them is gone then, and not
 * before: a list may break off, and is followed by another `replaceBegin`. So nothing may be dropped before
 * `replaceEnd`, and what an unfinished list brought may stay, for the API server did show it. The first request is sent
 * after `replaceBegin` returns: the list shows every write answered before, and it may or may not show those after.
 */
export interface ReflectorHandler<T> extends WatchHandler<T> {
  replaceBegin(): void;
  /** An object of the list, to be taken whatever version is known: etcd may have been restored. */
  replaceItem(object: T): void;
  /** The list is complete. @param version the store's at the moment that it shows */
  replaceEnd(version: string): void;
}

/**
 * - `listing`: everything is being read.
 * - `synced`: a list was handed over whole; the watch is not open yet.
 * - `watching`: changes come as they happen.
 * - `broken`: the last try failed, and another comes by itself.
 */
export type ReflectorState = 'listing' | 'synced' | 'watching' | 'broken';

/** What a reflector needs to be told. */
export interface ReflectorOptions<T extends ApiObject> {
  readonly source: Pick<ResourceClient<T>, 'list' | 'watch' | 'title'>;
  readonly handler: ReflectorHandler<T>;
  readonly clock: Clock;
  /** 0 to below 1; for jitter. */
  readonly random: () => number;
  readonly log: ReflectorLog;
  /** Called at each change of state, with the failure for `broken`. */
  readonly onStateChange?: (state: ReflectorState, error?: Error) => void;
  /** Most objects a page of the list. Default 2,000. */
  readonly pageLimit?: number;
}

/**
 * Keeps a handler's picture of a resource equal to the API server's: lists, then watches from the list's version, for
 * ever. On the model of client-go's Reflector; each of its cases that applies is a test by its name.
 */
export class Reflector<T extends ApiObject> {
  readonly #options: ReflectorOptions<T>;
  readonly #faultLog: FaultLog;
  #state: ReflectorState | undefined;
  #synced = false;
  /** Undefined: everything has to be listed. */
  #resourceVersion: string | undefined;
  /** `relist` was called while a list was under way: that one may show what was before the sign. */
  #relistRequested = false;
  #pageLimit: number;
  /** Tries in a row that failed. */
  #failures = 0;
  #internalErrors = 0;
  /** Everything was listed at once as a version was lost, and no watch has stood since: another loss is a fault. */
  #versionLost = false;
  #watch: RunningWatch | undefined;
  #pendingRetry: { readonly wake: () => void; dueMs: number; cancelTimer: () => void } | undefined;
  #lastAttemptMs = 0;

  constructor(options: ReflectorOptions<T>) {
    this.#options = options;
    this.#pageLimit = options.pageLimit ?? DEFAULT_PAGE_LIMIT;
    this.#faultLog = createFaultLog(options.source.title, options.log, options.clock);
  }

  /** True once a list was handed over whole; stays true when the API server goes away. */
  get hasSynced(): boolean {
    return this.#synced;
  }

  /** Runs until `signal` is aborted, whatever happens; then resolves. To be called once. */
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
   * There is a sign that the API server is there again, or that the connection to it was lost: a write succeeded after
   * failures, or failed for want of a connection. A try that is being waited for comes within a second; an open watch on
   * which nothing comes within 2 s is opened anew, as that of an API server being stopped stays open for a minute. Cheap:
   * may be called for every such write.
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
   * There is a sign that what the watch showed is not what is stored: everything is listed again, at once, or when the list
   * that is under way is complete.
   */
  relist(): void {
    this.#relistRequested = true;
    this.#resourceVersion = undefined;
    this.#watch?.stop(true);
    this.#pendingRetry?.wake();
  }

  /** Lists everything; how long to rest then. */
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
      // The version was compacted away between two pages: with fewer of them the list gets there in the end.
      if (error instanceof ApiError && error.kind === 'expired') {
        const maxLimit = (this.#options.pageLimit ?? DEFAULT_PAGE_LIMIT) * MAX_PAGE_GROWTH;
        this.#pageLimit = Math.min(this.#pageLimit * 2, maxLimit);
      }
      return signal.aborted ? 0 : this.#onFailure(error);
    }
    this.#pageLimit = this.#options.pageLimit ?? DEFAULT_PAGE_LIMIT;
    this.#synced = true;
    this.#setState('synced');
    const durationMs = Math.round(clock.monotonicMs() - startedMs);
    log.info({ resource: source.title, count, durationMs }, `list ${source.title}: ${count} objects`);
    return 0;
  }

  /** Watches until that ends; how long to rest then. */
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

  /** Where to go on, and after how many milliseconds. */
  #afterWatch(outcome: WatchOutcome): number {
    const { error, progressed, durationMs } = outcome;
    if (progressed || durationMs >= STABLE_WATCH_MS) {
      this.#failures = 0;
      this.#internalErrors = 0;
      this.#versionLost = false;
    }
    this.#internalErrors += error instanceof ApiError && error.status === 500 ? 1 : 0;
    const relist = outcome.relist || this.#internalErrors >= MAX_INTERNAL_ERRORS;
    if (relist) this.#internalErrors = 0;
    // `relist` may have been called meanwhile.
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

  /** Says so, and how long to wait. */
  #onFailure(error: unknown): number {
    const { random, log, source } = this.#options;
    this.#failures += 1;
    // A watch that outlived its version, as in an outage, is no fault. It is one if the list that follows does not cure it.
    if (isVersionLost(error) && !this.#versionLost) {
      this.#versionLost = true;
      log.info(
        { resource: source.title, error: errorMessage(error), retry: 'now' },
        'watch expired; relisting',
      );
      return 0;
    }
    const failure = error instanceof Error ? error : new Error(errorMessage(error));
    const ownDelayMs = backoffDelayMs(BACKOFF, this.#failures, random());
    const retryAfterMs = failure instanceof ApiError ? failure.retryAfterMs : undefined;
    // A server that answers knows best, whatever was before; never sooner, and not all replicas at the same moment.
    const delayMs =
      retryAfterMs === undefined || retryAfterMs === 0 ? ownDelayMs : retryAfterMs * (1 + random() / 4);
    this.#faultLog.logFailure(failure, delayMs);
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
 * Lists everything page by page and hands over each page as it comes; the API server works on the next one meanwhile.
 * Two pages are held at most, however long the list is. All pages show the store at one version, which is returned.
 *
 * Rejects with what a page or `onPage` failed with; `expired` when the pages took longer than the API server keeps a
 * version, which only a new list cures.
 *
 * @param limit most items a page
 */
export async function listPages<T>(
  source: Pick<ResourceClient<T>, 'list' | 'title'>,
  limit: number,
  signal: AbortSignal,
  onPage: (items: readonly T[]) => void,
): Promise<string> {
  const failure = new AbortController();
  const combinedSignal = AbortSignal.any([signal, failure.signal]);
  let nextPage: Promise<ListPage<T>> | undefined = source.list({ limit, signal: combinedSignal });
  let resourceVersion = '';
  let previousToken: string | undefined;
  try {
    while (nextPage !== undefined) {
      const { items, continueToken, resourceVersion: version }: ListPage<T> = await nextPage;
      if (continueToken !== undefined && continueToken === previousToken) {
        // A cache on the way that takes no heed of the query would else have it go on for ever.
        throw new ApiError(
          'unexpected_response',
          `list ${source.title}: two consecutive pages with the same continue token`,
        );
      }
      previousToken = continueToken;
      nextPage =
        continueToken === undefined
          ? undefined
          : source.list({ limit, signal: combinedSignal, continueToken });
      // Should `onPage` throw, nobody awaits the page already asked for.
      nextPage?.catch(() => undefined);
      resourceVersion = version;
      onPage(items);
    }
  } finally {
    failure.abort();
  }
  return resourceVersion;
}
