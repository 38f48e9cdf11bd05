/**
 * A reporting service that records reports and sends the responses of the test. It shares no code with the
 * operator's server, so that the fleet is not tested with the code that it was made to test.
 */
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import type { ReportMessage, ReportedTunnel } from '../../src/grpc/report-message.ts';
import type { ReportResponse } from '../../src/grpc/messages.ts';
import { REPORTING_SERVICE } from '../../src/grpc/reporting-service.ts';
import { applyReport } from './apply-reports.ts';
import { requestOf } from './wire.ts';

/** A stream as seen by the server. */
interface RecordedStream {
  readonly reports: ReportMessage[];
  /** Size of each report in bytes. */
  readonly sizes: number[];
  ended: boolean;
  /** The reporter's address and port. */
  readonly peer: string;
  /** Ends the stream with a gRPC status; 0 is OK. */
  end(code: number): void;
}

export type RecordingServer = Awaited<ReturnType<typeof startRecordingServer>>;

/** Returns an ACK; without an interval when `intervalMs` is undefined. */
export function ack(report: ReportMessage, intervalMs?: number): Partial<ReportResponse> {
  return {
    node_id: report.node?.id ?? '',
    request_nonce: String(report.nonce),
    ...(intervalMs !== undefined && {
      report_interval: { seconds: Math.floor(intervalMs / 1000), nanos: (intervalMs % 1000) * 1e6 },
    }),
  };
}

/** Starts a server on loopback, on a free port by default. */
export async function startRecordingServer(port = 0) {
  const server = new Server({ 'grpc.max_receive_message_length': -1 });
  const streams: RecordedStream[] = [];
  const held = new Map<string, Map<string, ReportedTunnel>>();
  const recording = {
    /** Returns the response to a report; undefined for none. Default: an ACK without an interval. */
    respond: (report: ReportMessage, _stream: RecordedStream): Partial<ReportResponse> | undefined =>
      ack(report),
  };

  server.addService(REPORTING_SERVICE, {
    StreamReverseTunnels(call: ServerDuplexStream<Buffer, Partial<ReportResponse>>) {
      const stream: RecordedStream = {
        reports: [],
        sizes: [],
        ended: false,
        peer: call.getPeer(),
        end: (code) => {
          if (code === 0) call.end();
          else call.emit('error', { code, details: 'ended by the test' });
        },
      };
      streams.push(stream);
      call.on('data', (bytes: Buffer) => {
        const report = decodeReport(bytes);
        stream.reports.push(report);
        stream.sizes.push(bytes.length);
        const id = report.node?.id ?? '';
        const tunnels = held.get(id) ?? new Map<string, ReportedTunnel>();
        held.set(id, tunnels);
        applyReport(tunnels, report);
        const response = recording.respond(report, stream);
        if (response !== undefined) call.write(response);
      });
      call.on('end', () => {
        stream.ended = true;
        call.end();
      });
      call.on('cancelled', () => (stream.ended = true));
      call.on('error', () => (stream.ended = true));
    },
  });
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error, at) => {
      if (error === null) resolve(at);
      else reject(error);
    });
  });
  return Object.assign(recording, {
    /** host:port. */
    address: `127.0.0.1:${bound}`,
    /** In the order in which they were opened. */
    streams,
    /** The tunnels of each reporter according to its reports on all streams: reporter ID → tunnel name → tunnel. */
    held,
    /** Closes everything immediately. */
    stop: (): void => server.forceShutdown(),
  });
}

function decodeReport(bytes: Buffer): ReportMessage {
  const request = requestOf(bytes);
  return {
    node: { cluster: request.node?.cluster ?? '', id: request.node?.id ?? '' },
    added: (request.added_tunnels ?? []).map(({ name = '', identity, created_at }) => ({
      name,
      tenantID: identity?.tenant_id ?? '',
      clusterID: identity?.cluster_id ?? '',
      nodeID: identity?.node_id ?? '',
      createdAt: { seconds: Number(created_at?.seconds ?? 0), nanos: created_at?.nanos ?? 0 },
    })),
    removedNames: request.removed_tunnel_names ?? [],
    fullPush: request.full_push ?? false,
    nonce: BigInt(request.nonce ?? 0),
  };
}
