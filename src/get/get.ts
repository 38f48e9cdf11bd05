import { hash } from 'node:crypto';
import { systemClock } from '../clock.ts';
import { PAGE_LIMIT, SLICE_PAGE_LIMIT, type Cluster } from '../cli/cluster.ts';
import { runOnCluster } from '../cli/cluster-command.ts';
import { COMMON_FLAGS, CONNECTION_FLAGS } from '../cli/kubectl-flags.ts';
import { EXIT_INTERRUPTED, processTerminal, type Terminal } from '../cli/terminal.ts';
import { createNames } from '../core/names.ts';
import type { SliceObject } from '../core/slice-object.ts';
import type { TunnelObject } from '../core/tunnel-object.ts';
import { ApiError } from '../k8s/api-error.ts';
import { enumOf, nonEmpty } from '../flag-values.ts';
import { EXIT_OK, endWithUsage, parseFlags, type CommandDescription, type FlagValues } from '../flags.ts';
import { sliceResource, tunnelResource } from '../k8s/resources.ts';
import { labelSelector } from '../cli/label-selector.ts';
import { listTunnels, selecting } from './list-tunnels.ts';
import { listedTunnelsOf, tunnelOfObject, type ListedTunnel } from './listed-tunnel.ts';
import { outputFormat, OUTPUTS, type OutputFormat, type Output } from './output-format.ts';
import { tunnelFilter, type TunnelFilter } from './tunnel-filter.ts';
import { VisibleTunnels, type TunnelLine } from './visible-tunnels.ts';
import { OBJECT_PREFIX, SLICE_PREFIX, watchTunnels } from './watch-tunnels.ts';

/** The kubeconfig cluster cannot be replaced, because `--cluster` is a filter. */
const { cluster: _cluster, ...OTHER_CONNECTION_FLAGS } = CONNECTION_FLAGS;

const COMMAND = {
  usage: ['reverse-tunnel-operator get [FLAG ...]', 'kubectl rt get [FLAG ...]'],
  description:
    'Prints tunnels as kubectl get reversetunnels does, whether they are ReverseTunnel objects or entries of ' +
    'ReverseTunnelSlices. A tunnel in both is printed once. The AGE of an entry is that of its slice.',
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
  footer: 'Exit codes: 0 success; 1 failure; 2 invalid flag or value; 130 interrupted.\n',
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
  const { values } = parsed;
  const connection = { ...values, cluster: undefined, output: 'text' } as const;
  const code = await runOnCluster('get', connection, env, terminal, async (cluster) => {
    const query = createQuery(cluster, values);
    await (values.watch ? watch : list)(query, terminal);
    return EXIT_OK;
  });
  // A watch has no other end.
  return values.watch && code === EXIT_INTERRUPTED ? EXIT_OK : code;
}

/** What is read, and how it is shown. */
interface Query {
  readonly objects: ReturnType<typeof selecting<TunnelObject>>;
  readonly slices: (atVersion?: string) => ReturnType<typeof selecting<SliceObject>>;
  readonly linesOfObject: (object: TunnelObject) => readonly TunnelLine[];
  readonly linesOfSlice: (slice: SliceObject) => readonly TunnelLine[];
  readonly format: OutputFormat;
  readonly output: Output;
  /** Completes "no tunnels found". */
  readonly place: string;
}

function createQuery({ client, namespace }: Cluster, flags: GetFlags): Query {
  const names = createNames((text) => hash('sha256', text, 'buffer'));
  const filter: TunnelFilter = tunnelFilter(names, flags, flags.selector?.requirements ?? []);
  const isGlobal = flags['all-namespaces'];
  const { output } = flags;
  const format = outputFormat({
    output,
    hasHeader: !flags['no-headers'],
    hasNamespace: isGlobal,
    hasEvents: flags.watch && flags['output-watch-events'],
  });
  const objects = client.resource<TunnelObject>(inScope(tunnelResource(namespace), isGlobal));
  const slices = client.resource<SliceObject>(inScope(sliceResource(namespace), isGlobal));
  const lineOf = (tunnel: ListedTunnel): TunnelLine => ({
    key: `${tunnel.metadata.namespace ?? ''}/${tunnel.metadata.name}`,
    text: format.encode(tunnel),
  });
  return {
    objects: selecting(objects, filter.objects),
    slices: (atVersion) => selecting(slices, filter.slices, atVersion),
    linesOfObject(object) {
      const tunnel = tunnelOfObject(object);
      return filter.matches(tunnel) ? [lineOf(tunnel)] : [];
    },
    linesOfSlice: (slice) =>
      [...listedTunnelsOf(names, slice)].filter((tunnel) => filter.matches(tunnel)).map(lineOf),
    format,
    output,
    place: isGlobal ? '' : ` in ${namespace} namespace`,
  };
}

