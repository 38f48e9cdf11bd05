import {
  type ResourceType,
  HTTP_METHODS,
  type Call,
  createResourceClient,
  resourcePath,
} from '../../../src/k8s/resource-client.ts';
import { ApiError, errorFromResponse, errorFromTransport } from '../../../src/k8s/api-error.ts';
import type { ApiClient } from '../../../src/k8s/client.ts';
import { ServerClock } from '../../../src/k8s/server-clock.ts';
import { parseApiPath } from '../../../embedded-api-server/requests.ts';
import type { ApiResponse } from '../../../embedded-api-server/responses.ts';
import type { SimApiServer, SimWatch } from './api-server.ts';
import type { Prng } from './prng.ts';
import type { SimProcess } from './process.ts';
import type { SimTime } from './time.ts';

/** A call as it leaves a process. */
export interface SentCall {
  readonly verb: Call['verb'];
  readonly resource: string;
  readonly name: string | undefined;
  readonly body: string | undefined;
}

/** The network between a process and the API server. */
export interface ApiLink {
  readonly client: ApiClient;
  /** `cut`: connections fail with ECONNREFUSED. `blackhole`: packets are lost, so callers notice only by their own timeouts. */
  mode: 'open' | 'cut' | 'blackhole';
  /** Additional delay of watch events, by resource. */
  readonly lagMs: Map<string, number>;
  /** Maximum latency of each direction. */
  maxLatencyMs: number;
  /** Breaks the connections of open watches, or leaves them half-open. */
  breakWatches(how: 'reset' | 'half-open', resource?: string): void;
}

/**
 * Creates the API client of a process, which sends the calls of `src/k8s` over a simulated network. Requests and
 * responses have random latencies and can overtake each other; the lines of one watch stay in order.
 *
 * @param serverWallMs the clock of the API server, which its responses contain
 * @param onSend called for each call that leaves the process
 */
