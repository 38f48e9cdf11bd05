/** The bare limit: what the API server takes from a loop that does nothing but send. */
import { Pool } from 'undici';
import { bareRows, type BareRow } from './bare-rows.ts';
import { API, type Access, type World } from './world.ts';

/** As many as the operator's `--write-concurrency` is by default. */
const IN_FLIGHT = 64;
/** Longer than any pause between two phases, so that no phase but the warm-up pays for TLS. */
const KEEP_ALIVE_MS = 600_000;
/** Opens every connection, and has the engine compile the loop. Serials that no measurement uses. */
const WARM_UP = { from: 10_000_000, rows: 512 };

export interface BareLoop extends AsyncDisposable {
  /** POSTs all rows, 64 at a time; how long that took, from the first request to the last answer. */
  create(rows: readonly BareRow[]): Promise<number>;
  /** DELETEs all rows, 64 at a time, without a precondition; how long that took. */
  delete(rows: readonly BareRow[]): Promise<number>;
}

/**
 * An undici Pool of 64 kept-alive HTTP/1.1 connections with a ServiceAccount's token, as the operator has; bodies are
 * made before the clock starts, answers are read and thrown away. It holds no watch. Warm when this resolves.
 */
export async function openBareLoop(world: World, access: Access): Promise<BareLoop> {
  const pool = new Pool(world.url, {
    connections: IN_FLIGHT,
    connect: { ca: world.ca },
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

  async function send(method: 'POST' | 'DELETE', path: string, sent: string | null): Promise<void> {
    // `reset: false`: undici would else close the connection after each DELETE.
    const { statusCode, body } = await pool.request({ method, path, headers, body: sent, reset: false });
    const text = await body.text();
    if (statusCode > 299) throw new Error(`bare ${method}: ${statusCode} ${text.slice(0, 200)}`);
  }

  async function all(rows: readonly BareRow[], act: (row: BareRow) => Promise<void>): Promise<number> {
    const startedMs = performance.now();
    const left = rows.values();
    // Sharing one iterator, each of the 64 takes the next row as soon as it is free.
    await Promise.all(
      Array.from({ length: IN_FLIGHT }, async () => {
        for (const row of left) await act(row);
      }),
    );
    return performance.now() - startedMs;
  }

  const loop: BareLoop = {
    create: (rows) => all(rows, ({ body }) => send('POST', collection, body)),
    delete: (rows) => all(rows, ({ name }) => send('DELETE', `${collection}/${name}`, null)),
    [Symbol.asyncDispose]: () => pool.destroy(),
  };
  const warmUp = bareRows(WARM_UP.from, WARM_UP.rows);
  await loop.create(warmUp);
  await loop.delete(warmUp);
  return loop;
}