function inScope<R extends { readonly namespace: string }>(
  { namespace, ...resource }: R,
  isGlobal: boolean,
): Omit<R, 'namespace'> & { readonly namespace?: string } {
  return isGlobal ? resource : { ...resource, namespace };
}

/** Separates key, form and text of a tunnel. Control characters occur in no key. */
const SEPARATOR = '\0';

/** Prints all tunnels in the order of kubectl. Rejects with `ApiError`. */
async function list(query: Query, terminal: Terminal): Promise<void> {
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
  printList(query, lines, terminal);
}

function printList({ format, output, place }: Query, texts: readonly string[], terminal: Terminal): void {
  if (texts.length === 0 && (output === '' || output === 'wide')) terminal.err(`No tunnels found${place}.\n`);
  else format.print(texts, systemClock.wallMs(), (text) => terminal.out(text));
}

function warnAboutSlices(terminal: Terminal, error: Error): void {
  terminal.err(`get: ${error.message}; only objects are shown\n`);
}

/**
 * How long a removed tunnel is remembered: a tunnel that changes its form leaves the one watch before it appears in the
 * other one, as their events have no common order.
 */
const FORM_CHANGE_MS = 1000;

/** Prints all tunnels, and then each change until it is interrupted. Rejects with `ApiError`. */
async function watch(query: Query, terminal: Terminal): Promise<void> {
  const { format, linesOfObject, linesOfSlice } = query;
  const removed = new Map<string, { readonly text: string; readonly cancel: () => void }>();
  let isListed = false;

  function print(type: 'ADDED' | 'MODIFIED' | 'DELETED', text: string): void {
    format.printChange(type, text, systemClock.wallMs(), (line) => terminal.out(line));
  }

  const tunnels = new VisibleTunnels((key, before, after) => {
    if (!isListed) return;
    const left = removed.get(key);
    left?.cancel();
    removed.delete(key);
    const shown = before ?? left?.text;
    if (after === undefined) {
      const text = before ?? '';
      const cancel = systemClock.setTimer(FORM_CHANGE_MS, () => {
        removed.delete(key);
        print('DELETED', text);
      });
      removed.set(key, { text, cancel });
    } else if (shown === undefined) print('ADDED', after);
    else if (!format.isSame(shown, after)) print('MODIFIED', after);
  });

  // A failure of one list ends the other watch as well.
  const failure = new AbortController();
  const signal = AbortSignal.any([terminal.interrupted, failure.signal]);
  const onBroken = (error: Error): void => terminal.err(`get: ${error.message}; retrying\n`);
  const objects = watchTunnels(
    {
      source: query.objects,
      pageLimit: PAGE_LIMIT,
      prefix: OBJECT_PREFIX,
      isOptional: false,
      linesOf: linesOfObject,
    },
    tunnels,
    systemClock,
    signal,
    onBroken,
  );
  const slices = watchTunnels(
    {
      source: query.slices(),
      pageLimit: SLICE_PAGE_LIMIT,
      prefix: SLICE_PREFIX,
      isOptional: true,
      linesOf: linesOfSlice,
    },
    tunnels,
    systemClock,
    signal,
    onBroken,
  );
  const ended = Promise.all([objects.ended, slices.ended]);
  try {
    const listed = Promise.all([objects.listed, slices.listed]);
    const errors = await Promise.race([listed, ended.then(() => undefined)]);
    if (errors === undefined) return;
    for (const error of errors)
      if (error instanceof ApiError && error.kind !== 'no_kind_match') warnAboutSlices(terminal, error);
    printList(query, tunnels.sorted(), terminal);
    isListed = true;
    await ended;
  } finally {
    failure.abort();
    for (const { cancel } of removed.values()) cancel();
  }
}