export function createApiLink(
  process: SimProcess,
  server: SimApiServer,
  {
    time,
    prng,
    serverWallMs,
    onSend,
  }: { time: SimTime; prng: Prng; serverWallMs: () => number; onSend: (call: SentCall) => void },
): ApiLink {
  const watches = new Set<{
    readonly open: SimWatch;
    halfOpen: boolean;
    readonly fail: (e: Error) => void;
  }>();
  const serverClock = new ServerClock(process);
  let closed = false;

  const link: ApiLink = {
    mode: 'open',
    lagMs: new Map(),
    maxLatencyMs: 3,
    breakWatches(how, resource) {
      for (const watch of watches) {
        if (resource !== undefined && watch.open.resource !== resource) continue;
        watch.halfOpen = true;
        server.removeWatch(watch.open);
        if (how === 'reset') process.receive(() => watch.fail(new Error('read ECONNRESET')));
      }
    },
    client: {
      resource: <T>(resource: ResourceType) =>
        createResourceClient<T>(resourcePath('', resource), (call) => send(call)),
      getRaw: (path) => Promise.reject(new Error(`nothing is at ${path} here`)),
      connectionsOpened: () => 0,
      serverClock,
      close() {
        closed = true;
        for (const watch of watches) server.removeWatch(watch.open);
        return Promise.resolve();
      },
    },
  };

  const randomLatencyMs = (): number => 0.2 + link.maxLatencyMs * prng.fraction();

  function send(call: Call): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    if (closed) return Promise.reject(new ApiError('cancelled', `${call.action()}: client is closed`));
    let settled = false;
    const cancelDeadline = process.setTimer(call.timeoutMs, () => {
      fail(new ApiError('unavailable', `no response within ${call.timeoutMs / 1000} s`));
    });
    const onAbort = (): void => fail(new ApiError('cancelled', 'cancelled'));
    function settle(): boolean {
      if (settled) return false;
      settled = true;
      cancelDeadline();
      call.signal?.removeEventListener('abort', onAbort);
      return true;
    }
    function fail(error: unknown): void {
      if (settle()) reject(errorFromTransport(call.action(), error));
    }
    function handleAnswer(answer: ApiResponse | Error, date: string): void {
      if (answer instanceof Error) fail(answer);
      else if (settle()) {
        if (answer.status >= 200 && answer.status <= 299) {
          serverClock.observe(date);
          resolve(answer.text);
        } else reject(errorFromResponse(call.action(), answer));
      }
    }
    /** Delivers a response, if the network lets it through. */
    function respond(answer: ApiResponse | Error): void {
      if (link.mode !== 'open' && !(answer instanceof Error)) return;
      const date = new Date(serverWallMs()).toUTCString();
      time.after(randomLatencyMs(), () => process.receive(() => handleAnswer(answer, date)));
    }
    if (call.signal?.aborted === true) onAbort();
    else call.signal?.addEventListener('abort', onAbort);
    if (settled) return promise;

    const { resource, name } = parseApiPath(call.path);
    onSend({ verb: call.verb, resource, name, body: call.body });
    const path = call.path;
    if (link.mode === 'cut') respond(new Error('connect ECONNREFUSED'));
    else if (link.mode === 'blackhole') return promise;
    else if (call.onChunk !== undefined)
      openWatch(call, resource, {
        isOver: () => settled,
        cancelDeadline,
        fail,
        settle,
        resolve,
        reject,
        respond,
      });
    else {
      const request = { method: HTTP_METHODS[call.verb], path, body: call.body, actor: process.name };
      time.after(randomLatencyMs(), () => server.receive(request, respond));
    }
    return promise;
  }

  interface Exchange {
    isOver(): boolean;
    cancelDeadline(): void;
    fail(error: unknown): void;
    settle(): boolean;
    resolve(text: string): void;
    reject(error: unknown): void;
    respond(answer: ApiResponse | Error): void;
  }

  function openWatch(call: Call, resource: string, exchange: Exchange): void {
    const { query } = parseApiPath(call.path);
    let lastMs = 0;
    /** Delivers in order, regardless of each latency. */
    function deliverInOrder(handleAnswer: () => void): void {
      const atMs = Math.max(lastMs, time.nowMs + randomLatencyMs() + (link.lagMs.get(resource) ?? 0));
      lastMs = atMs;
      time.after(atMs - time.nowMs, () => {
        if (!watch.halfOpen) process.receive(handleAnswer);
      });
    }
    const open: SimWatch = {
      resource,
      path: call.path,
      fromVersion: Number(query.get('resourceVersion')),
      cancels: [],
      sendLine: (text) =>
        deliverInOrder(() => {
          if (exchange.isOver()) return;
          try {
            call.onChunk?.(Buffer.from(`${text}\n`));
          } catch (error) {
            // An error thrown by the reader is not a connection failure, so it is passed on unchanged.
            removeWatch();
            if (exchange.settle()) exchange.reject(error);
          }
        }),
      end: (error) =>
        deliverInOrder(() => {
          removeWatch();
          if (error !== undefined) exchange.fail(error);
          else if (exchange.settle()) exchange.resolve('');
        }),
    };
    const watch = { open, halfOpen: false, fail: (error: Error) => exchange.fail(error) };
    function removeWatch(): void {
      watches.delete(watch);
      server.removeWatch(open);
    }
    call.signal?.addEventListener('abort', removeWatch);
    time.after(randomLatencyMs(), () => {
      if (exchange.isOver()) return;
      const rejection = server.watch(open, Number(query.get('timeoutSeconds')) * 1000);
      if (rejection !== undefined) {
        exchange.respond(rejection);
        return;
      }
      watches.add(watch);
      deliverInOrder(() => {
        if (exchange.isOver()) return;
        exchange.cancelDeadline();
        call.onOpen?.();
      });
      server.replay(open);
    });
  }

  return link;
}
