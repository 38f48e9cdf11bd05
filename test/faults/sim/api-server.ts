import type { ApiRequest } from '../../../embedded-api-server/requests.ts';
import * as responses from '../../../embedded-api-server/responses.ts';
import type { ApiResponse } from '../../../embedded-api-server/responses.ts';
import { type ApiChange, type OpenWatch, WatchCache } from '../../../embedded-api-server/watch-cache.ts';
import type { Prng } from './prng.ts';
import type { SimTime } from './time.ts';

/** Executes requests: an in-memory store or a real API server. */
export interface ApiBackend {
  handle(request: ApiRequest): ApiResponse | Promise<ApiResponse>;
  /** The version of this run's last write; in memory the version of the store. */
  readonly version: number;
  /** False while the CRD is not installed. */
  isServed(resource: string): boolean;
  /**
   * Opens a watch of its own. When undefined, changes are passed to `onChange`, which sends them to watches.
   * Bookmarks are sent by `SimApiServer` in either case, at fake times.
   */
  readonly watch?: (
    open: SimWatch,
    line: (text: string, version: number) => void,
  ) => {
    /** Resolves when the watch has sent everything up to the time of the call. */
    readonly ready: Promise<void>;
    stop(): void;
  };
}

/** A watch over the simulated network. */
export interface SimWatch extends OpenWatch {
  /** Path and query, as the client sent them. */
  readonly path: string;
  /** Ends the stream; with an error, the connection breaks. */
  readonly end: (error?: Error) => void;
  cancels: (() => void)[];
}

/** A request that is being processed. */
interface PendingRequest {
  readonly request: ApiRequest;
  readonly atMs: number;
  readonly answer: (answer: ApiResponse | Error) => void;
}

/** More than any run needs; a client that exceeds it is in a loop that would never end. */
export const MAX_REQUESTS = 20_000;
const BOOKMARK_INTERVAL_MS = 60_000;

/**
 * The layer between requests and the store, and between changes and watches: the watch cache and the faults of an
 * API server. It does not know its clients.
 */
export class SimApiServer {
  readonly #time: SimTime;
  readonly #prng: Prng;
  readonly backend: ApiBackend;
  readonly #watchCache: WatchCache<SimWatch>;
  #stalled: PendingRequest[] = [];
  /** True while a real API server executes a request; requests that arrive meanwhile are queued. */
  #busy = false;
  readonly #queue: (() => Promise<void> | undefined)[] = [];
  /** `down`: its port is closed. `hanging`: it accepts requests and does not answer them. */
  mode: 'up' | 'down' | 'hanging' = 'up';
  /** Probability of each failure per request, 0 to 1. */
  readonly rates = { throttled: 0, unavailable: 0, brokenBefore: 0, brokenAfter: 0 };
  /** A mutating admission webhook: returns the request that is executed. */
  admit: ((request: ApiRequest) => ApiRequest) | undefined;
  /** Maximum additional latency of a request. */
  extraLatencyMs = 0;
  /** Number of requests received so far. */
  requests = 0;

  constructor(time: SimTime, prng: Prng, backend: ApiBackend) {
    this.#time = time;
    this.#prng = prng;
    this.backend = backend;
    this.#watchCache = new WatchCache(backend.version);
  }

  /** Sends a change to the watches and adds it to the watch cache. */
  onChange(change: ApiChange): void {
    if (this.backend.watch === undefined) this.#watchCache.onChange(change);
  }

