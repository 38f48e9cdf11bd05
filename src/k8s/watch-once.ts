import type { Clock } from '../clock.ts';
import { compareResourceVersions } from '../core/resource-version.ts';
import { errorMessage } from '../error-message.ts';
import { ApiError, errorFromStatus, isKubernetesStatus, type KubernetesStatus } from './api-error.ts';
import type { ApiObject, ResourceClient } from './resource-client.ts';

/** Bookmarks come every 60 s (59.8 to 61.2 were seen), so a watch that is silent for longer than this is dead. */
const IDLE_TIMEOUT_MS = 90_000;
/** How long a watch under suspicion may stay silent: an own write shows on a live one within milliseconds. */
const LIVENESS_TIMEOUT_MS = 2_000;
/** etcd takes objects up to 1.5 MiB; a longer line is no event. */
const MAX_LINE_BYTES = 4 * 1024 * 1024;
/** client-go's: a random part more spreads clients over API servers that come back. */
const MIN_TIMEOUT_SECONDS = 300;

/** Takes what a watch shows, in order. What it throws ends the watch. */
export interface WatchHandler<T> {
  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: T): void;
  /**
   * Asked for an object's version before its event is read: true when the handler knows that version already, from the
   * answer to an own write. The event is then skipped, which saves half of what reading one's own writes costs.
   */
  acknowledgeOwnWrite?(resourceVersion: string): boolean;
}

/** What a watch works with. */
export interface WatchDependencies<T> {
  readonly source: Pick<ResourceClient<T>, 'watch' | 'title'>;
  readonly handler: WatchHandler<T>;
  readonly clock: Clock;
  /** 0 to below 1. */
  readonly random: () => number;
  readonly onOpen: () => void;
}

/** How a watch ended, and what to do about it. */
export interface WatchOutcome {
  /** The last version seen: a new watch goes on from it. */
  readonly resourceVersion: string;
  /** True when something came: an event or a bookmark. */
  readonly progressed: boolean;
  /** From its start, in milliseconds. */
  readonly durationMs: number;
  /** Undefined when the API server ended it as it should, or it was stopped. */
  readonly error: Error | undefined;
  /** True when the versions in between cannot be had by another watch. */
  readonly relist: boolean;
}

/** A watch under way. */
export interface RunningWatch {
  /** Resolves when the watch has ended; never rejects. */
  readonly ended: Promise<WatchOutcome>;
  /** Ends it soon, as by the API server, unless something comes: for when there is reason to think it half-open. */
  verifyLiveness(): void;
  /** Ends it at once, without error. */
  stop(relist: boolean): void;
}

/** A line of the watch, as far as it is believed before it is looked at. */
interface WatchEvent<T> {
  type?: string;
  object?: T | KubernetesStatus;
}

/**
 * Watches from a version on, until the watch ends for whatever reason. What follows from each end:
 *
 * | end | then |
 * |---|---|
 * | by the API server: its time was over, it stops, the CRD was changed | watch again |
 * | no connection, reset, 429, 5xx, 401, 403 | watch again: the API server keeps versions for minutes |
 * | 410, as an event or a status; a version ahead of the store | list |
 * | a version that goes back; nothing for 90 s | list: etcd may have been restored |
 * | a line that cannot be read; the handler threw; an object deleted unread | list: something is missing now |
 */
