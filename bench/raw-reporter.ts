/** A reporter that sends explicit reports on one stream, and measures the time from each report to its ACK. */
import { promisify } from 'node:util';
import { Client, credentials, type ClientDuplexStream } from '@grpc/grpc-js';
import type { ReporterId } from '../src/core/tunnel.ts';
import { encodeReport } from '../src/grpc/encode.ts';
import type { ReportResponse } from '../src/grpc/messages.ts';
import { REPORTING_SERVICE } from '../src/grpc/reporting-service.ts';
import type { ReportedTunnel, ReportMessage } from '../src/grpc/report-message.ts';
import { FLEET_DEFAULTS } from '../src/simulate/fleet.ts';
import { initiator } from '../src/simulate/tunnel-registry.ts';
import { machineMs } from './machine.ts';

/** Below the heartbeat timeout. */
const HEARTBEAT_MS = 5000;
const CONNECT_TIMEOUT_MS = 10_000;

export interface ReportAck {
  /** The machine time just before the encoded report was passed to gRPC. */
  readonly sentMs: number;
  readonly ackedMs: number;
  readonly bytes: number;
}

export interface RawReporter {
  /** Resolves at the ACK; rejects on a NACK or when the stream ends. Reports may be sent before previous ones are ACKed. */
  send(report: Partial<Pick<ReportMessage, 'added' | 'removedNames' | 'fullPush'>>): Promise<ReportAck>;
  close(): void;
}

/**
 * Opens a stream on a separate connection, which is established when this resolves. The first report must be a full push,
 * as with Envoy.
 */
export async function openRawReporter(address: string, id: string): Promise<RawReporter> {
  const node: ReporterId = { cluster: FLEET_DEFAULTS.reporterCluster, id };
  const method = REPORTING_SERVICE.StreamReverseTunnels;
  const client = new Client(address, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  const connected = promisify<number, void>(client.waitForReady.bind(client));
  await connected(Date.now() + CONNECT_TIMEOUT_MS);
  const call: ClientDuplexStream<Buffer, Partial<ReportResponse>> = client.makeBidiStreamRequest(
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
  // The status contains the same error and always follows.
  call.on('error', () => {});
  call.on('status', ({ code, details }) => {
    clearInterval(heartbeat);
    if (closed) return;
    for (const report of pending.values()) report.reject(new Error(`stream closed: ${code} ${details}`));
    pending.clear();
  });
  const heartbeat = setInterval(() => {
    // A failure is reported by the status of the stream.
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

/** Returns the tunnels of the initiators with these serial numbers, like those of the simulated fleet. */
export function reportedTunnels(from: number, count: number): ReportedTunnel[] {
  const seconds = Math.floor(Date.now() / 1000);
  return Array.from({ length: count }, (_, index) => {
    const identity = initiator(from + index, FLEET_DEFAULTS);
    return { name: identity.nodeID, ...identity, createdAt: { seconds, nanos: 123_456_000 } };
  });
}
