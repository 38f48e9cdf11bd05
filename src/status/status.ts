import { systemClock } from '../clock.ts';
import { listAll, listExpectations, listSlices, type Cluster } from '../cli/cluster.ts';
import { runOnCluster } from '../cli/cluster-command.ts';
import { COMMON_FLAGS, CONNECTION_FLAGS } from '../cli/kubectl-flags.ts';
import { replicasFromLeases } from '../cli/replicas.ts';
import { EXIT_INTERRUPTED, processTerminal, type Terminal } from '../cli/terminal.ts';
import { numberInRange } from '../flag-values.ts';
import { EXIT_OK, endWithUsage, parseFlags, type CommandDescription, type FlagValues } from '../flags.ts';
import { LEADER_LEASE } from '../k8s/lease.ts';
import { watchFleet } from './fleet-watcher.ts';
import { renderSummary } from './render.ts';
import { summarizeSlice, summarizeTunnel, summarize, type FleetSnapshot } from './summary.ts';

/** With `--watch`, the output is redrawn at this interval: no more often, and on a terminal also without a change. */
const REDRAW_INTERVAL_MS = 1000;

/** The command line, also for its completion. */
export const COMMAND = {
  usage: ['reverse-tunnel-operator status [FLAG ...]', 'kubectl rt status [FLAG ...]'],
  description:
    'Summarizes operator replicas, reporters and tenants, and how many reported tunnels are pending. Expectations ' +
    'that are not satisfied come first. Tunnels are counted once, whether they are objects or entries of slices.',
  flags: {
    ...COMMON_FLAGS,
    watch: {
      short: 'w',
      description: 'redraw on changes, at most once per second; with -o json, print one line per change',
    },
    top: {
      metavar: 'N',
      description: 'maximum number of reporters and tenants to show, unhealthy ones first; 0: all',
      default: '20',
      read: numberInRange(0, 999_999),
    },
    ...CONNECTION_FLAGS,
  },
  footer: 'Exit codes: 0 success; 1 failure; 2 invalid flag or value; 130 interrupted.\n',
} satisfies CommandDescription;

type StatusFlags = FlagValues<(typeof COMMAND)['flags']>;

/**
 * Runs the command `status`: prints the state of the fleet once, or with `--watch` until it is interrupted.
 *
 * @param argv the arguments after `status`
 * @returns the exit code
 */
export async function runStatus(
  argv: readonly string[],
  terminal = processTerminal(),
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<number> {
  const parsed = parseFlags(COMMAND, argv);
  if (!('values' in parsed)) return endWithUsage('status', parsed, terminal);
  const flags = parsed.values;
  const code = await runOnCluster('status', flags, env, terminal, async (cluster) => {
    // This also precedes a watch: an error at the start ends the command, while later errors are retried.
    const snapshot = await fetchSnapshot(cluster, terminal.interrupted);
    if (flags.watch) await watch(cluster, flags, terminal);
    else terminal.out(render(snapshot, cluster, flags));
    return EXIT_OK;
  });
  // A watch has no other end.
  return flags.watch && code === EXIT_INTERRUPTED ? EXIT_OK : code;
}

/** Lists all objects concurrently; the lists can be as far apart in time as the longest one takes. Rejects with `ApiError`. */
async function fetchSnapshot(cluster: Cluster, signal: AbortSignal): Promise<FleetSnapshot> {
  const [objects, slices, reporters, expectations, leases] = await Promise.all([
    listAll(cluster.tunnels, summarizeTunnel, signal),
    listSlices(cluster, summarizeSlice, signal),
    listAll(cluster.reporters, (object) => object, signal),
    listExpectations(cluster, signal),
    listAll(cluster.leases, (object) => object, signal),
  ]);
  return {
    objects,
    slices,
    reporters,
    expectations,
    replicas: replicasFromLeases(leases, LEADER_LEASE),
    nowMs: systemClock.wallMs(),
  };
}

/**
 * Renders the state of the fleet as text or as a JSON document. With `--watch`, the document is a single line.
 *
 * @param staleReason why the snapshot may be out of date
 */
function render(snapshot: FleetSnapshot, cluster: Cluster, flags: StatusFlags, staleReason?: string): string {
  const { namespace } = cluster;
  const server = cluster.connection.server.href;
  const summary = summarize(snapshot);
  if (flags.output === 'json') {
    const content = {
      namespace,
      server,
      ...summary,
      ...(staleReason === undefined ? {} : { error: staleReason }),
    };
    return `${JSON.stringify(content, undefined, flags.watch ? undefined : 2)}\n`;
  }
  const text = renderSummary(summary, { namespace, server, nowMs: snapshot.nowMs, top: flags.top });
  return staleReason === undefined ? text : `${text}\nstale: ${staleReason}\n`;
}

/** Prints the state of the fleet after each change until it is interrupted; a terminal is cleared first. */
async function watch(cluster: Cluster, flags: StatusFlags, terminal: Terminal): Promise<void> {
  const { interrupted } = terminal;
  const redraws = terminal.canRedraw && flags.output === 'text';
  let changed = false;
  let lastText = '';
  const fleet = watchFleet(cluster, systemClock, interrupted, () => {
    changed = true;
  });

  function redraw(): void {
    if (!fleet.hasSynced() || (!changed && !redraws)) return;
    changed = false;
    const text = render(fleet.snapshot(), cluster, flags, fleet.staleReason());
    if (redraws) terminal.out(`\u001B[H\u001B[2J${text}`);
    // Leases change every few seconds, and most of these changes are not visible.
    else if (text !== lastText) terminal.out(flags.output === 'json' ? text : `${text}\n`);
    lastText = text;
  }

  // Redrawn at an interval instead of on each change: a fleet that starts changes thousands of objects per second.
  const timer = setInterval(redraw, REDRAW_INTERVAL_MS);
  await fleet.ended;
  clearInterval(timer);
}
