/** A reporting server in a process of its own, so that the memory used by an attack can be measured. */
import { pino } from 'pino';
import { systemClock } from '../../src/clock.ts';
import { ReportingServer, type ReportingServerOptions } from '../../src/grpc/reporting-server.ts';
import { createMetrics } from '../../src/metrics.ts';

/** Limits that differ from the operator's. */
export type VictimOptions = Pick<ReportingServerOptions, 'limits'> &
  Partial<Pick<ReportingServerOptions, 'maxMessageSizeBytes'>>;

/** The state of the victim. */
export interface VictimState {
  readonly address: string;
  /** Heap and external memory after a garbage collection. */
  readonly usedBytes: number;
  readonly residentBytes: number;
  /** Peak since the start. */
  readonly peakResidentBytes: number;
  /** Counts by reason. */
  readonly rejected: Readonly<Record<string, number>>;
  /** Log lines about rejected connections. */
  readonly rejectionLogs: readonly { readonly address: string; readonly reason: string }[];
  /** Log lines of level error and above. */
  readonly errors: readonly string[];
}

const options = JSON.parse(process.argv[2] ?? '{}') as VictimOptions;
const metrics = createMetrics();
const rejectionLogs: { address: string; reason: string }[] = [];
const errors: string[] = [];
const server = new ReportingServer({
  maxMessageSizeBytes: 64 * 1024 * 1024,
  maxConnectionsPerAddress: 2000,
  maxTunnelsPerReporter: 500_000,
  ...options,
  address: '127.0.0.1:0',
  reportIntervalMs: () => 5000,
  onInvalid: 'skip',
  auth: { mode: 'insecure', tls: undefined },
  maxStreamAgeMs: 3_600_000,
  random: Math.random,
  // Reports are discarded, so that only the server buffers anything.
  sink: {
    reporterConnected() {},
    reporterDisconnected() {},
    knownTunnels: () => [],
    accept: () => undefined,
  },
  onLargeReport: () => undefined,
  clock: systemClock,
  metrics,
  log: pino({ base: null }, { write: recordLogLine }),
});
const address = await server.listen();
process.on('disconnect', () => process.exit(0));
process.on('message', () => void sendState());
await sendState();

function recordLogLine(line: string): void {
  const entry = JSON.parse(line) as { level: number; address?: string; reason?: string };
  if (entry.level >= 50) errors.push(line);
  const { address: peerAddress, reason } = entry;
  if (peerAddress !== undefined && reason !== undefined) rejectionLogs.push({ address: peerAddress, reason });
}

async function sendState(): Promise<void> {
  globalThis.gc?.();
  const { heapUsed, external, rss } = process.memoryUsage();
  const { values } = await metrics.connectionsRejected.get();
  process.send?.({
    address,
    usedBytes: heapUsed + external,
    residentBytes: rss,
    peakResidentBytes: process.resourceUsage().maxRSS * 1024,
    rejected: Object.fromEntries(values.map(({ labels, value }) => [labels.reason, value])),
    rejectionLogs,
    errors,
  } satisfies VictimState);
}
