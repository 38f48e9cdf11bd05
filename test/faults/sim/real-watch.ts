import type { HttpResponse } from '../../../src/k8s/response-handler.ts';
import { createLineSplitter } from '../../../src/k8s/watch-once.ts';
import type { ApiServerObject } from '../../../embedded-api-server/objects.ts';

/** A line of a real watch. */
export interface WatchLine {
  readonly type: string;
  readonly object: ApiServerObject;
  /** The object's version. */
  readonly version: number;
  /** The line as received. */
  readonly text: string;
}

/** A watch of a real API server whose progress is known. */
export interface RealWatch {
  readonly resource: string;
  /** The version of the last event; initially the start version. */
  readonly version: number;
  /** Resolves when the watch is open; rejects when it was rejected. */
  readonly opened: Promise<void>;
  /** Resolves when everything up to a version has been received or the watch has ended. Rejects after 10 s. */
  waitForVersion(version: number): Promise<void>;
  stop(): void;
}

/** Sends a watch request; resolves when the watch ends. */
export type SendWatch = (
  path: string,
  taking: { onOpen: () => void; onChunk: (chunk: Buffer) => void; signal: AbortSignal },
) => Promise<HttpResponse>;

/** A real watch reports a change within milliseconds; this allows for a busy machine. */
const CATCH_UP_DEADLINE_MS = 10_000;
const MAX_LINE_BYTES = 4 * 1024 * 1024;

/** @param handleLine called for each line except bookmarks, whose timing is not deterministic */
export function openRealWatch(
  { resource, path, fromVersion }: { resource: string; path: string; fromVersion: number },
  send: SendWatch,
  handleLine: (line: WatchLine) => void,
): RealWatch {
  const abort = new AbortController();
  const opened = Promise.withResolvers<void>();
  const waiters = new Set<{ readonly version: number; readonly done: () => void }>();
  let version = fromVersion;
  let ended = false;

  function advance(newVersion: number): void {
    version = Math.max(version, newVersion);
    for (const waiter of waiters) if (ended || waiter.version <= version) waiter.done();
  }

  const onChunk = createLineSplitter(MAX_LINE_BYTES, (text) => {
    if (ended) return;
    const { type, object } = JSON.parse(text) as { type: string; object: ApiServerObject };
    const at = Number(object.metadata.resourceVersion);
    if (type === 'BOOKMARK') return;
    handleLine({ type, object, version: at, text });
    if (type === 'ERROR') end();
    else advance(at);
  });

  function end(): void {
    ended = true;
    advance(version);
  }

  send(path, { onOpen: () => opened.resolve(), onChunk, signal: abort.signal }).then(
    ({ status, text }) => {
      end();
      opened.reject(new Error(`watch of ${resource} from ${fromVersion}: ${status} ${text.slice(0, 200)}`));
    },
    (error: unknown) => {
      end();
      opened.reject(error);
    },
  );
  opened.promise.catch(() => undefined);

  return {
    resource,
    get version() {
      return version;
    },
    opened: opened.promise,
    waitForVersion(wantedVersion) {
      if (ended || wantedVersion <= version) return Promise.resolve();
      return new Promise((resolve, reject) => {
        const timeout = setTimeout(() => {
          waiters.delete(waiter);
          reject(
            new Error(`watch of ${resource} from ${fromVersion}: at ${version}, expected ${wantedVersion}`),
          );
        }, CATCH_UP_DEADLINE_MS);
        const waiter = {
          version: wantedVersion,
          done: () => {
            clearTimeout(timeout);
            waiters.delete(waiter);
            resolve();
          },
        };
        waiters.add(waiter);
      });
    },
    stop() {
      end();
      opened.resolve();
      abort.abort();
    },
  };
}
