import type { Clock } from '../clock.ts';
import { compareResourceVersions } from '../core/kubernetes.ts';
import { asError, errorMessage } from '../error-message.ts';
import { ApiError, errorFromStatus, isKubernetesStatus, type KubernetesStatus } from './api-error.ts';
import type { ApiObject, ResourceClient } from './resource-client.ts';

/** Bookmarks arrive every 60 s (measured: 59.8 to 61.2), so a watch that is silent for longer than this is dead. */
const IDLE_TIMEOUT_MS = 90_000;
/** Limit for the silence of a suspected watch: a live one shows this process's own writes within milliseconds. */
const LIVENESS_TIMEOUT_MS = 2_000;
/** etcd accepts objects up to 1.5 MiB, so a longer line is not an event. */
const MAX_LINE_BYTES = 4 * 1024 * 1024;
/** As in client-go; a random addition distributes clients over restarted API servers. */
const MIN_TIMEOUT_SECONDS = 300;

/** A watch delivered neither an event nor a bookmark for 90 s. */
export class WatchIdleError extends Error {
  override readonly name = 'WatchIdleError';
}

/** Receives the events of a watch in order. An error that it throws ends the watch. */
export interface WatchHandler<T> {
  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: T): void;
  /**
   * Called with an object's version before its event is parsed. Returns true if the handler knows that version from
   * the response to its own write. The event is then skipped, which halves the cost of reading one's own writes.
   */
  acknowledgeOwnWrite?(resourceVersion: string): boolean;
  /**
   * The same for a deletion, whose response contains the object's uid and no version. `resourceVersion` is the version of
   * the deletion.
   */
  acknowledgeOwnDeletion?(uid: string, resourceVersion: string): boolean;
}

/** What a watch needs from its environment. */
export interface WatchDependencies<T> {
  readonly source: Pick<ResourceClient<T>, 'watch' | 'title'>;
  readonly handler: WatchHandler<T>;
  readonly clock: Clock;
  /** Returns 0 to below 1. */
  readonly random: () => number;
  readonly onOpen: () => void;
}

/** The result of a watch, and how to continue. */
export interface WatchOutcome {
  /** The last version seen, from which another watch can continue. */
  readonly resourceVersion: string;
  /** True if an event or a bookmark was received. */
  readonly progressed: boolean;
  /** Milliseconds since the start of the watch. */
  readonly durationMs: number;
  /** Undefined if the API server ended the watch normally or it was stopped. */
  readonly error: Error | undefined;
  /** True if another watch cannot deliver the missed changes. */
  readonly relist: boolean;
}

/** A watch in progress. */
export interface RunningWatch {
  /** Resolves when the watch has ended; never rejects. */
  readonly ended: Promise<WatchOutcome>;
  /**
   * Ends the watch as if the API server had closed it, unless data arrives within 2 s; for a watch that may be
   * half-open.
   */
  verifyLiveness(): void;
  /** Ends the watch immediately, without an error. */
  stop(relist: boolean): void;
}

/** A line of the watch before validation. */
interface WatchEvent<T> {
  type?: string;
  object?: T | KubernetesStatus;
}

