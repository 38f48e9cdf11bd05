import { hash } from 'node:crypto';
import { formatCreatedAt } from '../src/core/tunnel.ts';
import { createNames } from '../src/core/names.ts';
import { manifestFor } from '../src/core/tunnel-object.ts';
import { initiator } from '../src/simulate/tunnel-registry.ts';
import { FLEET_DEFAULTS } from '../src/simulate/fleet.ts';
import { Pool, Client } from 'undici';
import { API, type Access, type BenchCluster } from './cluster.ts';

/** Rows for the bare loop: the same bytes that the operator would send for tunnels of the simulated fleet. */

/** By the same digest as the operator's, so that names have the same length and spread over etcd's keys alike. */
export const NAMES = createNames((text) => hash('sha256', text, 'buffer'));

/** One row, ready to be sent. */
export interface BaselineObject {
  readonly name: string;
  /** The body of its POST. */
  readonly body: string;
}

/**
 * @param from serial number of the first initiator; rows of different serials have different names
 * @param count how many rows
 */
export function baselineObjects(from: number, count: number): BaselineObject[] {
  const reporter = { cluster: FLEET_DEFAULTS.reporterCluster, id: 'responder-0' };
  // Microseconds, as Envoy's clock has them: a shorter text would be a smaller row.
  const createdAt = formatCreatedAt(Math.floor(Date.now() / 1000), 123_456_000);
  return Array.from({ length: count }, (_, index) => {
    const identity = initiator(from + index, FLEET_DEFAULTS);
    const { name, labels, spec } = manifestFor(NAMES, reporter, {
      name: identity.nodeID,
      ...identity,
      createdAt,
    });
    const object = {
      apiVersion: 'reverse-tunnel.io/v1alpha1',
      kind: 'ReverseTunnel',
      metadata: { name, labels },
      spec,
    };
    return { name, body: JSON.stringify(object) };
  });
}

/** The bare limit: what the API server takes from a loop that does nothing but send. */

/** As many as the operator's `--write-concurrency` is by default. */
const IN_FLIGHT = 64;
/** Longer than any pause between two phases, so that no phase but the warm-up pays for TLS. */
const KEEP_ALIVE_MS = 600_000;
/** Opens every connection, and has the engine compile the loop. Serials that no measurement uses. */
const WARM_UP = { from: 10_000_000, objects: 512 };

export interface BaselineLoop extends AsyncDisposable {
  /** POSTs all rows, 64 at a time; how long that took, from the first request to the last answer. */
  create(rows: readonly BaselineObject[]): Promise<number>;
  /** DELETEs all rows, 64 at a time, without a precondition; how long that took. */
  delete(rows: readonly BaselineObject[]): Promise<number>;
}

/**
 * An undici Pool of 64 kept-alive HTTP/1.1 connections with a ServiceAccount's token, as the operator has; bodies are
 * made before the clock starts, answers are read and thrown away. It holds no watch. Warm when this resolves.
 */
export async function openBaselineLoop(cluster: BenchCluster, access: Access): Promise<BaselineLoop> {
  const pool = new Pool(cluster.url, {
    connections: IN_FLIGHT,
    connect: { ca: cluster.ca },
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MS,
  });
  const collection = `${API}/namespaces/${access.namespace}/reversetunnels`;
  const headers = {
    accept: 'application/json',
    // The manager's name in managedFields: another one would be another size of row.
    'user-agent': 'reverse-tunnel-operator/bench',
    authorization: `Bearer ${access.token}`,
    'content-type': 'application/json',
  };

  async function send(method: 'POST' | 'DELETE', path: string, requestBody: string | null): Promise<void> {
    // `reset: false`: undici would else close the connection after each DELETE.
    const { statusCode, body } = await pool.request({
      method,
      path,
      headers,
      body: requestBody,
      reset: false,
    });
    const text = await body.text();
    if (statusCode > 299) throw new Error(`bare ${method}: ${statusCode} ${text.slice(0, 200)}`);
  }

  async function runConcurrently(
    objects: readonly BaselineObject[],
    act: (object: BaselineObject) => Promise<void>,
  ): Promise<number> {
    const startedMs = performance.now();
    const remaining = objects.values();
    // Sharing one iterator, each of the 64 takes the next row as soon as it is free.
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

/** How long the API server takes to list rows: what a restart cannot be quicker than. */

/** As the operator lists. */
const PAGE_LIMIT = 2000;
/** Of a list, items come first: the token stands behind them. Resource version and count are short. */
const TAIL_CHARACTERS = 4096;

/** Reads every page on one connection, and nothing in it but the token of the next one; how long that took, ms. */
export async function baselineList(cluster: BenchCluster, access: Access): Promise<number> {
  const client = new Client(cluster.url, { connect: { ca: cluster.ca } });
  const headers = { accept: 'application/json', authorization: `Bearer ${access.token}` };
  const path = `${API}/namespaces/${access.namespace}/reversetunnels?limit=${PAGE_LIMIT}`;
  async function page(query: string): Promise<string> {
    const { statusCode, body } = await client.request({ method: 'GET', path: path + query, headers });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`bare list: ${statusCode} ${text.slice(0, 200)}`);
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
