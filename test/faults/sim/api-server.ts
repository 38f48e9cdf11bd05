import * as responses from './api-responses.ts';
import type { ApiResponse } from './api-responses.ts';
import type { ApiChange, ApiRequest } from './api-objects.ts';
import type { Prng } from './prng.ts';
import type { SimTime } from './time.ts';

/** What carries out a request: a store in memory, or a real API server. */
export interface ApiBackend {
  handle(request: ApiRequest): ApiResponse | Promise<ApiResponse>;
  /** The version of the last write of this world; in memory that of the store. */
  readonly version: number;
  /** False while a kind is not served. */
  isServed(resource: string): boolean;
  /**
   * Opens a watch of its own; undefined: what changes is told to `changed`, and shown from there. Bookmarks come from the
   * fake time in front of it either way.
   */
  readonly watch?: (
    open: OpenWatch,
    line: (text: string, version: number) => void,
  ) => {
    /** It has shown everything that has happened until now. */
    readonly ready: Promise<void>;
    stop(): void;
  };
}

/** A watch as the server sees it. */
export interface OpenWatch {
  readonly resource: string;
  /** Path and query, as the client sent them. */
  readonly path: string;
  /** Only newer versions are shown. */
  fromVersion: number;
  /** One line of the stream, without its end. */
  readonly sendLine: (text: string) => void;
  /** The server ends the stream; with an error the connection broke. */
  readonly end: (error?: Error) => void;
  cancels: (() => void)[];
}

/** A request that is on its way through the server. */
interface PendingRequest {
  readonly request: ApiRequest;
  readonly atMs: number;
  readonly answer: (answer: ApiResponse | Error) => void;
}

/** More than any course takes: whoever sends so many is in a loop, and would never come to the end of it. */
export const MAX_REQUESTS = 20_000;
const BOOKMARK_INTERVAL_MS = 60_000;
/** Changes that the watch cache keeps. */
const MAX_CACHED_CHANGES = 4096;

/**
 * What stands between a request and the store, and between a change and who watches: the faults of an API server, and its
 * watch cache. It knows nothing of who its clients are.
 */
export class SimApiServer {
  readonly #time: SimTime;
  readonly #dice: Prng;
  readonly backend: ApiBackend;
  readonly #watches = new Set<OpenWatch>();
  #changes: ApiChange[] = [];
  /** Watches from before this are told 410. */
  #oldestVersion = 0;
  #stalled: PendingRequest[] = [];
  /** A real API server carries a request out; what comes meanwhile waits. */
  #busy = false;
  readonly #queue: (() => Promise<void> | undefined)[] = [];
  /** `refusing`: its port is closed. `hanging`: it takes requests, and does nothing. */
  mode: 'up' | 'refusing' | 'hanging' = 'up';
  /** Parts of the requests that fare so, 0 to 1. */
  readonly rates = { throttled: 0, unavailable: 0, brokenBefore: 0, brokenAfter: 0 };
  /** What each request takes beside its way. */
  extraLatencyMs = 0;
  /** Requests that arrived, and those of them that were answered with an injected failure. */
  requests = 0;

  constructor(time: SimTime, prng: Prng, backend: ApiBackend) {
    this.#time = time;
    this.#dice = prng;
    this.backend = backend;
    this.#oldestVersion = backend.version;
  }

  get watchCount(): number {
    return this.#watches.size;
  }

  /** Shows a change to who watches, and keeps it for who comes back. */
  onChange(change: ApiChange): void {
    if (this.backend.watch !== undefined) return;
    this.#changes.push(change);
    if (this.#changes.length > MAX_CACHED_CHANGES) {
      const [oldest] = this.#changes.splice(0, MAX_CACHED_CHANGES / 2);
      this.#oldestVersion = Math.max(this.#oldestVersion, oldest?.version ?? 0);
    }
    for (const watch of this.#watches) this.#sendChange(watch, change);
  }

  /** A request has come. */
  receive(request: ApiRequest, answer: (answer: ApiResponse | Error) => void): void {
    this.requests += 1;
    if (this.requests > MAX_REQUESTS) {
      answer(new Error('read ECONNRESET'));
      return;
    }
    const arrival = { request, atMs: this.#time.nowMs, answer };
    if (this.mode === 'refusing') answer(new Error('connect ECONNREFUSED'));
    else if (this.mode === 'hanging') this.#stalled.push(arrival);
    else if (this.extraLatencyMs === 0) this.#process(arrival);
    else this.#time.after(this.extraLatencyMs * this.#dice.fraction(), () => this.#process(arrival));
  }

  /** From now on it serves again. What waited is carried out now, however late; or given up by the deadline that it came with. */
  serve(): void {
    this.mode = 'up';
    for (const arrival of this.#stalled.splice(0)) {
      this.#enqueue(() => {
        const limitMs = Number(/[?&]timeout=(\d+)ms/.exec(arrival.request.path)?.[1] ?? Infinity);
        const isLate = this.#time.nowMs - arrival.atMs > limitMs && this.#dice.chance(0.5);
        if (!isLate) return this.#execute(arrival);
        arrival.answer(responses.timedOut());
        return undefined;
      });
    }
  }

