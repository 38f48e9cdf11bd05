/** The bare limit: what the API server takes from a loop that does nothing but send. */
import { Pool } from 'undici';
import { baselineObjects, type BaselineObject } from './baseline-objects.ts';
import { API, type Access, type BenchCluster } from './cluster.ts';

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
