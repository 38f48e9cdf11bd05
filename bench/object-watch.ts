/** The judge of speed: a watch on the rows of a namespace, as somebody else than the operator has it. */
import { Client, type Dispatcher } from 'undici';
import { createLineSplitter } from '../src/k8s/watch-once.ts';
import { machineMs } from './machine.ts';
import { API, type BenchCluster } from './cluster.ts';

const MAX_LINE_BYTES = 1024 * 1024;

/** What happened to a row. MODIFIED counts as neither come nor gone. */
export type WatchEventType = 'ADDED' | 'MODIFIED' | 'DELETED';

export interface ObjectWatch extends AsyncDisposable {
  /** Called with each event as it comes; `line` is the whole event, not parsed. */
  onEvent: ((type: WatchEventType, line: string, seenMs: number) => void) | undefined;
  /**
   * Resolves with the machine's time at which the `count`th event of that kind, counted from this call on, was seen.
   * Rejects when it does not come within `limitMs`, or the API server refuses to go on.
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
 * Watches from now on, as the administrator, on a connection of its own. Open when this resolves. The API server ends a
 * watch that does not keep up with its events, which happens when 2 cores are busy with everything else; the next one
 * goes on where it ended, as every client's does.
 */
export async function openObjectWatch(cluster: BenchCluster, namespace: string): Promise<ObjectWatch> {
  const collection = `${API}/namespaces/${namespace}/reversetunnels`;
  const { status, body } = await cluster.request('GET', `${collection}?limit=1`);
  if (status !== 200) throw new Error(`listing rows of ${namespace}: ${status}`);
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
            new Error(`${seen} of ${count} rows were seen ${type} within ${limitMs / 1000} s`),
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

  /** One watch, from the last event seen; resolves when it is open. */
  function open(): Promise<void> {
    const opened = Promise.withResolvers<void>();
    const handleChunk = createLineSplitter(MAX_LINE_BYTES, handleLine);
    const handler: Dispatcher.DispatchHandler = {
      // undici asks for it; there is nothing to do.
      onRequestStart() {},
      onResponseStart(_controller, code) {
        if (code === 200) opened.resolve();
        else opened.reject(new Error(`watching rows of ${namespace}: ${code}`));
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

/** From the first bytes alone: `{"type":"ADDED","object":…`. */
function eventTypeOf(line: string): WatchEventType {
  switch (line.charAt(9)) {
    case 'A':
      return 'ADDED';
    case 'M':
      return 'MODIFIED';
    case 'D':
      return 'DELETED';
    default:
      throw new Error(`the measuring watch got ${line.slice(0, 200)}`);
  }
}
