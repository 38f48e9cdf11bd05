import { runOnCluster } from '../cli/cluster-command.ts';
import { PAGE_LIMIT, SLICE_PAGE_LIMIT } from '../cli/cluster.ts';
import type { Terminal } from '../cli/terminal.ts';
import { EXIT_OK, parseFlags } from '../flags.ts';
import { COMMAND } from './get.ts';
import { createTunnelQuery } from './tunnel-query.ts';

/** A user waits for the completion of a word. */
const TIMEOUT_MS = 3000;

/**
 * Returns the names of tunnels that can complete a command line of `get`, in the order of kubectl: those of the first
 * 2,000 objects and 100 slices, as there may be 1,000,000. Empty if the API server cannot be reached within 3 s.
 *
 * @param argv the complete arguments after `get`, whose flags apply
 * @param prefix the beginning of the name
 */
export async function completeTunnelNames(
  argv: readonly string[],
  prefix: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<string[]> {
  const parsed = parseFlags(COMMAND, argv);
  if (!('values' in parsed)) return [];
  const { values, operands } = parsed;
  const found = new Set<string>();
  const add = (key: string): void => void found.add(key.slice(key.indexOf('/') + 1));
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const silent: Terminal = {
    out: () => {},
    err: () => {},
    canRedraw: false,
    errColumns: () => undefined,
    interrupted: signal,
  };
  const connection = { ...values, cluster: undefined, output: 'text' } as const;
  await runOnCluster('get', connection, env, silent, async (cluster) => {
    const requirements = values.selector?.requirements ?? [];
    const query = createTunnelQuery(cluster, { ...values, output: 'name', watch: false, requirements });
    const objects = await query.objects.list({ limit: PAGE_LIMIT, signal });
    for (const object of objects.items) for (const { key } of query.linesOfObject(object)) add(key);
    const slices = await query.slices().list({ limit: SLICE_PAGE_LIMIT, signal });
    for (const slice of slices.items) for (const { key } of query.linesOfSlice(slice)) add(key);
    return EXIT_OK;
  });
  return [...found].filter((name) => name.startsWith(prefix) && !operands.includes(name)).toSorted();
}