  /** Receives a request. */
  receive(request: ApiRequest, answer: (answer: ApiResponse | Error) => void): void {
    this.requests += 1;
    if (this.requests > MAX_REQUESTS) {
      answer(new Error('read ECONNRESET'));
      return;
    }
    const arrival = { request, atMs: this.#time.nowMs, answer };
    if (this.mode === 'down') answer(new Error('connect ECONNREFUSED'));
    else if (this.mode === 'hanging') this.#stalled.push(arrival);
    else if (this.extraLatencyMs === 0) this.#process(arrival);
    else this.#time.after(this.extraLatencyMs * this.#prng.fraction(), () => this.#process(arrival));
  }

  /** Serves again. Executes the requests that were held back, or answers that their timeout has passed. */
  serve(): void {
    this.mode = 'up';
    for (const arrival of this.#stalled.splice(0)) {
      this.#enqueue(() => {
        const limitMs = Number(/[?&]timeout=(\d+)ms/.exec(arrival.request.path)?.[1] ?? Infinity);
        const isLate = this.#time.nowMs - arrival.atMs > limitMs && this.#prng.chance(0.5);
        if (!isLate) return this.#execute(arrival);
        arrival.answer(responses.timedOut());
        return undefined;
      });
    }
  }

  /** Simulates the end of the process: connections break, and pending requests are lost. */
  close(): void {
    this.mode = 'down';
    for (const { answer } of this.#stalled.splice(0)) answer(new Error('read ECONNRESET'));
    this.endWatches(new Error('read ECONNRESET'));
  }

  /** Simulates a new process, whose watch cache starts at the current version. */
  restart(): void {
    this.clearWatchCache();
    this.serve();
  }

  /** Empties the watch cache; watches from earlier versions are answered 410. */
  clearWatchCache(): void {
    this.#watchCache.clear(this.backend.version);
  }

  /** Ends the watches of one resource or of all; without an error, as if their timeout had passed. */
  endWatches(error?: Error, resource?: string): void {
    for (const watch of this.#watchCache.watches) {
      if (resource !== undefined && watch.resource !== resource) continue;
      this.removeWatch(watch);
      watch.end(error);
    }
  }

  /** Opens a watch; returns a response or an error if it is rejected. */
  watch(watch: SimWatch, timeoutMs: number): ApiResponse | Error | undefined {
    if (this.mode === 'down') return new Error('connect ECONNREFUSED');
    if (!this.backend.isServed(watch.resource)) return responses.NO_KIND_MATCH;
    const failed = this.#injectedFailure();
    if (failed !== undefined) return failed;
    this.#watchCache.add(watch);
    watch.cancels.push(
      this.#time.after(timeoutMs, () => {
        if (!this.#watchCache.watches.has(watch)) return;
        this.removeWatch(watch);
        watch.end();
      }),
    );
    this.#scheduleBookmark(watch);
    return undefined;
  }

  /** Sends the changes since the watch's version. Must be called after the watch has been opened. */
  replay(watch: SimWatch): void {
    if (!this.#watchCache.replay(watch)) {
      this.removeWatch(watch);
      watch.end();
      return;
    }
    const real = this.backend.watch?.(watch, (text, version) => {
      watch.fromVersion = version;
      watch.sendLine(text);
    });
    if (real === undefined) return;
    watch.cancels.push(() => real.stop());
    this.#time.blockOn(real.ready);
  }

  /** Removes a watch; nothing more is sent to it. */
  removeWatch(watch: SimWatch): void {
    this.#watchCache.remove(watch);
    for (const cancel of watch.cancels.splice(0)) cancel();
  }

  #scheduleBookmark(watch: SimWatch): void {
    watch.cancels.push(
      this.#time.after(BOOKMARK_INTERVAL_MS, () => {
        // A real store never goes back, and a list from it can be newer than the version known here.
        const version = Math.max(
          this.backend.version,
          this.backend.watch === undefined ? 0 : watch.fromVersion,
        );
        if (this.mode === 'up') this.#watchCache.sendBookmark(watch, version);
        this.#scheduleBookmark(watch);
      }),
    );
  }

  #process(arrival: PendingRequest): void {
    this.#enqueue(() => this.#execute(arrival));
  }

  /**
   * Executes requests sequentially also when they take real time, so that the random sequence is the same with a
   * real API server.
   */
  #enqueue(work: () => Promise<void> | undefined): void {
    if (this.#busy) {
      this.#queue.push(work);
      return;
    }
    const done = work();
    if (done === undefined) return;
    this.#busy = true;
    const onDone = (): void => {
      this.#busy = false;
      while (!this.#busy && this.#queue.length > 0) this.#enqueue(this.#queue.shift() ?? (() => undefined));
    };
    this.#time.blockOn(done.then(onDone));
  }

  #execute({ request, answer }: PendingRequest): Promise<void> | undefined {
    const failed = this.#injectedFailure();
    if (failed !== undefined) {
      answer(failed);
      return undefined;
    }
    const lost = this.#prng.chance(this.rates.brokenAfter);
    const done = this.backend.handle(this.admit?.(request) ?? request);
    const respondWith = (response: ApiResponse): void =>
      answer(lost ? new Error('read ECONNRESET') : response);
    if (done instanceof Promise) return done.then(respondWith);
    respondWith(done);
    return undefined;
  }

  #injectedFailure(): ApiResponse | Error | undefined {
    const { throttled, unavailable, brokenBefore } = this.rates;
    if (throttled + unavailable + brokenBefore === 0) return undefined;
    const draw = this.#prng.fraction();
    if (draw < throttled) return responses.TOO_MANY_REQUESTS;
    if (draw < throttled + unavailable) return responses.unavailable();
    return draw < throttled + unavailable + brokenBefore ? new Error('read ECONNRESET') : undefined;
  }
}
