import { fileURLToPath } from 'node:url';
import type { MethodDefinition } from '@grpc/grpc-js';
import { loadSync, type MessageTypeDefinition, type PackageDefinition } from '@grpc/proto-loader';

const PACKAGE = 'envoy.extensions.reverse_tunnel_reporters.v3alpha.clients.grpc_client';
const FILE = `${PACKAGE.replaceAll('.', '/')}/stream_reverse_tunnels.proto`;
/** Next to `src` in the repository, and next to `dist` in a build. */
const PROTO_DIR = fileURLToPath(new URL('../../proto', import.meta.url));

/** google.protobuf.Duration. */
export interface DurationMessage {
  readonly seconds: number | string;
  readonly nanos: number;
}

/** StreamReverseTunnelsResponse: an ACK, or a NACK if `error_detail` is set. */
export interface ReportResponse {
  readonly node_id: string;
  readonly report_interval?: DurationMessage | null;
  /** An int64 as decimal text: a number would lose digits beyond 2^53. */
  readonly request_nonce: string;
  readonly error_detail?: { readonly code: number; readonly message: string } | null;
}

/** The fields of envoy.config.core.v3.Node that proto/ declares. Omitted fields are undefined. */
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
 * The service's only method. Requests stay bytes on both sides: a full push can list a hundred thousand tunnels, and
 * decoding it in one go would delay every other stream.
 */
export type StreamReverseTunnels = MethodDefinition<Buffer, ReportResponse>;

/** The wire contract in the form that grpc-js needs. */
export interface ReportingService {
  readonly service: { readonly StreamReverseTunnels: StreamReverseTunnels };
  /** The full name of the service, as used by grpc.health.v1. */
  readonly name: string;
  /** All definitions of `proto/`, for reflection. */
  readonly definitions: PackageDefinition;
  /** Throws if the bytes are not a Node. */
  readonly decodeNode: (bytes: Uint8Array) => NodeMessage;
}

let loadedService: ReportingService | undefined;

/** Returns the contract of `proto/`; loaded once per process, because that takes some 30 ms and generates code. */
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
