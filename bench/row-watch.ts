/** The judge of speed: a watch on the rows of a namespace, as somebody else than the operator has it. */
import { Client, type Dispatcher } from 'undici';
import { createLineSplitter } from '../src/k8s/line-splitter.ts';
import { machineMs } from './machine-clock.ts';
import { API, type World } from './world.ts';

const MOST_LINE_BYTES = 1024 * 1024;

/** What happened to a row. MODIFIED counts as neither come nor gone. */
export type RowEvent = 'ADDED' | 'MODIFIED' | 'DELETED';

export interface RowWatch extends AsyncDisposable {
  /** Called with each event as it comes; `line` is the whole event, not parsed. */
  onEvent: ((type: RowEvent, line: string, seenMs: number) => void) | undefined;
  /**
   * Resolves with the machine's time at which the `count`th event of that kind, counted from this call on, was seen.
   * Rejects when it does not come within `limitMs`, or the API server refuses to go on.
   */
  nth(type: RowEvent, count: number, limitMs: number): Promise<number>;
}

interface Wanted {
  readonly type: RowEvent;
  left: number;
  readonly resolve: (seenMs: number) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Watches from now on, as the administrator, on a connection of its own. Open when this resolves. The API server ends a
 * watch that does not keep up with its events, which happens when 2 cores are busy with everything else; the next one
 * goes on where it ended, as every client's does.
 */
export async function openRowWatch(world: World, namespace: string): Promise<RowWatch> {
  const collection = `${API}/namespaces/${namespace}/reversetunnels`;
  const { status, body } = await world.request('GET', `${collection}?limit=1`);
  if (status !== 200) throw new Error(`listing rows of ${namespace}: ${status}`);
  const { resourceVersion } = (body as { metadata: { resourceVersion: string } }).metadata;

  const client = new Client(world.url, { connect: { ca: world.ca }, headersTimeout: 0, bodyTimeout: 0 });
  let lastLine = `"resourceVersion":"${resourceVersion}"`;
  let closed = false;
  let wanted: Wanted | undefined;
  const watch: RowWatch = {
    onEvent: undefined,
    nth(type, count, limitMs) {
      return new Promise<number>((resolve, reject) => {
        const late = setTimeout(() => {
          const seen = count - (wanted?.left ?? count);
          wanted?.reject(new Error(`${seen} of ${count} rows were seen ${type} within ${limitMs / 1000} s`));
        }, limitMs);
        const settle = (): void => {
          clearTimeout(late);
          wanted = undefined;
        };
        wanted = {
          type,
          left: count,
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

  function take(line: string): void {
    const type = typeOf(line);
    const seenMs = machineMs();
    lastLine = line;
    watch.onEvent?.(type, line, seenMs);
    if (wanted?.type !== type) return;
    wanted.left -= 1;
    if (wanted.left === 0) wanted.resolve(seenMs);
  }

  /** One watch, from the last event seen; resolves when it is open. */
  function open(): Promise<void> {
    const opened = Promise.withResolvers<void>();
    const takeChunk = createLineSplitter(MOST_LINE_BYTES, take);
    const handler: Dispatcher.DispatchHandler = {
      // undici asks for it; there is nothing to do.
      onRequestStart() {},
      onResponseStart(_controller, code) {
        if (code === 200) opened.resolve();
        else opened.reject(new Error(`watching rows of ${namespace}: ${code}`));
      },
      onResponseData: (_controller, chunk) => takeChunk(chunk),
      onResponseEnd() {
        if (!closed) open().catch((error: Error) => wanted?.reject(error));
      },
      onResponseError(_controller, error) {
        opened.reject(error);
        wanted?.reject(error);
      },
    };
    const version = /"resourceVersion":"(\d+)"/.exec(lastLine)?.[1];
    client.dispatch(
      {
        method: 'GET',
        path: `${collection}?watch=1&resourceVersion=${version}&timeoutSeconds=3600`,
        headers: { accept: 'application/json', authorization: `Bearer ${world.adminToken}` },
      },
      handler,
    );
    return opened.promise;
  }

  await open();
  return watch;
}

/** From the first bytes alone: `{"type":"ADDED","object":…`. */
function typeOf(line: string): RowEvent {
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
