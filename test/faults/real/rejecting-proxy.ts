import { readFile } from 'node:fs/promises';
import { Agent, createServer, request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import type { ControlPlane } from '../../../control-plane/start.ts';
import type { Random } from '../../../src/simulate/random.ts';

/** Faults of calls, including watches when they are opened. */
export interface CallFaults {
  readonly delayMs: number;
  /** Percentage of calls that are rejected, alternately with 429 and 503, with `Retry-After: 1`. */
  readonly rejectedPercent: number;
}

const TUNNELS_PATH = /\/reversetunnels(\/|\?|$)/;
const TOO_MANY_REQUESTS_BODY = 'Too many requests, please try again later.\n';
const UNAVAILABLE_BODY =
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server is currently unable to handle the request","reason":"ServiceUnavailable","code":503}\n';

/**
 * Starts an HTTPS proxy in front of kube-apiserver with its certificate, which counts calls and can reject them, on a
 * free port of 127.0.0.1, initially without faults.
 */
export async function openRejectingProxy(controlPlane: ControlPlane, random: Random) {
  const { hostname, port } = new URL(controlPlane.url);
  // kube-apiserver's own certificate: clients that trust it also trust this proxy on another port.
  const keyFile = join(dirname(controlPlane.caFile), 'apiserver.key');
  const tls = { cert: controlPlane.caData, key: await readFile(keyFile, 'utf8') };
  const agent = new Agent({ keepAlive: true, ca: controlPlane.caData });
  const delayed = new Set<NodeJS.Timeout>();
  let faults: CallFaults = { delayMs: 0, rejectedPercent: 0 };
  let [objectWrites, all, rejected] = [0, 0, 0];

  const server = createServer(tls, (request, response) => {
    const { method = 'GET', url: path = '/', headers } = request;
    all += 1;
    if (method !== 'GET' && TUNNELS_PATH.test(path)) objectWrites += 1;
    const reject = random.below(100) < faults.rejectedPercent;
    const forward = (): void => {
      // The client may have given up meanwhile.
      if (response.destroyed) return;
      if (reject) {
        rejected += 1;
        const busy = rejected % 2 === 0;
        request.resume();
        response.writeHead(busy ? 429 : 503, {
          'content-type': busy ? 'text/plain; charset=utf-8' : 'application/json',
          'retry-after': '1',
        });
        response.end(busy ? TOO_MANY_REQUESTS_BODY : UNAVAILABLE_BODY);
        return;
      }
      const upstreamRequest = httpsRequest(
        { hostname, port, path, method, headers, agent },
        (upstreamResponse) => {
          response.writeHead(upstreamResponse.statusCode ?? 502, upstreamResponse.headers);
          // A new watch has no events yet, and the client waits for its headers.
          response.flushHeaders();
          upstreamResponse.on('error', () => response.destroy());
          upstreamResponse.pipe(response);
        },
      );
      upstreamRequest.on('error', () => response.destroy());
      response.on('close', () => upstreamRequest.destroy());
      request.pipe(upstreamRequest);
    };
    if (faults.delayMs === 0) {
      forward();
      return;
    }
    const timer = setTimeout(() => {
      delayed.delete(timer);
      forward();
    }, faults.delayMs);
    delayed.add(timer);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });

  return {
    /** The address for clients, as host:port. */
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    setFaults(next: CallFaults): void {
      faults = next;
    },
    /** Returns the number of object writes and of all calls so far, both including rejected calls. */
    calls: () => ({ objectWrites, all, rejected }),
    async close(): Promise<void> {
      for (const timer of delayed) clearTimeout(timer);
      server.closeAllConnections();
      agent.destroy();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}