  /** Its process ends: connections break, and what waited is lost. */
  close(): void {
    this.mode = 'refusing';
    for (const { answer } of this.#stalled.splice(0)) answer(new Error('read ECONNRESET'));
    this.endWatches(new Error('read ECONNRESET'));
  }

  /** Its process begins anew: the watch cache begins at what is stored now. */
  restart(): void {
    this.clearWatchCache();
    this.serve();
  }

  /** Versions from before now cannot be watched from. */
  clearWatchCache(): void {
    this.#changes = [];
    this.#oldestVersion = this.backend.version;
  }

  /** Ends watches, of one resource or all; without an error as when their time is over. */
  endWatches(error?: Error, resource?: string): void {
    for (const watch of this.#watches) {
      if (resource !== undefined && watch.resource !== resource) continue;
      this.removeWatch(watch);
      watch.end(error);
    }
  }

  /** Opens a watch, or answers why not. */
  watch(watch: OpenWatch, timeoutMs: number): ApiResponse | Error | undefined {
    if (this.mode === 'refusing') return new Error('connect ECONNREFUSED');
    if (!this.backend.isServed(watch.resource)) return responses.NO_KIND_MATCH;
    const failed = this.#injectedFailure();
    if (failed !== undefined) return failed;
    this.#watches.add(watch);
    watch.cancels.push(
      this.#time.after(timeoutMs, () => {
        if (this.#watches.has(watch)) {
          this.removeWatch(watch);
          watch.end();
        }
      }),
    );
    this.#scheduleBookmark(watch);
    return undefined;
  }

  /** What happened since its version, to be called when it is open. */
  replay(watch: OpenWatch): void {
    const { fromVersion } = watch;
    if (fromVersion < this.#oldestVersion) {
      const { text } = responses.expired(`too old resource version: ${fromVersion} (${this.#oldestVersion})`);
      watch.sendLine(`{"type":"ERROR","object":${text}}`);
      this.removeWatch(watch);
      watch.end();
      return;
    }
    const real = this.backend.watch?.(watch, (text, version) => {
      watch.fromVersion = version;
      watch.sendLine(text);
    });
    if (real !== undefined) {
      watch.cancels.push(() => real.stop());
      this.#time.blockOn(real.ready);
    }
    for (const change of this.#changes) this.#sendChange(watch, change);
  }

  /** Nothing more is sent to it. */
  removeWatch(watch: OpenWatch): void {
    this.#watches.delete(watch);
    for (const cancel of watch.cancels.splice(0)) cancel();
  }

  #sendChange(watch: OpenWatch, change: ApiChange): void {
    if (watch.resource !== change.resource || change.version <= watch.fromVersion) return;
    watch.fromVersion = change.version;
    watch.sendLine(`{"type":"${change.type}","object":${change.text}}`);
  }

  #scheduleBookmark(watch: OpenWatch): void {
    watch.cancels.push(
      this.#time.after(BOOKMARK_INTERVAL_MS, () => {
        // A real store never goes back, and a list of it may be newer than what is known of it here.
        const version = Math.max(
          this.backend.version,
          this.backend.watch === undefined ? 0 : watch.fromVersion,
        );
        // Of a version that is not there yet nothing is said.
        if (this.mode === 'up' && version >= watch.fromVersion) {
          watch.fromVersion = version;
          watch.sendLine(`{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"${version}"}}}`);
        }
        this.#scheduleBookmark(watch);
      }),
    );
  }

  #process(arrival: PendingRequest): void {
    this.#enqueue(() => this.#execute(arrival));
  }

  /** One after the other also where it takes real time, so that chance falls as it does where it takes none. */
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
    const lost = this.#dice.chance(this.rates.brokenAfter);
    const done = this.backend.handle(request);
    const respondWith = (response: ApiResponse): void =>
      answer(lost ? new Error('read ECONNRESET') : response);
    if (done instanceof Promise) return done.then(respondWith);
    respondWith(done);
    return undefined;
  }

  #injectedFailure(): ApiResponse | Error | undefined {
    const { throttled, unavailable, brokenBefore } = this.rates;
    if (throttled + unavailable + brokenBefore === 0) return undefined;
    const draw = this.#dice.fraction();
    if (draw < throttled) return responses.TOO_MANY_REQUESTS;
    if (draw < throttled + unavailable) return responses.unavailable();
    return draw < throttled + unavailable + brokenBefore ? new Error('read ECONNRESET') : undefined;
  }
}