export function watchOnce<T extends ApiObject>(
  resourceVersion: string,
  { source, handler, clock, random, onOpen }: WatchDependencies<T>,
): RunningWatch {
  const action = `watch ${source.title}`;
  const abort = new AbortController();
  const startedMs = clock.monotonicMs();
  let lastByteMs = startedMs;
  let version = resourceVersion;
  let progressed = false;
  let stopped: { error: Error | undefined; relist: boolean } | undefined;
  let cancelLivenessCheck: (() => void) | undefined;

  function stop(error: Error | undefined, relist: boolean): void {
    stopped ??= { error, relist };
    abort.abort();
  }

  let cancelIdleTimer = clock.setTimer(IDLE_TIMEOUT_MS, checkIdle);
  function checkIdle(): void {
    const remainingMs = lastByteMs + IDLE_TIMEOUT_MS - clock.monotonicMs();
    // One timer for the whole watch: moving it with every chunk would cost more than the chunk.
    if (remainingMs > 0) cancelIdleTimer = clock.setTimer(remainingMs, checkIdle);
    // Not only a new watch: a version from before a restored etcd is watched in silence, too.
    else stop(new Error(`${action}: no event or bookmark for ${IDLE_TIMEOUT_MS / 1000} s`), true);
  }

  /** What came counts as seen only in order: a version that goes back is another store than the one that was watched. */
  function advance(to: string | undefined, what: string): void {
    if (typeof to !== 'string' || to === '') throw new Error(`${action}: ${what} without resourceVersion`);
    if (compareResourceVersions(to, version) < 0) {
      throw new Error(
        `${action}: ${what} goes back from resourceVersion ${version} to ${to} (etcd restored?)`,
      );
    }
    version = to;
    progressed = true;
  }

  function processLine(line: string): void {
    const ownVersion = handler.acknowledgeOwnWrite === undefined ? undefined : versionFromChange(line);
    if (ownVersion !== undefined && handler.acknowledgeOwnWrite?.(ownVersion) === true) {
      advance(ownVersion, 'own write');
      return;
    }
    const { type, object } = parseEvent<T>(action, line);
    switch (type) {
      case 'ADDED':
      case 'MODIFIED':
      case 'DELETED': {
        if (isKubernetesStatus(object)) throw new Error(`${action}: ${type} event with a Status`);
        advance(object?.metadata?.resourceVersion, type);
        if (object !== undefined) deliver(type, object);
        return;
      }
      case 'BOOKMARK':
        advance(isKubernetesStatus(object) ? undefined : object?.metadata?.resourceVersion, type);
        return;
      case 'ERROR':
        throw isKubernetesStatus(object)
          ? errorFromStatus(action, object)
          : new Error(`${action}: ERROR event without Status`);
      default:
        throw new Error(`${action}: event of unknown type ${String(type).slice(0, 40)}`);
    }
  }

  /** An error of the handler says at which object, for its own message cannot know. */
  function deliver(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: T): void {
    try {
      handler.event(type, object);
    } catch (error) {
      const message = `${action}: cannot process ${type} ${object.metadata.name}: ${errorMessage(error)}`;
      throw new Error(message, { cause: error });
    }
  }

  const lines = createLineSplitter(MAX_LINE_BYTES, processLine);

  async function run(): Promise<WatchOutcome> {
    let failure: Error | undefined;
    try {
      await source.watch(
        {
          resourceVersion,
          timeoutSeconds: Math.round(MIN_TIMEOUT_SECONDS * (1 + random())),
          signal: abort.signal,
        },
        {
          onOpen: onOpen,
          onChunk(chunk) {
            lastByteMs = clock.monotonicMs();
            lines(chunk);
          },
        },
      );
      // The API server ends each event by a line feed, and its watches between events.
      const remainder = lines.remainder();
      if (remainder !== '')
        throw malformedWatch(action, `response ended within a line: ${remainder.slice(0, 80)}`);
    } catch (error) {
      failure = error instanceof Error ? error : new Error(errorMessage(error));
      if (error instanceof LineTooLongError) failure = malformedWatch(action, error.message, error);
    } finally {
      cancelIdleTimer();
      cancelLivenessCheck?.();
    }
    const { error, relist } = stopped ?? { error: failure, relist: needsRelist(failure) };
    return {
      resourceVersion: version,
      progressed,
      durationMs: clock.monotonicMs() - startedMs,
      error,
      relist,
    };
  }

  return {
    ended: run(),
    verifyLiveness() {
      if (cancelLivenessCheck !== undefined) return;
      const sinceMs = clock.monotonicMs();
      cancelLivenessCheck = clock.setTimer(LIVENESS_TIMEOUT_MS, () => {
        cancelLivenessCheck = undefined;
        if (lastByteMs <= sinceMs) stop(undefined, false);
      });
    },
    stop: (relist) => stop(undefined, relist),
  };
}

