import { systemClock } from '../clock.ts';
import { listAll, openCluster, type Cluster } from '../cli/cluster.ts';
import { COMMON_FLAGS_HELP, parseCommonFlags, type CommonFlags } from '../cli/command-flags.ts';
import { replicasFromLeases } from '../cli/replicas.ts';
import { INTERRUPTED, processTerminal, type Terminal } from '../cli/terminal.ts';
import { ApiError } from '../k8s/api-error.ts';
import { ConnectionError } from '../k8s/connection.ts';
import { LEADER_LEASE } from '../k8s/lease.ts';
import { watchFleet } from './fleet-watcher.ts';
import { renderScreen } from './screen.ts';
import { summarizeTunnel, summarize, type FleetSnapshot } from './summary.ts';

/** Lines of reporters and tenants that fit a screen. */
const DEFAULT_TOP = 20;
/** A screen is drawn anew at most so often, and at least so often, as ages go on. */
const REDRAW_MS = 1000;

const HELP = `Usage: reverse-tunnel-operator status [FLAG ...]
       kubectl rt status [FLAG ...]

Summarizes operator replicas, reporters and tenants, and how many reported tunnels are pending.

${COMMON_FLAGS_HELP}  -w, --watch
        redraw on changes, at most once per second; with -o json, print one line per change
  --top N
        maximum number of reporters and tenants to show, unhealthy ones first; 0: all (default: ${DEFAULT_TOP})
  --help

Exit codes: 0 success; 1 failure; 2 invalid flag or value.
`;

interface StatusFlags extends CommonFlags {
  readonly watch: boolean;
  readonly top: number;
}

/**
 * `status`: prints the fleet once, or until it is interrupted.
 *
 * @param argv the arguments after `status`
 * @returns the exit code
 */
export async function runStatus(argv: readonly string[], terminal = processTerminal()): Promise<number> {
  const parsed = parseStatus(argv);
  if ('help' in parsed) {
    terminal.out(HELP);
    return 0;
  }
  if ('errors' in parsed) {
    for (const mistake of parsed.errors) terminal.err(`status: ${mistake}\n`);
    terminal.err('status: see --help for all flags\n');
    return 2;
  }
  const { flags } = parsed;
  let cluster: Cluster | undefined;
  try {
    cluster = await openCluster(flags, process.env, systemClock, 'status');
    // Also before watching: what is wrong from the start ends the command, what comes later is waited out.
    const snapshot = await fetchSnapshot(cluster, terminal.interrupted);
    if (flags.watch) await watch(cluster, flags, terminal);
    else terminal.out(render(snapshot, cluster, flags));
    return 0;
  } catch (error) {
    if (terminal.interrupted.aborted) return flags.watch ? 0 : INTERRUPTED;
    if (!(error instanceof ConnectionError || error instanceof ApiError)) throw error;
    terminal.err(`status: ${error.message}\n`);
    return 1;
  } finally {
    await cluster?.close();
  }
}

/** As for `parseInspect`: what is asked for, or every mistake. */
function parseStatus(
  argv: readonly string[],
): { help: true } | { errors: readonly string[] } | { flags: StatusFlags } {
  const parsed = parseCommonFlags(argv, { watch: { type: 'boolean', short: 'w' }, top: { type: 'string' } });
  if (!('flags' in parsed)) return parsed;
  const { watch, top = String(DEFAULT_TOP) } = parsed.extra;
  if (typeof top !== 'string' || !/^\d{1,6}$/.test(top)) {
    return { errors: [`--top: ${JSON.stringify(top)} must be a whole number from 0 to 999999`] };
  }
  return { flags: { ...parsed.flags, watch: watch === true, top: Number(top) } };
}

/** All three at once. They are of different moments, by as much as the longest list takes. Rejects with `ApiError`. */
async function fetchSnapshot(cluster: Cluster, signal: AbortSignal): Promise<FleetSnapshot> {
  const [objects, reporters, leases] = await Promise.all([
    listAll(cluster.tunnels, summarizeTunnel, signal),
    listAll(cluster.reporters, (object) => object, signal),
    listAll(cluster.leases, (object) => object, signal),
  ]);
  return {
    objects,
    reporters,
    replicas: replicasFromLeases(leases, LEADER_LEASE),
    nowMs: systemClock.wallMs(),
  };
}

/**
 * The fleet as text, or as one JSON document; with `--watch` on one line, so that each line is a document.
 *
 * @param staleReason why it may be out of date
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
  const text = renderScreen(summary, { namespace, server, nowMs: snapshot.nowMs, top: flags.top });
  return staleReason === undefined ? text : `${text}\nstale: ${staleReason}\n`;
}

/** Shows the fleet each time it has changed, until interrupted; on a terminal always on the same place. */
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
    // Leases change every few seconds and most of what they change is not shown.
    else if (text !== lastText) terminal.out(flags.output === 'json' ? text : `${text}\n`);
    lastText = text;
  }

  // By a clock and not by each change: a fleet that starts changes thousands of rows a second.
  const drawing = setInterval(redraw, REDRAW_MS);
  await fleet.ended;
  clearInterval(drawing);
}
