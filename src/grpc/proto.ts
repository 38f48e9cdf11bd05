import { fileURLToPath } from 'node:url';
import type { MethodDefinition } from '@grpc/grpc-js';
import { loadSync, type MessageTypeDefinition, type PackageDefinition } from '@grpc/proto-loader';

const PACKAGE = 'envoy.extensions.reverse_tunnel_reporters.v3alpha.clients.grpc_client';
const FILE = `${PACKAGE.replaceAll('.', '/')}/stream_reverse_tunnels.proto`;
/** Beside `src` and beside `dist` alike. */
const PROTO_DIR = fileURLToPath(new URL('../../proto', import.meta.url));

/** google.protobuf.Duration. */
export interface DurationMessage {
  readonly seconds: number | string;
  readonly nanos: number;
}

/** StreamReverseTunnelsResponse: an ACK, or with `error_detail` a NACK. */
export interface ReportResponse {
  readonly node_id: string;
  readonly report_interval?: DurationMessage | null;
  /** int64 as decimal text: as a number it would lose digits from 2^53. */
  readonly request_nonce: string;
  readonly error_detail?: { readonly code: number; readonly message: string } | null;
}

/** envoy.config.core.v3.Node, as far as proto/ describes it. Parts that were left out are undefined. */
export interface NodeMessage {
  readonly id?: string;
  readonly cluster?: string;
  readonly locality?: { readonly region?: string; readonly zone?: string; readonly sub_zone?: string };
  readonly user_agent_name?: string;
  readonly user_agent_version?: string;
  readonly user_agent_build_version?: {
    readonly version?: {
      readonly major_number?: number;
      readonly minor_number?: number;
      readonly patch?: number;
    };
  };
}

/**
 * The one method of the service. Requests stay bytes on both sides: a full push can hold a hundred thousand tunnels,
 * and turning it into objects in one go would hold up every other stream.
 */
export type StreamReverseTunnels = MethodDefinition<Buffer, ReportResponse>;

/** The wire contract, as grpc-js takes it. */
export interface ReportingService {
  readonly service: { readonly StreamReverseTunnels: StreamReverseTunnels };
  /** The service's full name, as grpc.health.v1 knows it. */
  readonly name: string;
  /** All of `proto/`, as reflection tells of it. */
  readonly definitions: PackageDefinition;
  /** Throws when the bytes are no Node. */
  readonly decodeNode: (bytes: Uint8Array) => NodeMessage;
}

let loadedService: ReportingService | undefined;

/** The contract as `proto/` has it; read once a process, as that takes some 30 ms and generates code. */
export function loadReportingService(): ReportingService {
  loadedService ??= readReportingService();
  return loadedService;
}

function readReportingService(): ReportingService {
  const definitions = loadSync(FILE, { includeDirs: [PROTO_DIR], longs: String, keepCase: true });
  const name = `${PACKAGE}.ReverseTunnelReportingService`;
  const loaded = definitions[name] as unknown as {
    readonly StreamReverseTunnels: MethodDefinition<object, ReportResponse>;
  };
  const node = definitions['envoy.config.core.v3.Node'] as MessageTypeDefinition<object, object>;
  return {
    name,
    definitions,
    service: {
      StreamReverseTunnels: {
        ...loaded.StreamReverseTunnels,
        requestSerialize: passThrough,
        requestDeserialize: passThrough,
      },
    },
    decodeNode: (bytes) => node.deserialize(Buffer.from(bytes)),
  };
}

function passThrough(bytes: Buffer): Buffer {
  return bytes;
}
