import { systemClock } from '../clock.ts';
import { runOnCluster } from '../cli/cluster-command.ts';
import { COMMON_FLAGS, CONNECTION_FLAGS } from '../cli/kubectl-flags.ts';
import { labelSelector } from '../cli/label-selector.ts';
import { EXIT_INTERRUPTED, processTerminal, type Terminal } from '../cli/terminal.ts';
import { enumOf, nonEmpty } from '../flag-values.ts';
import {
  EXIT_FAILURE,
  EXIT_OK,
  endWithUsage,
  parseFlags,
  type CommandDescription,
  type FlagValues,
} from '../flags.ts';
import { listTunnels } from './list-tunnels.ts';
import { OUTPUTS } from './output-format.ts';
import { printChanges } from './print-changes.ts';
import { readTunnelNames } from './tunnel-names.ts';
import { createTunnelQuery, printTexts, warnAboutSlices, type TunnelQuery } from './tunnel-query.ts';

/** The kubeconfig cluster cannot be replaced, because `--cluster` is a filter. */
const { cluster: _cluster, ...OTHER_CONNECTION_FLAGS } = CONNECTION_FLAGS;

/** The command line, also for its completion. */
export const COMMAND = {
  usage: ['reverse-tunnel-operator get [NAME ...] [FLAG ...]', 'kubectl rt get [NAME ...] [FLAG ...]'],
  description:
    'Prints tunnels as kubectl get reversetunnels does, whether they are ReverseTunnel objects or entries of ' +
    'ReverseTunnelSlices. A tunnel in both is printed once. The AGE of an entry is that of its slice.',
  operand: {
    metavar: 'NAME',
    description:
      'name of a tunnel as in the column NAME, or reversetunnel/NAME; with -w, at most one; not with -A or with flags ' +
      'that select tunnels (default: all tunnels)',
  },
  flags: {
    kubeconfig: COMMON_FLAGS.kubeconfig,
    context: COMMON_FLAGS.context,
    namespace: COMMON_FLAGS.namespace,
    'all-namespaces': { short: 'A', description: 'print the tunnels of all namespaces' },
    output: {
      short: 'o',
      metavar: 'wide|name|json|yaml',
      description: 'output format',
      defaultText: 'a table',
      default: '',
      read: enumOf(OUTPUTS),
    },
    watch: { short: 'w', description: 'after the list, print each change' },
    'output-watch-events': {
      description: 'with -w, print the type of each change: ADDED, MODIFIED or DELETED',
    },
    'ignore-not-found': { description: 'do not fail if a named tunnel does not exist' },
    'no-headers': { description: 'print a table without its header' },
    selector: {
      short: 'l',
      metavar: 'SELECTOR',
      description:
        'label selector, such as reverse-tunnel.io/tenant=acme; entries of slices have the labels that their objects ' +
        'would have',
      defaultText: 'all',
      read: labelSelector,
    },
    tenant: { metavar: 'ID', description: 'only tunnels of this tenant', read: nonEmpty },
    cluster: {
      metavar: 'ID',
      description: 'only tunnels of initiators in this cluster (not a cluster of the kubeconfig)',
      read: nonEmpty,
    },
    node: { metavar: 'ID', description: 'only tunnels of this initiator', read: nonEmpty },
    reporter: { metavar: 'ID', description: 'only tunnels of the reporter with this ID', read: nonEmpty },
    state: {
      metavar: 'STATE',
      description: 'only tunnels in this state: Connected, Unknown or Closed',
      read: enumOf(['Connected', 'Unknown', 'Closed']),
    },
    ...OTHER_CONNECTION_FLAGS,
  },
  footer:
    'Exit codes: 0 success; 1 failure, or a named tunnel does not exist; 2 invalid flag or value; 130 interrupted.\n',
} satisfies CommandDescription;

type GetFlags = FlagValues<(typeof COMMAND)['flags']>;

/**
 * Runs the command `get`: prints the tunnels once, or with `--watch` also each change until it is interrupted.
 *
 * @param argv the arguments after `get`
 * @returns the exit code
 */
