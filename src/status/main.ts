import { systemClock } from '../clock.ts';
import { listAll, openCluster, type Cluster } from '../inspect/cluster.ts';
import { INSPECT_HELP, parseInspect, type InspectFlags } from '../inspect/command-flags.ts';
import { replicasOf } from '../inspect/replicas.ts';
import { INTERRUPTED, processTerminal, type Terminal } from '../inspect/terminal.ts';
import { ApiError } from '../k8s/api-error.ts';
import { ConnectionError } from '../k8s/connection.ts';
import { LEADER_LEASE } from '../k8s/lease-object.ts';
import { followFleet } from './live-fleet.ts';
import { screen } from './screen.ts';
import { countedRow, summarize, type FleetFacts } from './summary.ts';

/** Lines of reporters and tenants that fit a screen. */
const DEFAULT_TOP = 20;
/** A screen is drawn anew at most so often, and at least so often, as ages go on. */
const REDRAW_MS = 1000;

const HELP = `Usage: reverse-tunnel-operator status [FLAG ...]
       kubectl rt status [FLAG ...]

Summarizes operator replicas, reporters and tenants, and how many reported tunnels are pending.

${INSPECT_HELP}  -w, --watch
        redraw on changes, at most once per second; with -o json, print one line per change
  --top N
        maximum number of reporters and tenants to show, unhealthy ones first; 0: all (default: ${DEFAULT_TOP})
  --help

Exit codes: 0 success; 1 failure; 2 invalid flag or value.
`;

interface StatusFlags extends InspectFlags {
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
  if ('mistakes' in parsed) {
    for (const mistake of parsed.mistakes) terminal.err(`status: ${mistake}\n`);
    terminal.err('status: see --help for all flags\n');
    return 2;
  }
  const { flags } = parsed;
  let cluster: Cluster | undefined;
  try {
    cluster = await openCluster(flags, process.env, systemClock, 'status');
    // Also before watching: what is wrong from the start ends the command, what comes later is waited out.
    const facts = await readOnce(cluster, terminal.interrupted);
    if (flags.watch) await follow(cluster, flags, terminal);
    else terminal.out(shown(facts, cluster, flags));
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
): { help: true } | { mistakes: readonly string[] } | { flags: StatusFlags } {
  const parsed = parseInspect(argv, { watch: { type: 'boolean', short: 'w' }, top: { type: 'string' } });
  if (!('flags' in parsed)) return parsed;
  const { watch, top = String(DEFAULT_TOP) } = parsed.own;
  if (typeof top !== 'string' || !/^\d{1,6}$/.test(top)) {
    return { mistakes: [`--top: ${JSON.stringify(top)} must be a whole number from 0 to 999999`] };
  }
  return { flags: { ...parsed.flags, watch: watch === true, top: Number(top) } };
}

/** All three at once. They are of different moments, by as much as the longest list takes. Rejects with `ApiError`. */
async function readOnce(cluster: Cluster, signal: AbortSignal): Promise<FleetFacts> {
  const [rows, reporters, leases] = await Promise.all([
    listAll(cluster.rows, countedRow, signal),
    listAll(cluster.reporters, (object) => object, signal),
    listAll(cluster.leases, (object) => object, signal),
  ]);
  return { rows, reporters, replicas: replicasOf(leases, LEADER_LEASE), nowMs: systemClock.wallMs() };
}

/**
 * The fleet as text, or as one JSON document; with `--watch` on one line, so that each line is a document.
 *
 * @param trouble why it may be out of date
 */
function shown(facts: FleetFacts, cluster: Cluster, flags: StatusFlags, trouble?: string): string {
  const { namespace } = cluster;
  const server = cluster.connection.server.href;
  const summary = summarize(facts);
  if (flags.output === 'json') {
    const content = { namespace, server, ...summary, ...(trouble === undefined ? {} : { error: trouble }) };
    return `${JSON.stringify(content, undefined, flags.watch ? undefined : 2)}\n`;
  }
  const text = screen(summary, { namespace, server, nowMs: facts.nowMs, top: flags.top });
  return trouble === undefined ? text : `${text}\nstale: ${trouble}\n`;
}

/** Shows the fleet each time it has changed, until interrupted; on a terminal always on the same place. */
async function follow(cluster: Cluster, flags: StatusFlags, terminal: Terminal): Promise<void> {
  const { interrupted } = terminal;
  const redrawing = terminal.canRedraw && flags.output === 'text';
  let changed = false;
  let said = '';
  const fleet = followFleet(cluster, systemClock, interrupted, () => {
    changed = true;
  });

  function draw(): void {
    if (!fleet.listed() || (!changed && !redrawing)) return;
    changed = false;
    const text = shown(fleet.facts(), cluster, flags, fleet.trouble());
    if (redrawing) terminal.out(`\u001B[H\u001B[2J${text}`);
    // Leases change every few seconds and most of what they change is not shown.
    else if (text !== said) terminal.out(flags.output === 'json' ? text : `${text}\n`);
    said = text;
  }

  // By a clock and not by each change: a fleet that starts changes thousands of rows a second.
  const drawing = setInterval(draw, REDRAW_MS);
  await fleet.ended;
  clearInterval(drawing);
}
