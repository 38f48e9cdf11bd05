/**
 * The baseline that the operator is compared to: the same objects, written by a loop that only sends requests, and a list
 * that only reads pages.
 */
import { hash } from 'node:crypto';
import { formatCreatedAt } from '../src/grpc/created-at.ts';
import { createNames } from '../src/core/names.ts';
import { manifestFor } from '../src/core/tunnel-object.ts';
import { tunnelBody } from '../src/k8s/resources.ts';
import { initiator } from '../src/simulate/tunnel-registry.ts';
import { FLEET_DEFAULTS } from '../src/simulate/fleet.ts';
import { Pool, Client } from 'undici';
import { API, type Access, type BenchCluster } from './cluster.ts';

/** Uses the digest of the operator, so that names have the same length and distribution over etcd's keys. */
export const NAMES = createNames((text) => hash('sha256', text, 'buffer'));

/** An encoded ReverseTunnel. */
export interface BaselineObject {
  readonly name: string;
  /** The body of its POST. */
  readonly body: string;
}

/**
 * Returns the objects that the operator would create for tunnels of the simulated fleet, byte for byte.
 *
 * @param from serial number of the first initiator; different serials have different names
 * @param count the number of objects
 */
export function baselineObjects(from: number, count: number): BaselineObject[] {
  const reporter = { cluster: FLEET_DEFAULTS.reporterCluster, id: 'responder-0' };
  // With microseconds, like Envoy's clock, so that the objects have the same size.
  const createdAt = formatCreatedAt(Math.floor(Date.now() / 1000), 123_456_000);
  return Array.from({ length: count }, (_, index) => {
    const identity = initiator(from + index, FLEET_DEFAULTS);
    const manifest = manifestFor(NAMES, reporter, { name: identity.nodeID, ...identity, createdAt });
    return { name: manifest.name, body: JSON.stringify(tunnelBody(manifest)) };
  });
}

/** The default of the operator's `--write-concurrency`. */
const IN_FLIGHT = 64;
/** Longer than any pause between two phases, so that only the warm-up includes TLS handshakes. */
const KEEP_ALIVE_MS = 600_000;
/** Opens every connection, and makes V8 compile the loop. No measurement uses these serials. */
const WARM_UP = { from: 10_000_000, objects: 512 };

export interface BaselineLoop extends AsyncDisposable {
  /** Creates all objects, 64 at a time. Resolves with the ms from the first request to the last response. */
  create(objects: readonly BaselineObject[]): Promise<number>;
  /** Deletes all objects, 64 at a time, without preconditions. Resolves like `create`. */
  delete(objects: readonly BaselineObject[]): Promise<number>;
}

/**
 * Opens a baseline loop: an undici Pool of 64 kept-alive HTTP/1.1 connections with the token of a ServiceAccount, like the
 * operator's. Bodies are encoded before the measurement, responses are read and discarded, and there is no watch. The
 * loop is warmed up when this resolves.
 */
export async function openBaselineLoop(
  cluster: Pick<BenchCluster, 'url' | 'ca'>,
  access: Pick<Access, 'namespace' | 'token'>,
): Promise<BaselineLoop> {
  const pool = new Pool(cluster.url, {
    connections: IN_FLIGHT,
    connect: { ca: cluster.ca },
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MS,
  });
  const collection = `${API}/namespaces/${access.namespace}/reversetunnels`;
  const headers = {
    accept: 'application/json',
    // The name of the manager in managedFields, so that the objects have the same size.
    'user-agent': 'reverse-tunnel-operator/bench',
    authorization: `Bearer ${access.token}`,
    'content-type': 'application/json',
  };

  async function send(method: 'POST' | 'DELETE', path: string, requestBody: string | null): Promise<void> {
    // `reset: false`: otherwise undici closes the connection after each DELETE.
    const { statusCode, body } = await pool.request({
      method,
      path,
      headers,
      body: requestBody,
      reset: false,
    });
    const text = await body.text();
    if (statusCode > 299) throw new Error(`baseline ${method}: ${statusCode} ${text.slice(0, 200)}`);
  }

  async function runConcurrently(
    objects: readonly BaselineObject[],
    act: (object: BaselineObject) => Promise<void>,
  ): Promise<number> {
    const startedMs = performance.now();
    const remaining = objects.values();
    // The 64 workers share an iterator, and each takes the next object as soon as it is idle.
    await Promise.all(
      Array.from({ length: IN_FLIGHT }, async () => {
        for (const object of remaining) await act(object);
      }),
    );
    return performance.now() - startedMs;
  }

  const loop: BaselineLoop = {
    create: (objects) => runConcurrently(objects, ({ body }) => send('POST', collection, body)),
    delete: (objects) =>
      runConcurrently(objects, ({ name }) => send('DELETE', `${collection}/${name}`, null)),
    [Symbol.asyncDispose]: () => pool.destroy(),
  };
  const warmUp = baselineObjects(WARM_UP.from, WARM_UP.objects);
  await loop.create(warmUp);
  await loop.delete(warmUp);
  return loop;
}

/** The page size of the operator's lists. */
const PAGE_LIMIT = 2000;
/** Contains the metadata of a list, such as the token, which follow the items. */
const TAIL_CHARACTERS = 4096;

/**
 * Lists all ReverseTunnels on one connection, parsing nothing except for the token of the next page. A restart cannot be
 * faster. Resolves with the duration in ms.
 */
export async function baselineList(cluster: BenchCluster, access: Access): Promise<number> {
  const client = new Client(cluster.url, { connect: { ca: cluster.ca } });
  const headers = { accept: 'application/json', authorization: `Bearer ${access.token}` };
  const path = `${API}/namespaces/${access.namespace}/reversetunnels?limit=${PAGE_LIMIT}`;
  async function page(query: string): Promise<string> {
    const { statusCode, body } = await client.request({ method: 'GET', path: path + query, headers });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`baseline list: ${statusCode} ${text.slice(0, 200)}`);
    return text.slice(-TAIL_CHARACTERS);
  }

  const startedMs = performance.now();
  try {
    let query: string | undefined = '';
    while (query !== undefined) {
      const token: string | undefined = /"continue":"([^"]+)"/.exec(await page(query))?.[1];
      query = token === undefined ? undefined : `&continue=${encodeURIComponent(token)}`;
    }
    return performance.now() - startedMs;
  } finally {
    await client.close();
  }
}
