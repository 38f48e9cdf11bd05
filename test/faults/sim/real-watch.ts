import type { HttpAnswer } from '../../../src/k8s/exchange.ts';
import { createLineSplitter } from '../../../src/k8s/line-splitter.ts';
import type { ApiObjectShown } from './api-objects.ts';

/** One line of a real watch. */
export interface WatchLine {
  readonly type: string;
  readonly object: ApiObjectShown;
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
  shown(version: number): Promise<void>;
  stop(): void;
}

/** Sends one request for a watch; resolves at its end. */
export type SendWatch = (
  path: string,
  taking: { onOpen: () => void; onChunk: (chunk: Buffer) => void; signal: AbortSignal },
) => Promise<HttpAnswer>;

/** A real watch shows a change within milliseconds; a busy machine is given more. */
const SHOWN_WITHIN_MS = 10_000;
const MAX_LINE_BYTES = 4 * 1024 * 1024;

/** @param take told of each line but bookmarks, whose time is the real one */
export function openRealWatch(
  { resource, path, fromVersion }: { resource: string; path: string; fromVersion: number },
  send: SendWatch,
  take: (line: WatchLine) => void,
): RealWatch {
  const abort = new AbortController();
  const opened = Promise.withResolvers<void>();
  const waiting = new Set<{ readonly version: number; readonly done: () => void }>();
  let version = fromVersion;
  let over = false;

  function come(to: number): void {
    version = Math.max(version, to);
    for (const wait of waiting) if (over || wait.version <= version) wait.done();
  }

  const onChunk = createLineSplitter(MAX_LINE_BYTES, (text) => {
    if (over) return;
    const { type, object } = JSON.parse(text) as { type: string; object: ApiObjectShown };
    const at = Number(object.metadata.resourceVersion);
    if (type === 'BOOKMARK') return;
    take({ type, object, version: at, text });
    if (type === 'ERROR') end();
    else come(at);
  });

  function end(): void {
    over = true;
    come(version);
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
    shown(wanted) {
      if (over || wanted <= version) return Promise.resolve();
      return new Promise((resolve, reject) => {
        const late = setTimeout(() => {
          waiting.delete(wait);
          reject(
            new Error(
              `watch of ${resource} from ${fromVersion} is at ${version}, and never came to ${wanted}`,
            ),
          );
        }, SHOWN_WITHIN_MS);
        const wait = {
          version: wanted,
          done: () => {
            clearTimeout(late);
            waiting.delete(wait);
            resolve();
          },
        };
        waiting.add(wait);
      });
    },
    stop() {
      end();
      opened.resolve();
      abort.abort();
    },
  };
}
