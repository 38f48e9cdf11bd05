/** How long the API server takes to list rows: what a restart cannot be quicker than. */
import { Client } from 'undici';
import { API, type Access, type BenchCluster } from './cluster.ts';

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
