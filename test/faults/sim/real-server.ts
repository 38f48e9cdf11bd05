import type { ControlPlaneClient } from '../../../control-plane/start.ts';
import { systemClock } from '../../../src/clock.ts';
import type { HttpResponse } from '../../../src/k8s/response-handler.ts';
import { createTransport } from '../../../src/k8s/transport.ts';
import type { SendWatch } from './real-watch.ts';

/** A real API server that is shared by the runs of many seeds, each in a namespace of its own. */
export interface RealServer {
  readonly send: (method: Method, path: string, body: string | undefined) => Promise<HttpResponse>;
  readonly sendWatch: SendWatch;
  close(): Promise<void>;
}

type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

const TIMEOUT_MS = 30_000;
const CONTENT_TYPES: Readonly<Record<string, string>> = { PATCH: 'application/merge-patch+json' };

/** Connects with the operator's own transport, in real time, as the administrator: permissions are not simulated. */
export function createRealServer({ url, caData, adminToken }: ControlPlaneClient): RealServer {
  const transport = createTransport({
    server: new URL(url),
    proxyUrl: undefined,
    connections: 4,
    clock: systemClock,
  });
  const credentials = { ca: caData, authorization: `Bearer ${adminToken}` };
  const headers = (method: Method): string[] => [
    'accept',
    'application/json',
    'user-agent',
    'reverse-tunnel-operator/simulated',
    'authorization',
    credentials.authorization,
    ...(method === 'GET' ? [] : ['content-type', CONTENT_TYPES[method] ?? 'application/json']),
  ];
  return {
    send: (method, path, body) =>
      transport.send(
        {
          // The transport's type has only the operator's methods, and the operator never finalizes a namespace.
          method: method as Exclude<Method, 'PUT'>,
          path,
          headers: headers(method),
          body,
          timeoutMs: TIMEOUT_MS,
        },
        credentials,
      ),
    sendWatch: (path, options) =>
      transport.send(
        { method: 'GET', path, headers: headers('GET'), timeoutMs: TIMEOUT_MS, ...options },
        credentials,
      ),
    close: () => transport.close(),
  };
}
