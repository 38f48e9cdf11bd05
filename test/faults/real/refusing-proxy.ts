import { readFile } from 'node:fs/promises';
import { Agent, createServer, request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import type { ControlPlane } from '../../../control-plane/start.ts';
import type { Random } from '../../../src/simulate/random.ts';

/** How calls fare, watches included (at their opening). */
export interface Weather {
  /** Each call waits so long before it goes on. */
  readonly delayMs: number;
  /** Of a hundred calls so many are refused, by 429 and 503 in turns, with `Retry-After: 1`. */
  readonly refusedPercent: number;
}

/** A proxy in front of kube-apiserver, by HTTP and with its certificate: it can refuse single calls, and counts them. */
export interface RefusingProxy {
  /** Where clients connect to by https, as host:port. */
  readonly address: string;
  setWeather(weather: Weather): void;
  /** Calls so far that write rows, and all calls; refused ones are calls too. */
  calls(): { readonly rowWrites: number; readonly all: number; readonly refused: number };
  close(): Promise<void>;
}

const ROW_PATH = /\/reversetunnels(\/|\?|$)/;
const TOO_MANY = 'Too many requests, please try again later.\n';
const UNAVAILABLE =
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server is currently unable to handle the request","reason":"ServiceUnavailable","code":503}\n';

/** Listens on a free port of 127.0.0.1; in fair weather at first. */
export async function openRefusingProxy(controlPlane: ControlPlane, random: Random): Promise<RefusingProxy> {
  const { hostname, port } = new URL(controlPlane.url);
  // kube-apiserver's own: whoever trusts it trusts this proxy, whatever the port.
  const keyFile = join(dirname(controlPlane.caFile), 'apiserver.key');
  const tls = { cert: controlPlane.caData, key: await readFile(keyFile, 'utf8') };
  const agent = new Agent({ keepAlive: true, ca: controlPlane.caData });
  const waiting = new Set<NodeJS.Timeout>();
  let weather: Weather = { delayMs: 0, refusedPercent: 0 };
  let [rowWrites, all, refused] = [0, 0, 0];

  const server = createServer(tls, (asked, answer) => {
    const { method = 'GET', url: path = '/', headers } = asked;
    all += 1;
    if (method !== 'GET' && ROW_PATH.test(path)) rowWrites += 1;
    const refuse = random.below(100) < weather.refusedPercent;
    const goOn = (): void => {
      // Its client may have given up while it waited.
      if (answer.destroyed) return;
      if (refuse) {
        refused += 1;
        const busy = refused % 2 === 0;
        asked.resume();
        answer.writeHead(busy ? 429 : 503, {
          'content-type': busy ? 'text/plain; charset=utf-8' : 'application/json',
          'retry-after': '1',
        });
        answer.end(busy ? TOO_MANY : UNAVAILABLE);
        return;
      }
      const onward = httpsRequest({ hostname, port, path, method, headers, agent }, (found) => {
        answer.writeHead(found.statusCode ?? 502, found.headers);
        // A watch has nothing to say at first, and its headers are what the client waits for.
        answer.flushHeaders();
        found.on('error', () => answer.destroy());
        found.pipe(answer);
      });
      onward.on('error', () => answer.destroy());
      answer.on('close', () => onward.destroy());
      asked.pipe(onward);
    };
    if (weather.delayMs === 0) {
      goOn();
      return;
    }
    const timer = setTimeout(() => {
      waiting.delete(timer);
      goOn();
    }, weather.delayMs);
    waiting.add(timer);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });

  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    setWeather(next) {
      weather = next;
    },
    calls: () => ({ rowWrites, all, refused }),
    async close() {
      for (const timer of waiting) clearTimeout(timer);
      server.closeAllConnections();
      agent.destroy();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}
