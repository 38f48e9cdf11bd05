/** A watch on the tunnels of a namespace, independent of the operator, which determines all latencies. */
import { Client, type Dispatcher } from 'undici';
import { createLineSplitter } from '../src/k8s/watch-once.ts';
import { machineMs } from './machine.ts';
import { API, type BenchCluster } from './cluster.ts';

const MAX_LINE_BYTES = 1024 * 1024;

/** The type of a watch event. */
export type WatchEventType = 'ADDED' | 'MODIFIED' | 'DELETED';

export interface ObjectWatch extends AsyncDisposable {
  /** Called with each event; `line` is the complete event, not parsed. */
  onEvent: ((type: WatchEventType, line: string, seenMs: number) => void) | undefined;
  /**
   * Resolves with the machine time of the `count`th event of a type since this call. Rejects if it does not arrive within
   * `limitMs`, or if the watch cannot be reopened.
   */
  waitForNth(type: WatchEventType, count: number, limitMs: number): Promise<number>;
}

interface PendingCount {
  readonly type: WatchEventType;
  remaining: number;
  readonly resolve: (seenMs: number) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Opens a watch as the administrator, on a separate connection, and resolves when it is open. The API server closes a
 * watch that does not keep up with its events, which happens on a busy machine with 2 cores; a new watch then continues
 * after the last event.
 */
export async function openObjectWatch(
  cluster: BenchCluster,
  namespace: string,
  plural: 'reversetunnels' | 'reversetunnelslices' = 'reversetunnels',
): Promise<ObjectWatch> {
  const collection = `${API}/namespaces/${namespace}/${plural}`;
  const { status, body } = await cluster.request('GET', `${collection}?limit=1`);
  if (status !== 200) throw new Error(`list ${plural} in ${namespace}: ${status}`);
  const { resourceVersion } = (body as { metadata: { resourceVersion: string } }).metadata;

  const client = new Client(cluster.url, { connect: { ca: cluster.ca }, headersTimeout: 0, bodyTimeout: 0 });
  let lastLine = `"resourceVersion":"${resourceVersion}"`;
  let closed = false;
  let pendingCount: PendingCount | undefined;
  const watch: ObjectWatch = {
    onEvent: undefined,
    waitForNth(type, count, limitMs) {
      return new Promise<number>((resolve, reject) => {
        const timeout = setTimeout(() => {
          const seen = count - (pendingCount?.remaining ?? count);
          pendingCount?.reject(
            new Error(`received ${seen} of ${count} ${type} events within ${limitMs / 1000} s`),
          );
        }, limitMs);
        const settle = (): void => {
          clearTimeout(timeout);
          pendingCount = undefined;
        };
        pendingCount = {
          type,
          remaining: count,
          resolve(seenMs) {
            settle();
            resolve(seenMs);
          },
          reject(error) {
            settle();
            reject(error);
          },
        };
      });
    },
    async [Symbol.asyncDispose]() {
      closed = true;
      await client.destroy();
    },
  };

  function handleLine(line: string): void {
    const type = eventTypeOf(line);
    const seenMs = machineMs();
    lastLine = line;
    watch.onEvent?.(type, line, seenMs);
    if (pendingCount?.type !== type) return;
    pendingCount.remaining -= 1;
    if (pendingCount.remaining === 0) pendingCount.resolve(seenMs);
  }

  /** Opens a watch after the last received event; resolves when it is open. */
  function open(): Promise<void> {
    const opened = Promise.withResolvers<void>();
    const handleChunk = createLineSplitter(MAX_LINE_BYTES, handleLine);
    const handler: Dispatcher.DispatchHandler = {
      // Required by undici.
      onRequestStart() {},
      onResponseStart(_controller, code) {
        if (code === 200) opened.resolve();
        else opened.reject(new Error(`watch ${plural} in ${namespace}: ${code}`));
      },
      onResponseData: (_controller, chunk) => handleChunk(chunk),
      onResponseEnd() {
        if (!closed) open().catch((error: Error) => pendingCount?.reject(error));
      },
      onResponseError(_controller, error) {
        opened.reject(error);
        pendingCount?.reject(error);
      },
    };
    const version = /"resourceVersion":"(\d+)"/.exec(lastLine)?.[1];
    client.dispatch(
      {
        method: 'GET',
        path: `${collection}?watch=1&resourceVersion=${version}&timeoutSeconds=3600`,
        headers: { accept: 'application/json', authorization: `Bearer ${cluster.adminToken}` },
      },
      handler,
    );
    return opened.promise;
  }

  await open();
  return watch;
}

/** Returns the type from the first bytes of an event: `{"type":"ADDED","object":…`. */
function eventTypeOf(line: string): WatchEventType {
  switch (line.charAt(9)) {
    case 'A':
      return 'ADDED';
    case 'M':
      return 'MODIFIED';
    case 'D':
      return 'DELETED';
    default:
      throw new Error(`unexpected watch event: ${line.slice(0, 200)}`);
  }
}