export async function runGet(
  argv: readonly string[],
  terminal = processTerminal(),
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<number> {
  const parsed = parseFlags(COMMAND, argv);
  if (!('values' in parsed)) return endWithUsage('get', parsed, terminal);
  const { values, operands } = parsed;
  const named = readTunnelNames(operands);
  const errors = 'errors' in named ? named.errors : combinationErrors(values, named.names);
  if (!('names' in named) || errors.length > 0) return endWithUsage('get', { errors }, terminal);
  const { names } = named;
  const connection = { ...values, cluster: undefined, output: 'text' } as const;
  const code = await runOnCluster('get', connection, env, terminal, async (cluster) => {
    const query = createTunnelQuery(cluster, {
      ...values,
      // Several names cannot be watched, and are read one by one.
      name: names[0],
      requirements: values.selector?.requirements ?? [],
    });
    if (names.length > 0) {
      const isComplete = await printNamed(query, names, values, terminal);
      if (!isComplete) return values['ignore-not-found'] ? EXIT_OK : EXIT_FAILURE;
      if (!values.watch) return EXIT_OK;
    }
    await (values.watch ? printChanges : list)(query, terminal);
    return EXIT_OK;
  });
  // A watch has no other end.
  return values.watch && code === EXIT_INTERRUPTED ? EXIT_OK : code;
}

/** Rejects what `kubectl get` rejects, in its words. */
function combinationErrors(flags: GetFlags, names: readonly string[]): string[] {
  if (names.length === 0) return [];
  const { tenant, cluster, node, reporter, state, selector } = flags;
  const isSelecting = [tenant, cluster, node, reporter, state].some((value) => value !== undefined);
  if (isSelecting || (selector?.requirements.length ?? 0) > 0)
    return ['name cannot be provided when a selector is specified'];
  if (flags['all-namespaces']) return ['a resource cannot be retrieved by name across all namespaces'];
  if (flags.watch && names.length > 1)
    return ['you may only watch a single resource or type of resource at a time'];
  return [];
}

/**
 * Prints the tunnels with these names in the given order, and an error for each that does not exist. Prints only the
 * errors if the tunnel is watched. Rejects with `ApiError`.
 *
 * @returns true if all of them exist
 */
async function printNamed(
  { format, readNamed }: TunnelQuery,
  names: readonly string[],
  flags: GetFlags,
  terminal: Terminal,
): Promise<boolean> {
  const { found, unavailable } = await readNamed(names, terminal.interrupted);
  if (unavailable !== undefined) warnAboutSlices(terminal, unavailable);
  const isIgnored = flags['ignore-not-found'];
  const texts = names.flatMap((name) => found.get(name) ?? []);
  const nowMs = systemClock.wallMs();
  const out = (text: string): void => terminal.out(text);
  if (!flags.watch) {
    if (names.length > 1 && (texts.length > 0 || !isIgnored)) format.print(texts, nowMs, out);
    else for (const text of texts) format.printSingle(text, nowMs, out);
  }
  const missing = names.filter((name) => !found.has(name));
  for (const name of isIgnored ? [] : missing)
    terminal.err(
      `Error from server (NotFound): reversetunnels.reverse-tunnel.io ${JSON.stringify(name)} not found\n`,
    );
  return missing.length === 0;
}

/** Separates key, form and text of a tunnel. Control characters occur in no key. */
const SEPARATOR = '\0';

/** Prints all tunnels in the order of kubectl. Rejects with `ApiError`. */
async function list(query: TunnelQuery, terminal: Terminal): Promise<void> {
  const { linesOfObject, linesOfSlice } = query;
  // One string per tunnel, because there may be 1,000,000. Sorted, both forms of a tunnel are adjacent, the object first.
  const lines: string[] = [];
  const unavailable = await listTunnels(
    query.objects,
    query.slices,
    terminal.interrupted,
    (object) => {
      for (const { key, text } of linesOfObject(object)) lines.push([key, 'object', text].join(SEPARATOR));
    },
    (slice) => {
      for (const { key, text } of linesOfSlice(slice)) lines.push([key, 'slice', text].join(SEPARATOR));
    },
  );
  if (unavailable !== undefined) warnAboutSlices(terminal, unavailable);
  lines.sort();
  let count = 0;
  let previous = '';
  for (const line of lines) {
    const end = line.indexOf(SEPARATOR);
    const key = line.slice(0, end);
    if (key === previous) continue;
    previous = key;
    lines[count] = line.slice(line.indexOf(SEPARATOR, end + 1) + 1);
    count += 1;
  }
  lines.length = count;
  printTexts(query, lines, terminal);
}
