import type { FleetStatistics } from './fleet-statistics.ts';

/** What the line of progress and the summary tell of, beside the statistics. */
export interface FleetSize {
  readonly reporters: number;
  readonly tunnels: number;
}

/** One line, about 100 characters, without an end of line. */
export function progressLine(size: FleetSize, seen: FleetStatistics): string {
  return [
    `connected ${count(seen.connected)}/${count(size.reporters)}`,
    `tunnels ${count(size.tunnels)}`,
    `reports ${count(reports(seen))}`,
    `ACKs ${count(seen.acks)}`,
    `reconnects ${count(reconnects(seen))}`,
    `ACK p99 ${milliseconds(seen.ackMs.p99)}`,
  ].join('  ');
}

/** The table of figures at the end, one line a figure, with an end of line after each. */
export function summary(size: FleetSize, seen: FleetStatistics, elapsedMs: number): string {
  const rows: [string, string][] = [
    ['time', `${(elapsedMs / 1000).toFixed(1)} s`],
    ['reporters connected', `${count(seen.connected)} of ${count(size.reporters)}`],
    ['tunnels', count(size.tunnels)],
    ['reports', `${count(reports(seen))} (${kinds(seen)})`],
    ['tunnels added, removed', `${count(seen.tunnelsAdded)}, ${count(seen.tunnelsRemoved)}`],
    ['ACKs', count(seen.acks)],
    ['ACKs out of order', count(seen.outOfOrderAcks)],
    ['NACKs', count(seen.nacks)],
    ['reconnects', count(reconnects(seen))],
    ['disconnects', disconnects(seen)],
    ['updates dropped', count(seen.droppedUpdates)],
    ['ACK p50, p99, max', [seen.ackMs.p50, seen.ackMs.p99, seen.ackMs.max].map(milliseconds).join(', ')],
  ];
  return rows.map(([name, value]) => `${name.padEnd(24)}${value}\n`).join('');
}

/** How the service can be reached no more, in a few words: the network's error code, or what was said. */
export function whyDisconnected(seen: FleetStatistics): string {
  const last = seen.lastDisconnect;
  if (last === undefined) return 'no response yet';
  // grpc-js: `No connection established. Last error: Error: connect ECONNREFUSED 127.0.0.1:18000 (2026-…)`.
  const code = /\bE[A-Z]{4,}\b/.exec(last.message)?.[0];
  return code ?? (last.message === '' ? last.reason : `${last.reason}: ${last.message.slice(0, 200)}`);
}

function reports(seen: FleetStatistics): number {
  return seen.reports.full + seen.reports.delta + seen.reports.heartbeat;
}

/** Connections that were made again; attempts in vain do not count. */
function reconnects(seen: FleetStatistics): number {
  return Math.max(0, seen.connects - seen.everConnected);
}

/** The reports by what was in them. */
function kinds({ reports: { full, delta, heartbeat } }: FleetStatistics): string {
  return `${count(full)} full, ${count(delta)} delta, ${count(heartbeat)} heartbeat`;
}

/** Only the reasons that occurred, in Envoy's words. */
function disconnects(seen: FleetStatistics): string {
  const happened = Object.entries(seen.disconnects).filter(([, times]) => times > 0);
  return happened.length === 0
    ? '0'
    : happened.map(([reason, times]) => `${reason} ${count(times)}`).join(', ');
}

function milliseconds(ms: number): string {
  return `${ms.toFixed(1)} ms`;
}

/** With commas, as figures reach millions. */
function count(value: number): string {
  return value.toLocaleString('en-US');
}