/**
 * Watches from a version until the watch ends. The cause determines how to continue:
 *
 * | cause | next step |
 * |---|---|
 * | the API server ends the watch: timeout, shutdown, changed CRD | watch again |
 * | no connection, reset, 429, 5xx, 401, 403 | watch again: the API server keeps versions for minutes |
 * | 410, as an event or a status; a version that the store has not reached | list |
 * | a version that goes back; nothing for 90 s | list: etcd may have been restored |
 * | an unreadable line; an error of the handler; an object deleted without being readable | list: an event is missing |
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
    // A single timer for the whole watch: moving it with every chunk would cost more than the chunk.
    if (remainingMs > 0) cancelIdleTimer = clock.setTimer(remainingMs, checkIdle);
    // Another watch would not suffice: a version from before an etcd restore is watched in silence too.
    else stop(new WatchIdleError(`${action}: no event or bookmark for ${IDLE_TIMEOUT_MS / 1000} s`), true);
  }

  /** Advances the version. A version that goes back means that the store is not the one that was watched. */
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
    const ownVersion = versionOfOwnWrite(handler, line);
    if (ownVersion !== undefined) {
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

  /** Delivers an event and adds the object to the handler's error, which does not know it. */
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
      // The API server terminates each event with a line feed and ends watches between events.
      const remainder = lines.remainder();
      if (remainder !== '')
        throw malformedWatch(action, `response ended within a line: ${remainder.slice(0, 80)}`);
    } catch (error) {
      failure = asError(error);
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

/** Returns false if another watch from the same version may succeed. */
function needsRelist(failure: Error | undefined): boolean {
  if (failure === undefined) return false;
  if (!(failure instanceof ApiError)) return true;
  // An object that could not be read anymore was deleted; its deletion event never arrives.
  if (failure.reason === 'StoreReadError') return true;
  switch (failure.kind) {
    case 'throttled':
    case 'unavailable':
    case 'unauthorized':
    case 'cancelled':
      return false;
    case 'unexpected_response':
      // An unexpected page instead of the watch does not mean that events were missed; one within an open watch does.
      return failure.status === undefined;
    case 'rejected':
      // Permissions may be granted again. Any other rejection is caused by the request, in which only the version can
      // change.
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

/** Creates the error of an open stream, which has no status: an event is missing, which requires a list. */
function malformedWatch(action: string, what: string, cause?: unknown): ApiError {
  return new ApiError('unexpected_response', `${action}: ${what}`, { cause });
}

const EVENT_TYPE = /^\{"type":"(ADDED|MODIFIED|DELETED)"/;
/** Fields are in alphabetical order, so these two adjacent fields belong to metadata, and spec follows it. */
const VERSION_AND_UID = /"resourceVersion":"(\d+)","uid":"([^"]+)"\},"spec"/;

/**
 * Returns the version of an event if its handler knows it from the response to its own write; undefined if the event must
 * be parsed.
 */
function versionOfOwnWrite<T>(handler: WatchHandler<T>, line: string): string | undefined {
  if (handler.acknowledgeOwnWrite === undefined && handler.acknowledgeOwnDeletion === undefined)
    return undefined;
  const type = EVENT_TYPE.exec(line)?.[1];
  if (type === undefined) return undefined;
  const [, version, uid] = VERSION_AND_UID.exec(line) ?? [];
  if (version === undefined || uid === undefined) return undefined;
  const isKnown =
    type === 'DELETED'
      ? handler.acknowledgeOwnDeletion?.(uid, version)
      : handler.acknowledgeOwnWrite?.(version);
  return isKnown === true ? version : undefined;
}

/** Block kept between lines; a larger one, allocated for a huge line, is released after it. */
const RETAINED_BLOCK_BYTES = 64 * 1024;

/** A line exceeded the limit, or the stream does not consist of lines. */
export class LineTooLongError extends Error {
  override readonly name = 'LineTooLongError';

  constructor(maxLineBytes: number) {
    super(`line exceeds ${maxLineBytes} bytes`);
  }
}

/** Splits a stream into lines. */
export interface LineSplitter {
  /**
   * Takes the next chunk. Rethrows errors of `onLine` and throws `LineTooLongError`; it must not be used after
   * either.
   */
  (chunk: Buffer): void;
  /** Returns the bytes after the last line feed: empty if the stream ended at the end of a line. */
  remainder(): string;
}

/**
 * Creates a splitter that passes each line of UTF-8 text on as soon as it is complete, without the line feed. Empty
 * lines are skipped. Each byte is copied at most twice, however the stream is divided into chunks, and no chunk is
 * retained: a small remainder would keep the whole read buffer alive.
 */
export function createLineSplitter(maxLineBytes: number, onLine: (line: string) => void): LineSplitter {
  let block = Buffer.allocUnsafe(0);
  let usedBytes = 0;

  function append(chunk: Buffer, start: number, end: number): void {
    const needed = usedBytes + end - start;
    if (needed > maxLineBytes) throw new LineTooLongError(maxLineBytes);
    if (needed > block.length) {
      // Doubling: all copies of the beginning of a line add up to less than the line.
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
