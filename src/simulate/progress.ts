import type { FleetStatistics } from './fleet-statistics.ts';

/** What the line of progress and the summary tell of, beside the statistics. */
export interface FleetSize {
  readonly reporters: number;
  readonly tunnels: number;
}

/** One line, about 100 characters, without an end of line. */
export function progressLine(size: FleetSize, statistics: FleetStatistics): string {
  return [
    `connected ${formatCount(statistics.connected)}/${formatCount(size.reporters)}`,
    `tunnels ${formatCount(size.tunnels)}`,
    `reports ${formatCount(totalReports(statistics))}`,
    `ACKs ${formatCount(statistics.acks)}`,
    `reconnects ${formatCount(reconnects(statistics))}`,
    `ACK p99 ${formatMilliseconds(statistics.ackMs.p99)}`,
  ].join('  ');
}

/** The table of figures at the end, one line a figure, with an end of line after each. */
export function summary(size: FleetSize, statistics: FleetStatistics, elapsedMs: number): string {
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

/** How the service can be reached no more, in a few words: the network's error code, or what was said. */
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

/** Connections that were made again; attempts in vain do not count. */
function reconnects(statistics: FleetStatistics): number {
  return Math.max(0, statistics.connects - statistics.everConnected);
}

/** The reports by what was in them. */
function formatKinds({ reports: { full, delta, heartbeat } }: FleetStatistics): string {
  return `${formatCount(full)} full, ${formatCount(delta)} delta, ${formatCount(heartbeat)} heartbeat`;
}

/** Only the reasons that occurred, in Envoy's words. */
function formatDisconnects(statistics: FleetStatistics): string {
  const happened = Object.entries(statistics.disconnects).filter(([, times]) => times > 0);
  return happened.length === 0
    ? '0'
    : happened.map(([reason, times]) => `${reason} ${formatCount(times)}`).join(', ');
}

function formatMilliseconds(ms: number): string {
  return `${ms.toFixed(1)} ms`;
}

/** With commas, as figures reach millions. */
function formatCount(value: number): string {
  return value.toLocaleString('en-US');
}
