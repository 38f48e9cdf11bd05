import type { FleetStatistics } from './fleet-statistics.ts';

/** The current size of a fleet, for progress and summary. */
export interface FleetSize {
  readonly reporters: number;
  readonly tunnels: number;
}

/** Formats progress as a line of about 100 characters, without a line feed. */
export function formatProgress(size: FleetSize, statistics: FleetStatistics): string {
  return [
    `connected ${formatCount(statistics.connected)}/${formatCount(size.reporters)}`,
    `tunnels ${formatCount(size.tunnels)}`,
    `reports ${formatCount(totalReports(statistics))}`,
    `ACKs ${formatCount(statistics.acks)}`,
    `reconnects ${formatCount(reconnects(statistics))}`,
    `ACK p99 ${formatMilliseconds(statistics.ackMs.p99)}`,
  ].join('  ');
}

/** Formats the final statistics as a table with one line per value. */
export function formatSummary(size: FleetSize, statistics: FleetStatistics, elapsedMs: number): string {
  const rows: [string, string][] = [
    ['time', `${(elapsedMs / 1000).toFixed(1)} s`],
    ['reporters connected', `${formatCount(statistics.connected)} of ${formatCount(size.reporters)}`],
    ['tunnels', formatCount(size.tunnels)],
    ['reports', `${formatCount(totalReports(statistics))} (${formatKinds(statistics)})`],
    [
      'tunnels added, removed',
      `${formatCount(statistics.tunnelsAdded)}, ${formatCount(statistics.tunnelsRemoved)}`,
    ],
    ['ACKs', formatCount(statistics.acks)],
    ['ACKs out of order', formatCount(statistics.outOfOrderAcks)],
    ['NACKs', formatCount(statistics.nacks)],
    ['reconnects', formatCount(reconnects(statistics))],
    ['disconnects', formatDisconnects(statistics)],
    ['updates dropped', formatCount(statistics.droppedUpdates)],
    [
      'ACK p50, p99, max',
      [statistics.ackMs.p50, statistics.ackMs.p99, statistics.ackMs.max].map(formatMilliseconds).join(', '),
    ],
  ];
  return rows.map(([name, value]) => `${name.padEnd(24)}${value}\n`).join('');
}

/** Returns the cause of the last disconnect: the error code of the network, or the reason and the message. */
export function disconnectCause(statistics: FleetStatistics): string {
  const last = statistics.lastDisconnect;
  if (last === undefined) return 'no response yet';
  // grpc-js: `No connection established. Last error: Error: connect ECONNREFUSED 127.0.0.1:18000 (2026-…)`.
  const code = /\bE[A-Z]{4,}\b/.exec(last.message)?.[0];
  return code ?? (last.message === '' ? last.reason : `${last.reason}: ${last.message.slice(0, 200)}`);
}

function totalReports(statistics: FleetStatistics): number {
  return statistics.reports.full + statistics.reports.delta + statistics.reports.heartbeat;
}

/** Returns the number of reconnects; failed attempts are not counted. */
function reconnects(statistics: FleetStatistics): number {
  return Math.max(0, statistics.connects - statistics.everConnected);
}

function formatKinds({ reports: { full, delta, heartbeat } }: FleetStatistics): string {
  return `${formatCount(full)} full, ${formatCount(delta)} delta, ${formatCount(heartbeat)} heartbeat`;
}

/** Formats the reasons that occurred, with Envoy's names. */
function formatDisconnects(statistics: FleetStatistics): string {
  const occurred = Object.entries(statistics.disconnects).filter(([, count]) => count > 0);
  return occurred.length === 0
    ? '0'
    : occurred.map(([reason, count]) => `${reason} ${formatCount(count)}`).join(', ');
}

function formatMilliseconds(ms: number): string {
  return `${ms.toFixed(1)} ms`;
}

/** Formats a number with thousands separators, as counts reach millions. */
function formatCount(value: number): string {
  return value.toLocaleString('en-US');
}