/** False when another watch from the same version may well do what this one did not. */
function needsRelist(failure: Error | undefined): boolean {
  if (failure === undefined) return false;
  if (!(failure instanceof ApiError)) return true;
  // An object was deleted that could not be read any more: its deletion is an event that never comes.
  if (failure.reason === 'StoreReadError') return true;
  switch (failure.kind) {
    case 'throttled':
    case 'unavailable':
    case 'unauthorized':
    case 'cancelled':
      return false;
    case 'unexpected_response':
      // A page in place of the watch says nothing of what was missed; in the middle of an open one it does.
      return failure.status === undefined;
    case 'rejected':
      // Rights come back; anything else was in the request, of which only the version can change.
      return failure.status !== 403;
    case 'expired':
    case 'resource_version_too_large':
    case 'no_kind_match':
    case 'namespace_not_found':
    case 'terminating':
    case 'not_found':
    case 'conflict':
    case 'already_exists':
      return true;
  }
}

function parseEvent<T>(action: string, line: string): WatchEvent<T> {
  let event: WatchEvent<T> | null;
  try {
    event = JSON.parse(line);
  } catch (error) {
    throw malformedWatch(action, `line is not JSON: ${line.slice(0, 80)}`, error);
  }
  if (typeof event !== 'object' || event === null) throw new Error(`${action}: line is not a watch event`);
  return event;
}

/** Of an open stream, so without a status: what it should have brought is missing, which takes a list. */
function malformedWatch(action: string, what: string, cause?: unknown): ApiError {
  return new ApiError('unexpected_response', `${action}: ${what}`, { cause });
}

const CHANGE_EVENT = /^\{"type":"(?:ADDED|MODIFIED)"/;
/** Fields stand in the order of the alphabet, so these two behind one another are metadata's, and spec follows it. */
const VERSION_AND_UID = /"resourceVersion":"(\d+)","uid":"[^"]+"\},"spec"/;

/** The version of an object that was added or changed, without reading the whole event; undefined when it takes that. */
function versionFromChange(line: string): string | undefined {
  return CHANGE_EVENT.test(line) ? VERSION_AND_UID.exec(line)?.[1] : undefined;
}

/** Room kept between lines; a larger block, taken for one huge line, is given back after it. */
const RETAINED_BLOCK_BYTES = 64 * 1024;

/** A line was longer than the limit, or the stream is no stream of lines at all. */
export class LineTooLongError extends Error {
  override readonly name = 'LineTooLongError';

  constructor(maxLineBytes: number) {
    super(`line exceeds ${maxLineBytes} bytes`);
  }
}

/** Takes a stream apart. */
export interface LineSplitter {
  /** The next piece. What `onLine` throws comes through, as does `LineTooLongError`; it is of no more use after either. */
  (chunk: Buffer): void;
  /** What came after the last line feed: empty when the stream may end here. */
  remainder(): string;
}

/**
 * Cuts a stream of chunks into lines of UTF-8 text and hands over each as soon as its end has come, without the line
 * feed; empty lines are left out. Each byte is copied at most twice however the stream is cut, and no chunk is held
 * on to: a small rest would keep the whole read buffer alive.
 */
export function createLineSplitter(maxLineBytes: number, onLine: (line: string) => void): LineSplitter {
  let block = Buffer.allocUnsafe(0);
  let usedBytes = 0;

  function append(chunk: Buffer, start: number, end: number): void {
    const needed = usedBytes + end - start;
    if (needed > maxLineBytes) throw new LineTooLongError(maxLineBytes);
    if (needed > block.length) {
      // Doubling: the copies of one line's beginning add up to less than the line.
      const larger = Buffer.allocUnsafe(Math.max(RETAINED_BLOCK_BYTES, 2 ** Math.ceil(Math.log2(needed))));
      block.copy(larger, 0, 0, usedBytes);
      block = larger;
    }
    chunk.copy(block, usedBytes, start, end);
    usedBytes = needed;
  }

  function takeBuffered(): string {
    const line = block.toString('utf8', 0, usedBytes);
    usedBytes = 0;
    if (block.length > RETAINED_BLOCK_BYTES) block = Buffer.allocUnsafe(0);
    return line;
  }

  const push = (chunk: Buffer): void => {
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end !== -1; end = chunk.indexOf(0x0a, start)) {
      if (usedBytes === 0) {
        if (end - start > maxLineBytes) throw new LineTooLongError(maxLineBytes);
        if (end > start) onLine(chunk.toString('utf8', start, end));
      } else {
        append(chunk, start, end);
        onLine(takeBuffered());
      }
      start = end + 1;
    }
    if (start < chunk.length) append(chunk, start, chunk.length);
  };
  return Object.assign(push, { remainder: () => block.toString('utf8', 0, usedBytes) });
}
