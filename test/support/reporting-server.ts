/**
 * A ReportingServer on a free loopback port with its sink in memory, and raw streams to it: what is sent are bytes, so
 * that a test can send what no decent client would.
 */
import { Client, credentials, Metadata, type ClientDuplexStream } from '@grpc/grpc-js';
import { pino } from 'pino';
import { systemClock } from '../../src/clock.ts';
import type { Report } from '../../src/core/report.ts';
import type { ReporterId } from '../../src/core/tunnel.ts';
import { loadReportingService, type ReportResponse } from '../../src/grpc/proto.ts';
import { ReportingServer, type ReportingServerOptions } from '../../src/grpc/server.ts';
import type { ReportSink } from '../../src/grpc/session.ts';
import { createMetrics, type Metrics } from '../../src/metrics.ts';
import { eventually } from './eventually.ts';
import { requestBytes, type RequestFields } from './wire.ts';

/** Long enough for two busy cores; reached only by what does not happen at all. */
const DEADLINE_MS = 20_000;

const { StreamReverseTunnels: METHOD } = loadReportingService().service;

/**
 * With a sink behind the one that remembers: told first; what its `fold` returns is the answer, and a report that it
 * refuses is not in `folded`.
 */
export interface TestServerOptions
  extends Partial<Omit<ReportingServerOptions, 'sink' | 'log' | 'metrics'>>, Partial<ReportSink> {}

export interface TestServer {
  readonly server: ReportingServer;
  readonly address: string;
  readonly metrics: Metrics;
  /** In the order they were folded. */
  readonly folded: { readonly reporter: ReporterId; readonly report: Report }[];
  /** What the sink was told of reporters' streams, as `r-0 connected`, in order. */
  readonly presence: readonly string[];
  /** Every log entry. */
  readonly logged: { readonly level: number; readonly msg: string; readonly [key: string]: unknown }[];
  /** Opens a stream on a connection of its own. */
  open(): TestStream;
  /** Opens streams that share one connection, at each call one. */
  connection(): () => TestStream;
  /** The value of a counter's series with this label value; 0 when nothing was counted. */
  count(
    metric: 'nacks' | 'streamsClosed' | 'rejectedTunnels' | 'nonceAnomalies' | 'reports',
    label: string,
  ): Promise<number>;
  /** Closes the connections of `open`, and the server where it still runs. */
  stop(): Promise<void>;
}

export interface TestStream {
  /** Writes a message as it is. */
  sendBytes(bytes: Buffer): void;
  send(fields: RequestFields): void;
  /** Every response so far, as decoded: what the server left out is missing. */
  readonly responses: Partial<ReportResponse>[];
  /** The next response that `next` has not given yet; fails when the stream ends before. */
  next(): Promise<Partial<ReportResponse>>;
  /** The status that ends the stream. */
  readonly ended: Promise<{ readonly code: number; readonly details: string }>;
  /** Half-closes: no more reports. */
  end(): void;
  cancel(): void;
  /** Takes no more responses until `resume`. */
  pause(): void;
  resume(): void;
  /** Messages that the connection has not taken yet, as the server does not read them. */
  readonly unsent: number;
}

/** Starts a server; what a test does not say is as in the operator by default. */
export async function startTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  const { fold, reporterConnected, reporterDisconnected, ...given } = options;
  const folded: TestServer['folded'] = [];
  const presence: string[] = [];
  const logged: TestServer['logged'] = [];
  const metrics = createMetrics();
  const clients = new Set<Client>();
  const server = new ReportingServer({
    address: '127.0.0.1:0',
    maxMessageSizeBytes: 64 * 1024 * 1024,
    reportIntervalMs: () => 5000,
    maxTunnelsPerReporter: 500_000,
    onInvalid: 'skip',
    clock: systemClock,
    ...given,
    metrics,
    log: pino({ level: 'trace', base: null }, { write: (line) => logged.push(JSON.parse(line)) }),
    sink: {
      reporterConnected(reporter) {
        reporterConnected?.(reporter);
        presence.push(`${reporter.id} connected`);
      },
      reporterDisconnected(reporter) {
        reporterDisconnected?.(reporter);
        presence.push(`${reporter.id} disconnected`);
      },
      fold(reporter, report, receivedMs) {
        const over = fold?.(reporter, report, receivedMs);
        if (over === undefined) folded.push({ reporter, report });
        return over;
      },
    },
  });
  const address = await server.listen();
  let stopped = false;
  const connect = (): Client => {
    // Its own connection, not the one that another client of this process has to the same address.
    const client = new Client(address, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
    clients.add(client);
    return client;
  };
  return {
    server,
    address,
    metrics,
    folded,
    presence,
    logged,
    open: () => openStream(connect()),
    connection() {
      const client = connect();
      return () => openStream(client);
    },
    async count(metric, label) {
      const { values } = await metrics[metric].get();
      return values.find(({ labels }) => Object.values(labels).includes(label))?.value ?? 0;
    },
    async stop() {
      for (const client of clients) client.close();
      if (!stopped) await server.close(0);
      stopped = true;
    },
  };
}

/** The bytes of a stream's first report, nonce 1 unless it is said otherwise. */
export function firstReport(id: string, fields: RequestFields = {}): Buffer {
  return requestBytes({ node: { id, cluster: 'edge' }, nonce: 1, ...fields });
}

function openStream(client: Client): TestStream {
  const call: ClientDuplexStream<Buffer, Partial<ReportResponse>> = client.makeBidiStreamRequest(
    METHOD.path,
    (bytes: Buffer) => bytes,
    (bytes: Buffer): Partial<ReportResponse> => METHOD.responseDeserialize(bytes),
    new Metadata(),
  );
  const responses: Partial<ReportResponse>[] = [];
  let given = 0;
  let unsent = 0;
  let final: { readonly code: number; readonly details: string } | undefined;
  call.on('data', (response: Partial<ReportResponse>) => responses.push(response));
  // The status event says the same; without a listener an error would end the test run.
  call.on('error', () => {});
  const ended = new Promise<{ readonly code: number; readonly details: string }>((resolve) => {
    call.on('status', ({ code, details }) => {
      final = { code, details };
      resolve(final);
    });
  });
  const sendBytes = (bytes: Buffer): void => {
    unsent += 1;
    call.write(bytes, () => {
      unsent -= 1;
    });
  };
  return {
    sendBytes,
    send: (fields) => sendBytes(requestBytes(fields)),
    responses,
    async next() {
      await eventually('a response', () => responses.length > given || final !== undefined, DEADLINE_MS);
      const response = responses[given];
      if (response === undefined)
        throw new Error(`the stream ended instead: ${final?.code} ${final?.details}`);
      given += 1;
      return response;
    },
    ended,
    end: () => call.end(),
    cancel: () => call.cancel(),
    pause: () => void call.pause(),
    resume: () => void call.resume(),
    get unsent() {
      return unsent;
    },
  };
}
