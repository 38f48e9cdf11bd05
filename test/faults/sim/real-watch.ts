import type { HttpResponse } from '../../../src/k8s/response-handler.ts';
import { createLineSplitter } from '../../../src/k8s/watch-once.ts';
import type { ApiServerObject } from './api-objects.ts';

/** One line of a real watch. */
export interface WatchLine {
  readonly type: string;
  readonly object: ApiServerObject;
  /** The object's version. */
  readonly version: number;
  /** The line as it came. */
  readonly text: string;
}

/** A watch of a real API server, of which fake time has to know how far it has come. */
export interface RealWatch {
  readonly resource: string;
  /** Of the last change that it showed; in the beginning the version that it is from. */
  readonly version: number;
  /** It is open; rejects when it was refused. */
  readonly opened: Promise<void>;
  /** It has shown everything up to a version, or is over. Rejects when that takes too long. */
  waitForVersion(version: number): Promise<void>;
  stop(): void;
}

/** Sends one request for a watch; resolves at its end. */
export type SendWatch = (
  path: string,
  taking: { onOpen: () => void; onChunk: (chunk: Buffer) => void; signal: AbortSignal },
) => Promise<HttpResponse>;

/** A real watch shows a change within milliseconds; a busy machine is given more. */
const CATCH_UP_DEADLINE_MS = 10_000;
const MAX_LINE_BYTES = 4 * 1024 * 1024;

/** @param handleLine told of each line but bookmarks, whose time is the real one */
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
            new Error(
              `watch of ${resource} from ${fromVersion} is at ${version}, and never came to ${wantedVersion}`,
            ),
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
