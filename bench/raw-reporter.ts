/** A reporter by hand: one stream, whose every report is measured from its bytes being sent to its ACK. */
import { promisify } from 'node:util';
import { Client, credentials, type ClientDuplexStream } from '@grpc/grpc-js';
import type { ReporterId } from '../src/core/tunnel.ts';
import { encodeReport } from '../src/grpc/encode.ts';
import { loadReportingService, type ReportResponse } from '../src/grpc/proto.ts';
import type { ReportedTunnel, ReportMessage } from '../src/grpc/report-message.ts';
import { FLEET_DEFAULTS } from '../src/simulate/fleet.ts';
import { initiator } from '../src/simulate/tunnel-registry.ts';
import { machineMs } from './machine.ts';

/** Often enough not to be taken for silent. */
const HEARTBEAT_MS = 5000;
const CONNECT_TIMEOUT_MS = 10_000;

export interface ReportAck {
  /** The machine's time just before the encoded report was handed to gRPC. */
  readonly sentMs: number;
  readonly ackedMs: number;
  readonly bytes: number;
}

export interface RawReporter {
  /** Resolves at the ACK; rejects on a NACK or when the stream ends. Reports may be sent before others are ACKed. */
  send(report: Partial<Pick<ReportMessage, 'added' | 'removedNames' | 'fullPush'>>): Promise<ReportAck>;
  close(): void;
}

/**
 * Opens a stream on a connection of its own, which stands when this resolves. The first report that is sent must be a
 * full push, as Envoy's is.
 */
export async function openRawReporter(address: string, id: string): Promise<RawReporter> {
  const node: ReporterId = { cluster: FLEET_DEFAULTS.reporterCluster, id };
  const method = loadReportingService().service.StreamReverseTunnels;
  const client = new Client(address, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  const connected = promisify<number, void>(client.waitForReady.bind(client));
  await connected(Date.now() + CONNECT_TIMEOUT_MS);
  const call: ClientDuplexStream<Buffer, ReportResponse> = client.makeBidiStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
  );
  const pending = new Map<
    string,
    {
      readonly sentMs: number;
      readonly bytes: number;
      resolve(acked: ReportAck): void;
      reject(error: Error): void;
    }
  >();
  let nonce = 0n;
  let closed = false;

  function send(report: Partial<ReportMessage>): Promise<ReportAck> {
    nonce += 1n;
    const bytes = encodeReport({ node, added: [], removedNames: [], fullPush: false, nonce, ...report });
    const key = String(nonce);
    return new Promise((resolve, reject) => {
      pending.set(key, { sentMs: machineMs(), bytes: bytes.length, resolve, reject });
      call.write(bytes);
    });
  }

  call.on('data', ({ request_nonce: key, error_detail: error }: ReportResponse) => {
    const ackedMs = machineMs();
    const report = pending.get(key);
    pending.delete(key);
    if (error !== undefined && error !== null) report?.reject(new Error(`NACK: ${error.message}`));
    else report?.resolve({ sentMs: report.sentMs, bytes: report.bytes, ackedMs });
  });
  // What went wrong is in the status, which always comes.
  call.on('error', () => {});
  call.on('status', ({ code, details }) => {
    clearInterval(heartbeat);
    if (closed) return;
    for (const report of pending.values())
      report.reject(new Error(`the stream was closed: ${code} ${details}`));
    pending.clear();
  });
  const heartbeat = setInterval(() => {
    // Its fate is that of the stream, and told there.
    if (nonce > 0n) send({}).catch(() => undefined);
  }, HEARTBEAT_MS);

  return {
    send,
    close() {
      closed = true;
      clearInterval(heartbeat);
      call.cancel();
      client.close();
    },
  };
}

/** Tunnels of the initiators with these serial numbers, as the simulated fleet has them. */
export function reportedTunnels(from: number, count: number): ReportedTunnel[] {
  const seconds = Math.floor(Date.now() / 1000);
  return Array.from({ length: count }, (_, index) => {
    const identity = initiator(from + index, FLEET_DEFAULTS);
    return { name: identity.nodeID, ...identity, createdAt: { seconds, nanos: 123_456_000 } };
  });
}
