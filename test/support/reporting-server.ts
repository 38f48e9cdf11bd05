/**
 * A ReportingServer on a free loopback port with an in-memory sink, and raw streams to it: tests send bytes, so
 * they can send what no client would.
 */
import type { ChannelCredentials, Client } from '@grpc/grpc-js';
import { pino } from 'pino';
import { systemClock } from '../../src/clock.ts';
import type { Peer } from '../../src/core/peer.ts';
import type { Report } from '../../src/core/report.ts';
import type { ReporterId } from '../../src/core/tunnel.ts';
import { ReportingServer, type ReportingServerOptions } from '../../src/grpc/reporting-server.ts';
import type { ReportSink } from '../../src/grpc/session-dependencies.ts';
import { createMetrics } from '../../src/metrics.ts';
import { dial, openStream, type TestStream } from './test-stream.ts';
import { requestBytes, type RequestFields } from './wire.ts';

/** Options that differ from the operator's; the given parts of the sink are called in addition. */
export interface TestServerOptions
  extends Partial<Omit<ReportingServerOptions, 'sink' | 'log' | 'metrics'>>, Partial<ReportSink> {}

type CountedMetric =
  | 'connectionsRejected'
  | 'streamsRejected'
  | 'nacks'
  | 'streamsClosed'
  | 'tunnelRejections'
  | 'nonceAnomalies'
  | 'reports';

/** A reporting service on loopback and what it has received. */
export type TestServer = Awaited<ReturnType<typeof startTestServer>>;

/** Starts a server with the operator's defaults, unless overridden. */
export async function startTestServer(options: TestServerOptions = {}) {
  const { accept, reporterConnected, reporterDisconnected, ...given } = options;
  const applied: { readonly reporter: ReporterId; readonly report: Report }[] = [];
  const peers: Peer[] = [];
  const connectionEvents: string[] = [];
  const logged: { readonly level: number; readonly msg: string; readonly [key: string]: unknown }[] = [];
  const metrics = createMetrics();
  const clients = new Set<Client>();
  const server = new ReportingServer({
    address: '127.0.0.1:0',
    maxMessageSizeBytes: 64 * 1024 * 1024,
    maxConnectionsPerAddress: 2000,
    reportIntervalMs: () => 5000,
    maxTunnelsPerReporter: 500_000,
    onInvalid: 'skip',
    auth: { mode: 'insecure', tls: undefined },
    maxStreamAgeMs: 3_600_000,
    random: Math.random,
    clock: systemClock,
    onLargeReport: () => undefined,
    ...given,
    metrics,
    log: pino({ level: 'trace', base: null }, { write: (line) => logged.push(JSON.parse(line)) }),
    sink: {
      reporterConnected(reporter, envoy, peer, isExpected) {
        reporterConnected?.(reporter, envoy, peer, isExpected);
        peers.push(peer);
        connectionEvents.push(`${reporter.id} connected`);
      },
      reporterDisconnected(reporter, why) {
        reporterDisconnected?.(reporter, why);
        connectionEvents.push(`${reporter.id} disconnected`);
      },
      // Those of the last report.
      knownTunnels: ({ id }) => applied.findLast(({ reporter }) => reporter.id === id)?.report.added ?? [],
      accept(reporter, report, receivedMs) {
        const limitExceeded = accept?.(reporter, report, receivedMs);
        if (limitExceeded === undefined) applied.push({ reporter, report });
        return limitExceeded;
      },
    },
  });
  const address = await server.listen();
  let stopped = false;
  const connect = (by?: ChannelCredentials): Client => {
    const client = dial(address, by);
    clients.add(client);
    return client;
  };
  return {
    server,
    address,
    metrics,
    /** In the order in which they were applied. */
    applied,
    /** The peer of each stream, in the order of identification. */
    peers,
    /** Connections and disconnections of reporters, for example `r-0 connected`, in order. */
    connectionEvents,
    /** All log entries. */
    logged,
    /** Opens a stream on a connection of its own, plaintext by default, optionally with a token. */
    open: (by?: ChannelCredentials, token?: string): TestStream => openStream(connect(by), token),
    /** Returns a function that opens streams on one shared connection. */
    connection(by?: ChannelCredentials, token?: string): () => TestStream {
      const client = connect(by);
      return () => openStream(client, token);
    },
    /** Returns a counter's value for a label value; 0 when nothing was counted. */
    async count(metric: CountedMetric, label: string): Promise<number> {
      const { values } = await metrics[metric].get();
      return values.find(({ labels }) => Object.values(labels).includes(label))?.value ?? 0;
    },
    /** Closes the connections, and the server if it is still running. */
    async stop(): Promise<void> {
      for (const client of clients) client.close();
      if (!stopped) await server.close(0);
      stopped = true;
    },
  };
}

/** Encodes the first report of a stream, with nonce 1 unless overridden. */
export function firstReport(id: string, fields: RequestFields = {}): Buffer {
  return requestBytes({ node: { id, cluster: 'edge' }, nonce: 1, ...fields });
}
